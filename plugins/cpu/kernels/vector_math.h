//! The transcendental functions of the scan on vectors, in fp32.
//!
//! Polynomials and tables were fitted and computed for this project (minimax; value 1 at 0). What
//! bounds the scan are the multiplying units, two vectors a cycle on the CPUs these kernels were
//! measured on, and 2^x is most of its work: so each form of it takes as few multiplications as it
//! can, and leaves sums to the adding units.
#pragma once

#include "vectors.h"

namespace vim_plugins::cpu {
namespace {

constexpr float kLog2E = 1.44269504088896340736F;

//! 1.5 * 2^23: adding it leaves a float's nearest integer in the low bits of the sum.
constexpr float kMagic = 12582912.0F;
constexpr std::int32_t kMagicBits = 0x4B400000;

//! 2^f on [-1/2, 1/2]: degree 5, relative error 9.2e-8.
VIM_CPU_INLINE Floats exp2_fraction(Floats f) {
    Floats p = fma(splat(1.3264727253e-03F), f, splat(9.6715127858e-03F));
    p = fma(p, f, splat(5.5507337445e-02F));
    p = fma(p, f, splat(2.4022242083e-01F));
    p = fma(p, f, splat(6.9314697760e-01F));
    return fma(p, f, splat(1.0F));
}

//! 2^x for x in [-126, 128) as (1 + excess) * scale, where |excess| is small, so that neither the
//! sum nor its rounding has to be made; anything when x is NaN.
struct Exp2 {
    Floats excess;
    Floats scale;
};

#if defined(__AVX512F__)
#define VIM_CPU_TABLE 16
//! Bits of 2^(j/16) less j << 19, so that adding the low bits of x + kMagic / 16, shifted by 19,
//! puts the integer part of x into the exponent and takes j out again.
alignas(64) constexpr std::uint32_t kPowers[VIM_CPU_TABLE] = {
    0x3F800000, 0x3F7DAAC3, 0x3F7B95C2, 0x3F79C3D3, 0x3F7837F0, 0x3F76F532, 0x3F75FED7, 0x3F75583F,
    0x3F7504F3, 0x3F7508A4, 0x3F75672A, 0x3F76248C, 0x3F7744FD, 0x3F78CCDF, 0x3F7AC0C7, 0x3F7D257D,
};
#elif defined(__AVX2__)
#define VIM_CPU_TABLE 8
//! Bits of 2^(j/8) less j << 20, so that adding the low bits of x + kMagic / 8, shifted by 20, puts
//! the integer part of x into the exponent and takes j out again.
alignas(32) constexpr std::uint32_t kPowers[VIM_CPU_TABLE] = {
    0x3F800000, 0x3F7B95C2, 0x3F7837F0, 0x3F75FED7, 0x3F7504F3, 0x3F75672A, 0x3F7744FD, 0x3F7AC0C7,
};
#endif

#if defined(VIM_CPU_TABLE)

//! x = n + j / table + f: the power of n + j / table from a table in registers, and 2^f - 1, degree
//! 3 on [-1/32, 1/32] (a Taylor series) or [-1/16, 1/16], where 2^f has relative error 9e-9 or
//! 2.5e-8. Degree 2 and a larger table would do for one power, at 5e-8. But a state that fades slowly
//! adds up the errors of all tokens that it remembers, and those have the same sign.
VIM_CPU_INLINE Exp2 exp2_factors(Floats x) {
    x = rounded_here(x);
    const Floats t = x + splat(kMagic / VIM_CPU_TABLE);
    const Floats f = x - (t - splat(kMagic / VIM_CPU_TABLE));
#if defined(__AVX512F__)
    const __m512i powers = _mm512_load_si512(kPowers);
    const auto power = as<Words>(_mm512_maskz_permutexvar_epi32(0xFFFF, as<__m512i>(t), powers));
    const Floats slope = fma(fma(splat(5.5504108665e-02F), f, splat(2.4022650696e-01F)), f,
                             splat(6.9314718056e-01F));
    return {slope * f, as<Floats>(power + (as<Words>(t) << 19))};
#else
    const __m256i powers = _mm256_load_si256(reinterpret_cast<const __m256i*>(kPowers));
    const auto power = as<Words>(_mm256_permutevar8x32_epi32(powers, as<__m256i>(t)));
    const Floats slope = fma(fma(splat(5.5496221799e-02F), f, splat(2.4025762989e-01F)), f,
                             splat(6.9314721426e-01F));
    return {slope * f, as<Floats>(power + (as<Words>(t) << 20))};
#endif
}

//! 2^(factors) * h + x * b.
VIM_CPU_INLINE Floats decayed(Exp2 factors, Floats h, Floats x, Floats b) {
    const Floats scaled = factors.scale * h;
    return fma(scaled, factors.excess, fma(x, b, scaled));
}

//! 2^x for x in [-126, 128], infinite at 128; anything when x is NaN.
VIM_CPU_INLINE Floats exp2_bounded(Floats x) {
    const Exp2 factors = exp2_factors(x);
    return (splat(1.0F) + factors.excess) * factors.scale;
}

//! `decayed` of some states side by side.
constexpr int kAbreast = 1;

VIM_CPU_INLINE void decay_abreast(const Floats* e, const Floats* h, Floats x, const float* b,
                                  Floats* out) {
    out[0] = decayed(exp2_factors(e[0]), h[0], x, splat(b[0]));
}

#else

//! 2^x for x in [-126, 128], infinite at 128; anything when x is NaN.
VIM_CPU_INLINE Floats exp2_bounded(Floats x) {
    const Floats t = x + splat(kMagic);
    const Floats f = x - (t - splat(kMagic));
    return as<Floats>(as<Words>(exp2_fraction(f)) + (as<Words>(t) << 23));
}

//! 2^e * h + x * b of some states side by side: without fused operations a power is a chain of some
//! fifty cycles, and a CPU does not look far enough ahead to run enough of them at once by itself.
constexpr int kAbreast = 4;

VIM_CPU_INLINE void decay_abreast(const Floats* e, const Floats* h, Floats x, const float* b,
                                  Floats* out) {
    Floats t[kAbreast], f[kAbreast], p[kAbreast], q[kAbreast], r[kAbreast];
#define VIM_CPU_EACH _Pragma("GCC unroll 4") for (int k = 0; k < kAbreast; ++k)
    VIM_CPU_EACH t[k] = e[k] + splat(kMagic);
    VIM_CPU_EACH f[k] = t[k] - splat(kMagic);
    VIM_CPU_EACH f[k] = e[k] - f[k];
    VIM_CPU_EACH p[k] = fma(splat(1.3264727253e-03F), f[k], splat(9.6715127858e-03F));
    VIM_CPU_EACH q[k] = fma(splat(5.5507337445e-02F), f[k], splat(2.4022242083e-01F));
    VIM_CPU_EACH r[k] = fma(splat(6.9314697760e-01F), f[k], splat(1.0F));
    VIM_CPU_EACH f[k] = f[k] * f[k];
    VIM_CPU_EACH p[k] = fma(p[k], f[k], q[k]);
    VIM_CPU_EACH p[k] = fma(p[k], f[k], r[k]);
    VIM_CPU_EACH p[k] = as<Floats>(as<Words>(p[k]) + (as<Words>(t[k]) << 23));
    VIM_CPU_EACH out[k] = fma(p[k], h[k], x * splat(b[k]));
#undef VIM_CPU_EACH
}

#endif

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
//! log1p(t) on [0, 1] is t times a degree-8 polynomial, relative error 3e-8.
template <int kCount>
VIM_CPU_INLINE void softplus_beside(Floats* x) {
    Floats t[kCount], q[kCount];
#define VIM_CPU_EACH _Pragma("GCC unroll 8") for (int k = 0; k < kCount; ++k)
    VIM_CPU_EACH t[k] = magnitude(x[k]) * splat(-kLog2E);
    VIM_CPU_EACH t[k] = t[k] < splat(-126.0F) ? Floats{} : exp2_bounded(t[k]);
    VIM_CPU_EACH q[k] = fma(splat(5.2326794864e-03F), t[k], splat(-2.9505178873e-02F));
    VIM_CPU_EACH q[k] = fma(q[k], t[k], splat(7.8225852213e-02F));
    VIM_CPU_EACH q[k] = fma(q[k], t[k], splat(-1.3663237031e-01F));
    VIM_CPU_EACH q[k] = fma(q[k], t[k], splat(1.9106002392e-01F));
    VIM_CPU_EACH q[k] = fma(q[k], t[k], splat(-2.4842980986e-01F));
    VIM_CPU_EACH q[k] = fma(q[k], t[k], splat(3.3319096626e-01F));
    VIM_CPU_EACH q[k] = fma(q[k], t[k], splat(-4.9999493129e-01F));
    VIM_CPU_EACH q[k] = fma(q[k], t[k], splat(9.9999996988e-01F));
    VIM_CPU_EACH x[k] = fma(t[k], q[k], at_least(x[k], 0.0F));
#undef VIM_CPU_EACH
}

}  // namespace
}  // namespace vim_plugins::cpu
