//! \file library_info.h
//! What the library says about itself.
#pragma once

namespace vim_plugins::adapters {

//! Hash of the kernels' sources, set by the build: timings of other kernels are not reused.
char const* kernel_version() noexcept;

}  // namespace vim_plugins::adapters

//! The library as one JSON object: contract and plugin version, ops, the TensorRT version of the
//! headers and the plugin interface, CUDA version, architectures, hash of the kernels. Static
//! storage; callable without TensorRT and without a GPU.
extern "C" char const* vim_plugins_build_info() noexcept;
