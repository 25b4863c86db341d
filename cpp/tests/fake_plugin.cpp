//! \file fake_plugin.cpp
//! A plugin library: it registers with the fake TensorRT when it is opened, as the real one does.
//! FAKE_CONTRACT is the contract it says it follows; FAKE_REFUSES: no TensorRT takes it.
#include <dlfcn.h>

#include <cstdint>

namespace {

std::int32_t enrol() {
#ifdef FAKE_REFUSES
    return 0;
#else
    using Register = void (*)();
    auto const call = reinterpret_cast<Register>(::dlsym(RTLD_DEFAULT, "fake_register_plugins"));
    if (call == nullptr) {
        return 0;
    }
    call();
    return 1;
#endif
}

[[gnu::constructor]] void on_load() {
    enrol();
}

}  // namespace

extern "C" std::int32_t vim_plugins_contract_version() {
    return FAKE_CONTRACT;
}

extern "C" std::int32_t vim_plugins_register() {
    return enrol();
}
