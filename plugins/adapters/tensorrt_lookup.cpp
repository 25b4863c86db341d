//! \file tensorrt_lookup.cpp
#include "tensorrt_lookup.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <dlfcn.h>
#include <link.h>
#include <sys/auxv.h>
#include <unwind.h>

namespace vim_plugins::adapters {
namespace {

// Library names that carry a plugin registry. The lean and dispatch runtimes have their own.
constexpr std::array<char const*, 4> kLibraryNames{"libnvinfer.so", "libnvinfer_lean.so",
                                                   "libnvinfer_dispatch.so", "libtensorrt_rtx.so"};

template <typename Function>
Function symbol(void* handle, char const* name) noexcept {
    return reinterpret_cast<Function>(::dlsym(handle, name));
}

char const* base_name(char const* path) noexcept {
    char const* slash = std::strrchr(path, '/');
    return slash == nullptr ? path : slash + 1;
}

bool is_tensorrt(char const* path) noexcept {
    char const* name = base_name(path);
    return std::any_of(kLibraryNames.begin(), kLibraryNames.end(), [name](char const* known) {
        return std::strncmp(name, known, std::strlen(known)) == 0;
    });
}

// Called with the loader's lock held: only notes the names, since opening one here would re-enter.
int note_tensorrt(dl_phdr_info* info, size_t, void* data) {
    if (info->dlpi_name != nullptr && is_tensorrt(info->dlpi_name)) {
        static_cast<std::vector<std::string>*>(data)->emplace_back(info->dlpi_name);
    }
    return 0;
}

void add_library(void* handle, std::vector<LoadedTensorRt>& found) {
    auto const get_registry = symbol<void* (*)()>(handle, "getPluginRegistry");
    auto const get_version = symbol<int32_t (*)()>(handle, "getInferLibVersion");
    if (get_registry == nullptr || get_version == nullptr) {
        return;
    }
    LoadedTensorRt library;
    library.registry = get_registry();
    bool const known = std::any_of(
        found.begin(), found.end(),
        [&library](LoadedTensorRt const& other) { return other.registry == library.registry; });
    if (library.registry == nullptr || known) {
        return;
    }
    Dl_info info{};
    if (::dladdr(reinterpret_cast<void const*>(get_registry), &info) != 0) {
        library.base = info.dli_fbase;
        library.path = info.dli_fname == nullptr ? "" : info.dli_fname;
    }
    library.version = get_version();
    library.get_logger = symbol<void* (*)()>(handle, "getLogger");
    found.push_back(std::move(library));
}

struct StackSearch {
    void const* base;
    bool found;
};

_Unwind_Reason_Code check_frame(_Unwind_Context* context, void* data) {
    auto* search = static_cast<StackSearch*>(data);
    // The address of a frame is its return address, which may lie behind the last instruction of
    // a function that does not return; one byte back is always inside the calling instruction.
    auto const address = _Unwind_GetIP(context);
    if (address != 0 && base_of(reinterpret_cast<void const*>(address - 1)) == search->base) {
        search->found = true;
        return _URC_END_OF_STACK;
    }
    return _URC_NO_REASON;
}

}  // namespace

std::vector<LoadedTensorRt> find_loaded_tensorrt() {
    std::vector<LoadedTensorRt> found;
    add_library(RTLD_DEFAULT, found);
    std::vector<std::string> names;
    ::dl_iterate_phdr(note_tensorrt, &names);
    for (std::string const& name : names) {
        void* handle = ::dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
        if (handle != nullptr) {
            add_library(handle, found);
            ::dlclose(handle);
        }
    }
    return found;
}

void const* base_of(void const* address) noexcept {
    Dl_info info{};
    return ::dladdr(address, &info) == 0 ? nullptr : info.dli_fbase;
}

void const* program_base() noexcept {
    return base_of(reinterpret_cast<void const*>(::getauxval(AT_ENTRY)));
}

bool is_on_call_stack(void const* base) noexcept {
    StackSearch search{base, false};
    _Unwind_Backtrace(check_frame, &search);
    return search.found;
}

}  // namespace vim_plugins::adapters
