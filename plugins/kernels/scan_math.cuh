//! The transcendental functions of the scan, in fp32.
//!
//! The special-function unit is what bounds the scan, so each function here costs as few of its
//! instructions as it can: exp2 one, softplus one (the logarithm is a polynomial), silu two.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>

namespace vim_plugins {

inline constexpr float kLog2E = 1.44269504088896340736F;
inline constexpr float kLn2 = 0.69314718055994530942F;

//! 2^x; subnormal results are 0.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef VIM_PLUGINS_HOST_SHIM
    const float y = exp2f(x);
    return y < FLT_MIN ? 0.0F * y : y;
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

__device__ __forceinline__ float reciprocal_fast(float x) {
#ifdef VIM_PLUGINS_HOST_SHIM
    return 1.0F / x;
#else
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

//! Keeps the compiler from computing `value` again inside a loop it enters as an invariant.
__device__ __forceinline__ void keep(float& value) {
#ifndef VIM_PLUGINS_HOST_SHIM
    asm volatile("" : "+f"(value));
#else
    (void)value;
#endif
}

//! softplus(x) / ln 2 = log2(1 + 2^t) for t = x / ln 2, as max(t, 0) + log2(1 + 2^-|t|): no
//! cancellation and no overflow at either end, and exactly t once 2^-t is below half an ulp.
//!
//! log2(1 + e) on [0, 1] is e times a degree-8 minimax polynomial fitted for this project (relative
//! error 3e-8 before rounding). A NaN reaches the result through the exponential, because
//! fmaxf(NaN, 0) is 0.
__device__ __forceinline__ float softplus_log2(float t) {
    const float e = exp2_fast(-fabsf(t));
    float p = 0.00754917785525322F;
    p = fmaf(p, e, -0.042567044496536255F);
    p = fmaf(p, e, 0.11285616457462311F);
    p = fmaf(p, e, -0.19711895287036896F);
    p = fmaf(p, e, 0.27564141154289246F);
    p = fmaf(p, e, -0.35840848088264465F);
    p = fmaf(p, e, 0.48069295287132263F);
    p = fmaf(p, e, -0.7213401794433594F);
    p = fmaf(p, e, 1.4426950216293335F);
    return fmaf(p, e, fmaxf(t, 0.0F));
}

//! softplus(x) = log(1 + exp(x)).
__device__ __forceinline__ float softplus(float x) {
    return kLn2 * softplus_log2(kLog2E * x);
}

//! silu(x) / divisor, where silu(x) = x / (1 + exp(-x)).
__device__ __forceinline__ float silu_over(float x, float divisor) {
    return x * reciprocal_fast(fmaf(divisor, exp2_fast(-kLog2E * x), divisor));
}

__device__ __forceinline__ float silu(float x) {
    return silu_over(x, 1.0F);
}

//! A with -inf made the most negative finite number: padded slots have delta = 0, and 0 * -inf
//! would be NaN where "keep the state" is meant. NaN stays NaN.
__device__ __forceinline__ float finite_decay(float a) {
    return a < -FLT_MAX ? -FLT_MAX : a;
}

//! A in units of log2, so that exp(delta * A) = exp2(delta * rate); finite as above.
__device__ __forceinline__ float decay_rate(float a) {
    return finite_decay(a * kLog2E);
}

}  // namespace vim_plugins
