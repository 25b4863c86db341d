//! Starting a kernel, and reaching its shared memory, in a form that nvcc and the CPU shim of the
//! tests both compile. All shared memory is dynamic: the shim gives each block a fresh NaN-filled
//! buffer of exactly the size asked for.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace vim_plugins {

template <typename Storage>
__device__ __forceinline__ Storage& shared_storage() {
#ifdef VIM_PLUGINS_HOST_SHIM
    return *static_cast<Storage*>(vim_shim::dynamic_shared(sizeof(Storage)));
#else
    extern __shared__ __align__(16) unsigned char vim_plugins_shared[];
    return *reinterpret_cast<Storage*>(vim_plugins_shared);
#endif
}

template <typename Args>
cudaError_t launch_kernel(void (*kernel)(Args), dim3 grid, dim3 block, std::size_t shared_bytes,
                          const Args& args, cudaStream_t stream) {
#ifdef VIM_PLUGINS_HOST_SHIM
    (void)stream;
    return vim_shim::run_grid(kernel, grid, block, shared_bytes, args);
#else
    Args copy = args;
    void* arguments[] = {&copy};
    const cudaError_t launched = cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid,
                                                  block, arguments, shared_bytes, stream);
    const cudaError_t last = cudaGetLastError();
    return launched != cudaSuccess ? launched : last;
#endif
}

}  // namespace vim_plugins
