//! \file registration.cpp
//! Registers the plugins when the library is only dlopened, as Triton's TensorRT backend does,
//! and keeps out of the way when TensorRT itself loads the library.
#include <NvInferVersion.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <string>

#include "abi.h"
#include "creators.h"
#include "logging.h"
#include "tensorrt_lookup.h"
#include "vim_plugins/contract.h"

namespace vim_plugins::adapters {
namespace {

// A creator compiled against the headers of 8 is another class than one of 10; from 10 to 11 the
// creator interface stayed as it is.
bool fits_headers(Generation generation) noexcept {
#if NV_TENSORRT_MAJOR >= 10
    return generation == Generation::kV10 || generation == Generation::kV11;
#else
    return generation == Generation::kV8;
#endif
}

struct Registered {
    std::mutex mutex;
    std::vector<LoadedTensorRt> libraries;
};

Registered& registered() {
    static auto* instance = new Registered;
    return *instance;
}

// Creators in a registry must not vanish with a dlclose of the one who opened the library.
void stay_loaded() {
    Dl_info info{};
    if (::dladdr(reinterpret_cast<void const*>(&vim_plugins_register), &info) != 0) {
        static_cast<void>(::dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE));
    }
}

// Whether at least one creator is new to this registry.
bool register_creators(LoadedTensorRt const& library) {
    using RegisterCreator = bool (*)(void*, void*, char const*);
    int const slot = abi_slots(library.version).register_creator;
    auto const call = virtual_function<RegisterCreator>(library.registry, slot);
    bool any = false;
    for (void* creator : creator_objects()) {
        any = call(library.registry, creator, kPluginNamespace) || any;
    }
    return any;
}

void deregister_creators(LoadedTensorRt const& library) {
    using DeregisterCreator = bool (*)(void*, void const*);
    int const slot = abi_slots(library.version).deregister_creator;
    auto const call = virtual_function<DeregisterCreator>(library.registry, slot);
    for (void* creator : creator_objects()) {
        static_cast<void>(call(library.registry, creator));
    }
}

// The entry of the library at `base`, or the end.
std::vector<LoadedTensorRt>::iterator find_base(Registered& done, void const* base) {
    return std::find_if(done.libraries.begin(), done.libraries.end(),
                        [base](LoadedTensorRt const& entry) { return entry.base == base; });
}

// A program that TensorRT is linked into is on every call stack, so that says nothing there;
// registering is harmless then, since the entry point that TensorRT calls next hands over.
bool is_loading_us(LoadedTensorRt const& library) noexcept {
    return library.base != program_base() && is_on_call_stack(library.base);
}

void register_with(LoadedTensorRt const& library, Registered& done) {
    std::string const name = library.path.empty() ? "this program" : library.path;
    if (!fits_headers(generation_of(library.version))) {
        report(Severity::kWarning, "vim_plugins: not registered with " + name +
                                       ", TensorRT version " + std::to_string(library.version) +
                                       ": this library is built for TensorRT " +
                                       std::to_string(NV_TENSORRT_MAJOR));
        return;
    }
    if (library.get_logger != nullptr) {
        add_logger_source(library.get_logger, library.version);
    }
    if (find_base(done, library.base) != done.libraries.end() || is_loading_us(library)) {
        return;
    }
    if (!register_creators(library)) {
        report(Severity::kInfo, "vim_plugins: the plugins are already registered with " + name);
        return;
    }
    stay_loaded();
    done.libraries.push_back(library);
    report(Severity::kVerbose, "vim_plugins: registered with " + name);
}

}  // namespace

int register_with_loaded_tensorrt() noexcept {
    return guarded("registration", 0, [] {
        Registered& done = registered();
        std::lock_guard<std::mutex> const lock(done.mutex);
        for (LoadedTensorRt const& library : find_loaded_tensorrt()) {
            register_with(library, done);
        }
        return static_cast<int>(done.libraries.size());
    });
}

void hand_over_to(void const* address) noexcept {
    guarded("registration", 0, [address] {
        Registered& done = registered();
        std::lock_guard<std::mutex> const lock(done.mutex);
        auto const entry = find_base(done, base_of(address));
        if (entry != done.libraries.end()) {
            deregister_creators(*entry);
            done.libraries.erase(entry);
        }
        return 0;
    });
}

void take_logger_finder(void* finder, void const* address) noexcept {
    guarded("setLoggerFinder", 0, [finder, address] {
        void const* base = base_of(address);
        for (LoadedTensorRt const& library : find_loaded_tensorrt()) {
            if (library.base == base && generation_of(library.version) != Generation::kUnknown) {
                set_logger_finder(finder, library.version);
            }
        }
        return 0;
    });
}

namespace {

[[gnu::constructor]] void register_on_load() {
    register_with_loaded_tensorrt();
}

}  // namespace
}  // namespace vim_plugins::adapters

extern "C" int vim_plugins_register() noexcept {
    return vim_plugins::adapters::register_with_loaded_tensorrt();
}
