//! The clock of a multiprocessor while the GPU works, for kernels.py.
//!
//! One thread counts cycles (clock64) for some nanoseconds of the GPU's timer of fixed rate
//! (globaltimer, which steps by up to about a microsecond: 2 ms leave an error of 0.1 %).
#include <cuda_runtime.h>

#include <cstdint>

namespace {

__device__ std::uint64_t nanoseconds_now() {
    std::uint64_t value;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value));
    return value;
}

__global__ void count_cycles(std::uint64_t wanted, std::uint64_t* counted) {
    const std::uint64_t began = nanoseconds_now();
    const long long first = clock64();
    std::uint64_t passed = 0;
    while (passed < wanted) {
        passed = nanoseconds_now() - began;
    }
    counted[0] = std::uint64_t(clock64() - first);
    counted[1] = passed;
}

}  // namespace

//! Enqueue the count: cycles and nanoseconds go to `counted` (device memory, 16 bytes). Returns the
//! CUDA error code.
extern "C" int vim_count_cycles(std::uint64_t nanoseconds, std::uint64_t* counted, void* stream) {
    count_cycles<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(nanoseconds, counted);
    return static_cast<int>(cudaGetLastError());
}
