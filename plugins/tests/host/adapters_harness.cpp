//! \file adapters_harness.cpp
//! The parts of the harness that do not depend on the plugin interface: loading and registration.
#include "adapters_harness.h"

#include <memory>

namespace {

// Triton's way: TensorRT is loaded already, its symbols are not in the global scope, and the plugin
// library is opened by someone else.
void check_registration_by_dlopen() {
    CHECK(tensorrt().creators.size() == 3);
    CHECK(tensorrt().refused == 0);
    auto const again = find<int (*)()>(libraries.plugins, "vim_plugins_register");
    CHECK(again() == 1);
    CHECK(tensorrt().creators.size() == 3);
    CHECK(tensorrt().refused == 0);
    tensorrt().messages.clear();
}

// The same library given to TensorRT as well, then taken away, then given again.
void check_load_library_after_dlopen() {
    void* handle = registry().loadLibrary(libraries.plugins_path.c_str());
    CHECK(handle != nullptr);
    CHECK(tensorrt().creators.size() == 3);
    CHECK(tensorrt().refused == 0);
    registry().deregisterLibrary(handle);
    CHECK(tensorrt().creators.empty());
    CHECK(registry().loadLibrary(libraries.plugins_path.c_str()) != nullptr);
    CHECK(tensorrt().creators.size() == 3);
    tensorrt().messages.clear();
}

}  // namespace

int run_harness(int argc, char** argv,
                std::vector<std::pair<char const*, void (*)()>> const& checks) {
    if (argc != 4) {
        std::printf("usage: %s FAKE_TENSORRT PLUGINS dlopen|load\n", argv[0]);
        return 2;
    }
    libraries.tensorrt = ::dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    libraries.plugins_path = argv[2];
    if (libraries.tensorrt == nullptr) {
        std::printf("FAILED %s\n", ::dlerror());
        return 1;
    }
    bool const load_first = std::string(argv[3]) == "load";
    if (load_first) {
        // TensorRT loads the library itself: the library must not register on its own account.
        CHECK(registry().loadLibrary(argv[2]) != nullptr);
        CHECK(tensorrt().creators.size() == 3);
        CHECK(tensorrt().refused == 0);
    }
    libraries.plugins = ::dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
    if (libraries.plugins == nullptr) {
        std::printf("FAILED %s\n", ::dlerror());
        return 1;
    }
    if (load_first) {
        CHECK(tensorrt().creators.size() == 3);
    } else {
        check_registration_by_dlopen();
        check_load_library_after_dlopen();
    }
    for (auto const& check : checks) {
        int const before = failures;
        check.second();
        std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", check.first);
    }
    return failures == 0 ? 0 : 1;
}
