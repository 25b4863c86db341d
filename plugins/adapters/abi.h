//! \file abi.h
//! Where the few functions that this library calls on TensorRT's objects lie in their virtual
//! tables, by version.
//!
//! The plugins are handed to TensorRT, which calls them through interfaces that are the same from
//! 10.0 to 11.1. The other way round that is not so: 11.0 dropped three functions from the front
//! of IPluginRegistry and gave ILogger and ILoggerFinder a base class, so that a call compiled
//! against the headers of 10 lands in another function of 11. One library serves both, hence the
//! table. Positions follow from the order of declaration in NvInferRuntimeCommon.h,
//! NvInferRuntime.h and NvInferRuntimeBase.h of 8.5.3 to 8.6.1, 10.0 to 10.16, 11.0 and 11.1
//! (Itanium C++ ABI: a virtual destructor takes two places).
#pragma once

#include "tensorrt_lookup.h"

namespace vim_plugins::adapters {

//! Index in the virtual table of each function called.
struct AbiSlots {
    int register_creator;    //!< IPluginRegistry: bool (creator, namespace)
    int deregister_creator;  //!< IPluginRegistry: bool (creator)
    int find_logger;         //!< ILoggerFinder: ILogger* ()
    int log;                 //!< ILogger: void (severity, message)
};

//! The slots of a version as getInferLibVersion() states it; its generation must be known.
//!
//! 8.6.0 declares deregisterCreator() behind loadLibrary() and 8.5 and 8.6.1 before it.
constexpr AbiSlots abi_slots(std::int32_t version) noexcept {
    switch (generation_of(version)) {
        case Generation::kV10:
            return {12, 15, 0, 0};
        case Generation::kV11:
            return {8, 11, 4, 4};
        case Generation::kV8:
        case Generation::kUnknown:
            break;
    }
    return {0, version == 8600 ? 11 : 7, 0, 0};
}

//! The virtual function of `object` at `slot`; the object itself is the function's first argument.
template <typename Function>
Function virtual_function(void* object, int slot) noexcept {
    return reinterpret_cast<Function>((*static_cast<void***>(object))[slot]);
}

}  // namespace vim_plugins::adapters
