//! \file library_info.cpp
//! What the library says about itself, callable without ONNX Runtime and without a GPU.
#include <cstdint>
#include <exception>
#include <string>

#include "device.h"
#include "vim_plugins/contract.h"
#include "vim_plugins/params.h"

namespace vim_plugins::ort {
namespace {

std::string compiler() {
#if defined(__clang__)
    return "clang++ " + std::to_string(__clang_major__) + '.' + std::to_string(__clang_minor__) +
           '.' + std::to_string(__clang_patchlevel__);
#else
    return "g++ " + std::to_string(__GNUC__) + '.' + std::to_string(__GNUC_MINOR__) + '.' +
           std::to_string(__GNUC_PATCHLEVEL__);
#endif
}

std::string quoted(std::string const& text) {
    return '"' + text + '"';
}

std::string quoted_ops() {
    std::string text;
#define VIM_PLUGINS_QUOTE(Name, c_name) text += (text.empty() ? "" : ", ") + quoted(k##Name);
    VIM_ORT_OPS(VIM_PLUGINS_QUOTE)
#undef VIM_PLUGINS_QUOTE
    return text;
}

std::string make_build_info() {
    return "{\"name\": " + quoted(std::string("vim_ort_") + provider_name()) +
           ", \"provider\": " + quoted(provider_name()) +
           ", \"version\": " + quoted(VIM_PLUGINS_VERSION) +
           ", \"contract_version\": " + std::to_string(kContractVersion) +
           ", \"domain\": " + quoted(kDomain) +
           ", \"domain_version\": " + std::to_string(kDomainVersion) + ", \"ops\": [" +
           quoted_ops() + "], \"ort_api\": " + std::to_string(needed_api()) + provider_facts() +
           ", \"compiler\": " + quoted(compiler()) +
           ", \"kernels\": " + quoted(VIM_PLUGINS_KERNEL_HASH) + '}';
}

}  // namespace
}  // namespace vim_plugins::ort

#define VIM_EXPORT __attribute__((visibility("default")))

extern "C" {

VIM_EXPORT std::int32_t vim_plugins_contract_version() noexcept {
    return vim_plugins::kContractVersion;
}

//! One JSON object; static storage.
VIM_EXPORT char const* vim_plugins_build_info() noexcept {
    try {
        static std::string const text = vim_plugins::ort::make_build_info();
        return text.c_str();
    } catch (std::exception const&) {
        return "{}";  // out of memory
    }
}

}  // extern "C"
