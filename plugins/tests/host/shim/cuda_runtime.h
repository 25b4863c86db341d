//! Stand-in for CUDA's device header, for running kernel source on the CPU (see fibers.h).
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#define VIM_PLUGINS_HOST_SHIM 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) {
    return {x, y};
}

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

struct alignas(8) uint2 {
    unsigned x, y;
};
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#include "fibers.h"

#define threadIdx (vim_shim::thread_index())
#define blockIdx (vim_shim::block_index())

inline void __syncthreads() {
    vim_shim::block_barrier();
}
inline void __syncwarp() {
    vim_shim::warp_barrier();
}
inline float __shfl_up_sync(unsigned, float value, int distance) {
    return vim_shim::shuffle(value, -distance);
}
inline float __shfl_down_sync(unsigned, float value, int distance) {
    return vim_shim::shuffle(value, distance);
}
