//! Starting a kernel, and reaching its shared memory, in a form that nvcc and the CPU shim of the
//! tests both compile. All shared memory is dynamic: the shim gives each block a fresh NaN-filled
//! buffer of exactly the size asked for.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>

#include "answers.h"

namespace vim_plugins {

//! First compute capability with thread block clusters, as __CUDA_ARCH__ counts it, and the first
//! CUDA whose PTX has all that the kernels here say of them (8.0).
#define VIM_PLUGINS_CLUSTER_ARCH 900
#define VIM_PLUGINS_CLUSTER_CUDART 12000

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
    return answered(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, arguments,
                                     shared_bytes, stream));
#endif
}

//! As above, so many neighbouring blocks a thread block cluster.
template <typename Args>
cudaError_t launch_in_clusters(void (*kernel)(Args), unsigned cluster_blocks, dim3 grid, dim3 block,
                               std::size_t shared_bytes, const Args& args, cudaStream_t stream) {
#ifdef VIM_PLUGINS_HOST_SHIM
    (void)stream;
    return vim_shim::run_grid(kernel, grid, block, shared_bytes, args, cluster_blocks);
#elif CUDART_VERSION >= VIM_PLUGINS_CLUSTER_CUDART
    Args copy = args;
    void* arguments[] = {&copy};
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = cluster_blocks;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return answered(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), arguments));
#else
    static_cast<void>(kernel), static_cast<void>(cluster_blocks), static_cast<void>(grid);
    static_cast<void>(block), static_cast<void>(shared_bytes), static_cast<void>(args);
    static_cast<void>(stream);
    return cudaErrorNotSupported;
#endif
}

//! What has been asked of a device.
enum class Known : char { kNothing, kNo, kYes };

//! Whether the current device runs kernels in clusters: it has them, and the code that was chosen
//! for it was compiled for such a device. PTX of an older one has no clusters in it, even where the
//! driver compiles it for a device that has. Any kernel answers for all, which are compiled for the
//! same architectures. False when the device cannot be asked. The questions do not synchronise, so
//! they are allowed during stream capture; since launches ask, answers are kept.
template <typename Args>
bool runs_in_clusters(void (*kernel)(Args)) {
#ifdef VIM_PLUGINS_HOST_SHIM
    (void)kernel;
    return vim_shim_clusters() != 0;
#elif CUDART_VERSION >= VIM_PLUGINS_CLUSTER_CUDART
    constexpr int kKept = 64;
    static std::atomic<Known> kept[kKept] = {};
    int device = 0;
    if (answered(cudaGetDevice(&device)) != cudaSuccess) {
        return false;
    }
    const bool keeps = device >= 0 && device < kKept;
    const Known before = keeps ? kept[device].load(std::memory_order_relaxed) : Known::kNothing;
    if (before != Known::kNothing) {
        return before == Known::kYes;
    }
    int clusters = 0;
    cudaFuncAttributes code{};
    if (answered(cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, device)) !=
            cudaSuccess ||
        answered(cudaFuncGetAttributes(&code, reinterpret_cast<const void*>(kernel))) !=
            cudaSuccess) {
        return false;
    }
    const bool runs = clusters != 0 && 10 * code.ptxVersion >= VIM_PLUGINS_CLUSTER_ARCH;
    if (keeps) {
        kept[device].store(runs ? Known::kYes : Known::kNo, std::memory_order_relaxed);
    }
    return runs;
#else
    static_cast<void>(kernel);
    return false;
#endif
}

}  // namespace vim_plugins
