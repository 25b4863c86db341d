//! \file plugin.cpp
#include <dlfcn.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "file.h"
#include "guard.h"
#include "vim_deploy/runtime.h"

namespace vim_deploy {
namespace {

using Ask = std::int32_t (*)();

Error not_ours(std::string const& path, std::string const& why) {
    return {"VIM-417", "not a plugin library of vim-deploy: " + path, why,
            "build one with vim-deploy plugin build"};
}

std::string last_problem() {
    char const* text = ::dlerror();
    return text == nullptr ? "the loader gave no reason" : text;
}

Status load(std::string const& path) {
    if (!is_file(path)) {
        return Error{"VIM-401", "plugin library not found: " + path, "there is no such file",
                     "build it with vim-deploy plugin build, or name another one"};
    }
    // A name without a slash would be looked for in the system's folders.
    std::string const place = std::filesystem::absolute(path).string();
    // Never closed: TensorRT's registry holds objects of this library.
    void* handle = ::dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        return not_ours(path, last_problem());
    }
    auto const contract = reinterpret_cast<Ask>(::dlsym(handle, "vim_plugins_contract_version"));
    auto const enrol = reinterpret_cast<Ask>(::dlsym(handle, "vim_plugins_register"));
    if (contract == nullptr || enrol == nullptr) {
        return not_ours(path, last_problem());
    }
    if (contract() != kContractVersion) {
        return Error{"VIM-903", path + " does not fit this program",
                     "its ops follow contract " + std::to_string(contract()) + ", expected " +
                         std::to_string(kContractVersion),
                     "build it again: vim-deploy plugin build"};
    }
    // Opening it registered it already; this says with how many TensorRT libraries.
    if (enrol() < 1) {
        return Error{"VIM-903", "no TensorRT in this process takes the plugins of " + path,
                     "this program runs TensorRT " + tensorrt_version() +
                         ", the library is built for another generation",
                     "vim-deploy plugin build --tensorrt 8.6, 10 or 11"};
    }
    return Done{};
}

}  // namespace

Status load_plugin(std::string const& path) {
    return guarded("opening the plugin library", [&path] { return load(path); });
}

}  // namespace vim_deploy
