//! Stand-in for CUDA's bf16 header.
#pragma once

#include "../../common/small_float.h"
#include "cuda_runtime.h"

struct __nv_bfloat16 {
    std::uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 value) {
    return vim_shim::bfloat_to(value.bits);
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    return {vim_shim::bfloat_from(value)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 value) {
    return {__float2bfloat16_rn(value.x), __float2bfloat16_rn(value.y)};
}
