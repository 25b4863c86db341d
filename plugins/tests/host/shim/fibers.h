//! Runs a CUDA grid on one CPU thread: blocks one after the other (those of a cluster together),
//! the threads of a block as fibers that switch only at barriers and shuffles.
//!
//! What it catches: reads of shared memory nobody wrote (it is filled with NaN), any access outside
//! a tensor or shared memory (with AddressSanitizer), barriers that not all threads reach, and, by
//! running the same grid in several fiber orders, results that depend on an order no barrier fixes;
//! in clusters, access to a block that may not have started or has ended.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vim_shim {

//! Order in which runnable fibers get the CPU. Ascending keeps warps and blocks in step; in the two
//! others each runs ahead of its neighbours as far as the barriers let it.
enum class Schedule { kAscending, kDescending, kShuffled };
void set_schedule(Schedule schedule);

const uint3& thread_index();
const uint3& block_index();
void block_barrier();
void warp_barrier();
//! The two halves of the cluster's barrier.
void cluster_arrive();
void cluster_wait();
unsigned cluster_rank();
//! Where the block of this rank has what stands at `own` in this block's shared memory. Aborts when
//! no barrier of the cluster has opened yet, or when that block has ended.
void* remote_shared(void* own, unsigned rank);
//! The value of the lane `offset` away, or the own one outside the warp.
float shuffle(float value, int offset);
//! The block's shared memory; aborts when it is smaller than `bytes`.
void* dynamic_shared(std::size_t bytes);

//! Runs `body(argument)` once per thread of the grid, so many blocks a cluster.
cudaError_t run_threads(dim3 grid, dim3 block, std::size_t shared_bytes, unsigned cluster_blocks,
                        void (*body)(const void*), const void* argument);

template <typename Args>
cudaError_t run_grid(void (*kernel)(Args), dim3 grid, dim3 block, std::size_t shared_bytes,
                     const Args& args, unsigned cluster_blocks = 1) {
    struct Call {
        void (*kernel)(Args);
        const Args* args;
    };
    const Call call{kernel, &args};
    return run_threads(
        grid, block, shared_bytes, cluster_blocks,
        [](const void* at) {
            const Call& c = *static_cast<const Call*>(at);
            c.kernel(*c.args);
        },
        &call);
}

}  // namespace vim_shim
