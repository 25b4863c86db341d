//! \file adapters_harness.cpp
//! The parts of the harness that do not depend on the plugin interface: loading and registration.
#include "adapters_harness.h"

#include <cstddef>
#include <cstring>

#include "abi.h"

namespace {

// Place of a virtual function in its table, from a pointer to it (Itanium C++ ABI: the offset in
// the table plus one).
template <typename Function>
int slot_of(Function function) {
    static_assert(sizeof(function) == 2 * sizeof(std::ptrdiff_t));
    std::ptrdiff_t offset = 0;
    std::memcpy(&offset, &function, sizeof(offset));
    return static_cast<int>((offset - 1) / static_cast<std::ptrdiff_t>(sizeof(void*)));
}

// The table of abi.h against the headers at hand.
void check_abi_slots() {
    using nvinfer1::IPluginCreatorInterface;
    using nvinfer1::IPluginRegistry;
    bool (IPluginRegistry::*add)(IPluginCreatorInterface&, char const* const) noexcept =
        &IPluginRegistry::registerCreator;
    bool (IPluginRegistry::*remove)(IPluginCreatorInterface const&) noexcept =
        &IPluginRegistry::deregisterCreator;
    auto const slots = vim_plugins::adapters::abi_slots(
        NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH);
    CHECK(slot_of(add) == slots.register_creator);
    CHECK(slot_of(remove) == slots.deregister_creator);
    CHECK(slot_of(&nvinfer1::ILoggerFinder::findLogger) == slots.find_logger);
    CHECK(slot_of(&nvinfer1::ILogger::log) == slots.log);
}

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
    check_abi_slots();
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
