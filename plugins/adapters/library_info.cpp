//! \file library_info.cpp
#include "library_info.h"

#include <NvInferVersion.h>
#include <cuda_runtime_api.h>

#include <exception>
#include <sstream>
#include <string>

#include "vim_plugins/contract.h"
#include "vim_plugins/params.h"

namespace vim_plugins::adapters {
namespace {

std::string quoted_ops() {
    std::string text;
#define VIM_PLUGINS_QUOTE(Name, c_name) \
    text += text.empty() ? "" : ", ";   \
    text += std::string("\"") + k##Name + "\"";
    VIM_PLUGINS_OPS(VIM_PLUGINS_QUOTE)
#undef VIM_PLUGINS_QUOTE
    return text;
}

std::string make_build_info() {
    std::ostringstream text;
    text << "{\"name\": \"vim_plugins\", \"version\": \"" << VIM_PLUGINS_VERSION
         << "\", \"contract_version\": " << kContractVersion << ", \"plugin_version\": \""
         << kPluginVersion << "\", \"plugin_namespace\": \"" << kPluginNamespace << "\", \"ops\": ["
         << quoted_ops() << "], \"interface\": \"" << VIM_PLUGINS_INTERFACE
         << "\", \"tensorrt\": \"" << NV_TENSORRT_MAJOR << '.' << NV_TENSORRT_MINOR << '.'
         << NV_TENSORRT_PATCH << "\", \"cuda\": \"" << CUDART_VERSION / 1000 << '.'
         << CUDART_VERSION % 1000 / 10 << "\", \"architectures\": \"" << VIM_PLUGINS_ARCHITECTURES
         << "\", \"kernels\": \"" << kernel_version() << "\"}";
    return text.str();
}

}  // namespace

char const* kernel_version() noexcept {
    return VIM_PLUGINS_KERNEL_HASH;
}

}  // namespace vim_plugins::adapters

extern "C" char const* vim_plugins_build_info() noexcept {
    try {
        static std::string const text = vim_plugins::adapters::make_build_info();
        return text.c_str();
    } catch (std::exception const&) {
        return "{}";  // out of memory
    }
}
