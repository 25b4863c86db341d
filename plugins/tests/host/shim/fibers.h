//! Runs a CUDA grid on one CPU thread: blocks one after the other, the threads of a block as fibers
//! that switch only at barriers and shuffles.
//!
//! What it catches: reads of shared memory nobody wrote (it is filled with NaN), any access outside
//! a tensor or shared memory (with AddressSanitizer), barriers that not all threads reach, and, by
//! running the same grid in several fiber orders, results that depend on an order no barrier fixes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vim_shim {

//! Order in which runnable fibers of a block get the CPU. Ascending keeps the warps in step; in the
//! two others a warp runs ahead of its neighbours as far as the barriers let it.
enum class Schedule { kAscending, kDescending, kShuffled };
void set_schedule(Schedule schedule);

const uint3& thread_index();
const uint3& block_index();
void block_barrier();
void warp_barrier();
//! The value of the lane `offset` away, or the own one outside the warp.
float shuffle(float value, int offset);
//! The block's shared memory; aborts when it is smaller than `bytes`.
void* dynamic_shared(std::size_t bytes);

//! Runs `body(argument)` once per thread of the grid.
cudaError_t run_threads(dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(const void*),
                        const void* argument);

template <typename Args>
cudaError_t run_grid(void (*kernel)(Args), dim3 grid, dim3 block, std::size_t shared_bytes,
                     const Args& args) {
    struct Call {
        void (*kernel)(Args);
        const Args* args;
    };
    const Call call{kernel, &args};
    return run_threads(
        grid, block, shared_bytes,
        [](const void* at) {
            const Call& c = *static_cast<const Call*>(at);
            c.kernel(*c.args);
        },
        &call);
}

}  // namespace vim_shim
