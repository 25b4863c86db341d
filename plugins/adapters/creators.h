//! \file creators.h
//! Between the creators of one plugin interface and the registration they share.
#pragma once

#include <vector>

namespace vim_plugins::adapters {

//! The creators of this library, as the pointers a registry takes; defined by the interface that
//! the library is built for.
std::vector<void*> creator_objects();

//! Registers the creators with every TensorRT that is loaded and of a fitting generation, unless
//! that TensorRT is at this moment loading the library: it will then ask for them itself.
//! Returns how many registries have them now. Safe to call again.
int register_with_loaded_tensorrt() noexcept;

//! Takes the creators out of the registry of the TensorRT that holds the code at `address`, if they
//! were put there by register_with_loaded_tensorrt(). Its loadLibrary() is about to register them
//! itself, and refuses what is registered already (an empty list it refuses as well).
void hand_over_to(void const* address) noexcept;

//! setLoggerFinder() for a caller at `address`; a finder of a TensorRT that is not known is not
//! taken, since its layout is not known either.
void take_logger_finder(void* finder, void const* address) noexcept;

}  // namespace vim_plugins::adapters

//! Registers the plugins with the TensorRT libraries loaded by now. Runs by itself when the library
//! is loaded; for hosts that load TensorRT later. Returns the number of registries that have them.
extern "C" int vim_plugins_register() noexcept;
