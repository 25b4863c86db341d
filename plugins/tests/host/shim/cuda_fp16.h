//! Stand-in for CUDA's fp16 header.
#pragma once

#include "../../common/small_float.h"
#include "cuda_runtime.h"

struct __half {
    std::uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

inline float __half2float(__half value) {
    return vim_shim::half_to(value.bits);
}
inline __half __float2half_rn(float value) {
    return {vim_shim::half_from(value)};
}
inline float2 __half22float2(__half2 value) {
    return {__half2float(value.x), __half2float(value.y)};
}
inline __half2 __float22half2_rn(float2 value) {
    return {__float2half_rn(value.x), __float2half_rn(value.y)};
}
