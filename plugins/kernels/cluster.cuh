//! Thread block clusters (sm_90 and newer), in a form that nvcc and the CPU shim of the tests both
//! compile: the cluster's barrier in its two halves, and stores into another block's shared memory.
#pragma once

#include <cuda_runtime.h>

namespace vim_plugins {

//! This block's number within its cluster.
__device__ __forceinline__ unsigned cluster_rank() {
#ifdef VIM_PLUGINS_HOST_SHIM
    return vim_shim::cluster_rank();
#else
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
#endif
}

//! Arrives without saying anything of memory: that the block has started.
__device__ __forceinline__ void cluster_arrive_started() {
#ifdef VIM_PLUGINS_HOST_SHIM
    vim_shim::cluster_arrive();
#else
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}

//! Arrives; what this thread has written, to whatever memory, is there for those who have waited.
__device__ __forceinline__ void cluster_arrive() {
#ifdef VIM_PLUGINS_HOST_SHIM
    vim_shim::cluster_arrive();
#else
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

//! Waits until every thread of the cluster has arrived. Each arrival wants one.
__device__ __forceinline__ void cluster_wait() {
#ifdef VIM_PLUGINS_HOST_SHIM
    vim_shim::cluster_wait();
#else
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

//! Writes into another block's shared memory, at the place that `own` has in this block's. That
//! block must have started and must not have ended.
__device__ __forceinline__ void store_remote(float* own, unsigned rank, float value) {
#ifdef VIM_PLUGINS_HOST_SHIM
    *static_cast<float*>(vim_shim::remote_shared(own, rank)) = value;
#else
    const unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(own));
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
#endif
}

}  // namespace vim_plugins
