//! \file tensorrt_lookup.h
//! Finds the TensorRT libraries that this process has already loaded, without linking to one.
//!
//! A host may have loaded TensorRT with RTLD_LOCAL (Triton does), so its symbols are not in the
//! global scope; the list of loaded objects is walked as well. No library is ever loaded here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vim_plugins::adapters {

//! Families of TensorRT whose plugin registries have different layouts.
enum class Generation : int32_t {
    kUnknown = 0,
    kV8 = 8,    //!< 8.5 to 8.6: IPluginCreator registers through the first virtual function
    kV10 = 10,  //!< 10.x: IPluginCreatorInterface beside the old functions
    kV11 = 11,  //!< 11.x and TensorRT-RTX 1.x: the old functions are gone, the rest moved up
};

//! One loaded library with a plugin registry.
struct LoadedTensorRt {
    std::string path;                 //!< file name as the loader has it; empty for the executable
    void const* base = nullptr;       //!< load address; identifies the library
    int32_t version = 0;              //!< what getInferLibVersion() returns
    void* registry = nullptr;         //!< what getPluginRegistry() returns
    void* (*get_logger)() = nullptr;  //!< TensorRT's getLogger(), or null
};

//! Generation of a version number as getInferLibVersion() states it.
//!
//! 8.x and 9.x count major * 1000 + minor * 100 + patch, 10.x and later major * 10000 + ...;
//! TensorRT-RTX starts again at 1.0. Its layout is known from 1.7 (10700) on.
constexpr Generation generation_of(std::int32_t version) noexcept {
    if (version >= 8500 && version < 9000) {
        return Generation::kV8;
    }
    if (version >= 100000 && version < 110000) {
        return Generation::kV10;
    }
    bool const is_rtx = version >= 10700 && version < 20000;
    bool const is_v11 = version >= 110000 && version < 120000;
    return is_rtx || is_v11 ? Generation::kV11 : Generation::kUnknown;
}

//! Every loaded TensorRT, in load order, each registry once.
std::vector<LoadedTensorRt> find_loaded_tensorrt();

//! Load address of the object that holds \p address; null when there is none.
void const* base_of(void const* address) noexcept;

//! Load address of the program itself.
void const* program_base() noexcept;

//! True when the current call was made, at whatever distance, by code of the object at \p base.
bool is_on_call_stack(void const* base) noexcept;

}  // namespace vim_plugins::adapters
