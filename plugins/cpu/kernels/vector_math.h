//! The transcendental functions of the scan on vectors, in fp32.
#pragma once

#include "vectors.h"

namespace vim_plugins::cpu {
namespace {

constexpr float kLog2E = 1.44269504088896340736F;

//! 1.5 * 2^23: a float of this size holds integers in its low bits, and adding rounds to nearest.
constexpr float kMagic = 12582912.0F;
constexpr std::int32_t kMagicBits = 0x4B400000;

//! 2^f on [-1/2, 1/2]: degree 5, 1 at 0, relative error 9e-8 (minimax, fitted for this project).
VIM_CPU_INLINE Floats exp2_fraction(Floats f) {
    Floats p = fma(splat(1.3264727253e-03F), f, splat(9.6715127858e-03F));
    p = fma(p, f, splat(5.5507337445e-02F));
    p = fma(p, f, splat(2.4022242083e-01F));
    p = fma(p, f, splat(6.9314697760e-01F));
    return fma(p, f, splat(1.0F));
}

//! 2^x for x in [-126, 128], infinite at 128; anything when x is NaN.
VIM_CPU_INLINE Floats exp2_bounded(Floats x) {
    const Floats t = x + splat(kMagic);
    const Floats f = x - (t - splat(kMagic));
    return as<Floats>(as<Words>(exp2_fraction(f)) + (as<Words>(t) << 23));
}

//! 2^x for any x: infinite, zero and subnormal where it should be; NaN stays.
VIM_CPU_INLINE Floats exp2_any(Floats x) {
    const Floats bounded = at_most(at_least(x, -252.0F), 254.0F);
    const Floats t = bounded + splat(kMagic);
    const Floats f = bounded - (t - splat(kMagic));
    // In two factors, each with an exponent that a float has: 2^-126 to 2^127.
    const Ints n = as<Ints>(t) - kMagicBits;
    const Ints half = n >> 1;
    const Floats low = as<Floats>((half + 127) << 23);
    const Floats high = as<Floats>((n - half + 127) << 23);
    return exp2_fraction(f) * low * high;
}

//! x / (1 + exp(-x)).
VIM_CPU_INLINE Floats silu(Floats x) {
    const Floats e = at_most(at_least(x * splat(-kLog2E), -126.0F), 128.0F);
    return x / (splat(1.0F) + exp2_bounded(e));
}

//! log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)): no cancellation, no overflow, and exactly x once
//! exp(-x) is below half an ulp of it. 0 below -87, where the result would be subnormal.
//!
//! log1p(t) on [0, 1] is t times a degree-8 minimax polynomial (relative error 3e-8, fitted for
//! this project).
VIM_CPU_INLINE Floats softplus(Floats x) {
    const Floats e = magnitude(x) * splat(-kLog2E);
    const Floats t = e < splat(-126.0F) ? Floats{} : exp2_bounded(e);
    Floats q = fma(splat(5.2326794864e-03F), t, splat(-2.9505178873e-02F));
    q = fma(q, t, splat(7.8225852213e-02F));
    q = fma(q, t, splat(-1.3663237031e-01F));
    q = fma(q, t, splat(1.9106002392e-01F));
    q = fma(q, t, splat(-2.4842980986e-01F));
    q = fma(q, t, splat(3.3319096626e-01F));
    q = fma(q, t, splat(-4.9999493129e-01F));
    q = fma(q, t, splat(9.9999996988e-01F));
    return fma(t, q, at_least(x, 0.0F));
}

}  // namespace
}  // namespace vim_plugins::cpu
