//! Vectors of kWidth channels, in the vector extensions that GCC and Clang share. Included once by
//! each instruction set's file, which defines VIM_CPU_WIDTH; everything has internal linkage, and
//! nothing of the standard library is called, so that no code of one instruction set can be taken
//! for another's by the linker.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define VIM_CPU_INLINE inline __attribute__((always_inline))

namespace vim_plugins::cpu {
namespace {

constexpr int kWidth = VIM_CPU_WIDTH;

typedef float Floats __attribute__((vector_size(4 * VIM_CPU_WIDTH)));
typedef std::int32_t Ints __attribute__((vector_size(4 * VIM_CPU_WIDTH)));
typedef std::uint32_t Words __attribute__((vector_size(4 * VIM_CPU_WIDTH)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * VIM_CPU_WIDTH)));

//! 16-bit floats by their bits.
struct Half {
    std::uint16_t bits;
};
struct BFloat {
    std::uint16_t bits;
};

template <typename To, typename From>
VIM_CPU_INLINE To as(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To out;
    std::memcpy(&out, &value, sizeof out);
    return out;
}

VIM_CPU_INLINE Floats splat(float value) {
    return value - Floats{};  // not +: -0 stays -0
}

//! Contracted to one instruction where there is one (-ffp-contract=fast).
VIM_CPU_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return a * b + c;
}

//! x, which the compiler is not to contract with what follows: where products and sums have units
//! of their own, x = a * b, x + c, x - d costs less than two fused operations that each hold a * b.
VIM_CPU_INLINE Floats rounded_here(Floats x) {
#if defined(__FMA__)
    __asm__("" : "+v"(x));
#endif
    return x;
}

//! The larger, and x when it is NaN.
VIM_CPU_INLINE Floats at_least(Floats x, float bound) {
#if defined(__AVX512F__)
    return as<Floats>(_mm512_maskz_max_ps(0xFFFF, as<__m512>(splat(bound)), as<__m512>(x)));
#elif defined(__AVX2__)
    return as<Floats>(_mm256_max_ps(as<__m256>(splat(bound)), as<__m256>(x)));
#elif defined(__SSE2__)
    return as<Floats>(_mm_max_ps(as<__m128>(splat(bound)), as<__m128>(x)));
#else
    return x < splat(bound) ? splat(bound) : x;
#endif
}

//! The smaller, and x when it is NaN.
VIM_CPU_INLINE Floats at_most(Floats x, float bound) {
#if defined(__AVX512F__)
    return as<Floats>(_mm512_maskz_min_ps(0xFFFF, as<__m512>(splat(bound)), as<__m512>(x)));
#elif defined(__AVX2__)
    return as<Floats>(_mm256_min_ps(as<__m256>(splat(bound)), as<__m256>(x)));
#elif defined(__SSE2__)
    return as<Floats>(_mm_min_ps(as<__m128>(splat(bound)), as<__m128>(x)));
#else
    return x > splat(bound) ? splat(bound) : x;
#endif
}

//! Whether every lane of a comparison holds.
VIM_CPU_INLINE bool all_lanes(Ints holds) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask(as<__m512i>(holds)) == 0xFFFF;
#elif defined(__AVX2__)
    return _mm256_movemask_ps(as<__m256>(holds)) == 0xFF;
#elif defined(__SSE2__)
    return _mm_movemask_ps(as<__m128>(holds)) == 0xF;
#else
    bool all = true;
    for (int i = 0; i < kWidth; ++i) {
        all = all && holds[i] != 0;
    }
    return all;
#endif
}

VIM_CPU_INLINE Floats magnitude(Floats x) {
    return as<Floats>(as<Ints>(x) & 0x7FFFFFFF);
}

VIM_CPU_INLINE Floats load(const float* at) {
    Floats out;
    std::memcpy(&out, at, sizeof out);
    return out;
}

VIM_CPU_INLINE void store(float* at, Floats value) {
    std::memcpy(at, &value, sizeof value);
}

//! bfloat16 is the upper half of a float.
VIM_CPU_INLINE Floats load(const BFloat* at) {
    Halves raw;
    std::memcpy(&raw, at, sizeof raw);
    return as<Floats>(__builtin_convertvector(raw, Words) << 16);
}

VIM_CPU_INLINE void store(BFloat* at, Floats value) {
    const Words bits = as<Words>(value);
    const Words nearest = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;  // ties to even
    const Words kept = value == value ? nearest : (bits >> 16) | 0x40U;
    const Halves out = __builtin_convertvector(kept, Halves);
    std::memcpy(at, &out, sizeof out);
}

#if VIM_CPU_WIDTH == 16 && defined(__AVX512F__)
// The forms with a (full) mask: in the others, GCC 12 warns of its own header.
VIM_CPU_INLINE Floats load(const Half* at) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return as<Floats>(_mm512_maskz_cvtph_ps(0xFFFF, raw));
}
VIM_CPU_INLINE void store(Half* at, Floats value) {
    const __m256i out = _mm512_maskz_cvtps_ph(0xFFFF, as<__m512>(value), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), out);
}
#elif VIM_CPU_WIDTH == 8 && defined(__F16C__)
VIM_CPU_INLINE Floats load(const Half* at) {
    return as<Floats>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}
VIM_CPU_INLINE void store(Half* at, Floats value) {
    const __m128i out = _mm256_cvtps_ph(as<__m256>(value), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), out);
}
#else
//! A half's bits, moved to where a float has them, are its value times 2^-112; subnormals too.
VIM_CPU_INLINE Floats load(const Half* at) {
    Halves raw;
    std::memcpy(&raw, at, sizeof raw);
    const Words bits = __builtin_convertvector(raw, Words);
    const Words sign = (bits & 0x8000U) << 16;
    const Words rest = bits & 0x7FFFU;
    const Words value = as<Words>(as<Floats>(rest << 13) * splat(0x1p112F));
    const Words special = (rest << 13) | 0x7F800000U;
    return as<Floats>((rest >= 0x7C00U ? special : value) | sign);
}
VIM_CPU_INLINE void store(Half* at, Floats value) {
    const Words bits = as<Words>(value);
    const Words sign = (bits >> 16) & 0x8000U;
    const Words rest = bits & 0x7FFFFFFFU;
    const Words normal = (rest - 0x38000000U + 0xFFFU + ((rest >> 13) & 1U)) >> 13;
    // Below 2^-14 the spacing is fixed: adding 0.5 aligns the significand there and rounds it.
    const Words small = as<Words>(as<Floats>(rest) + splat(0.5F)) - 0x3F000000U;
    Words out = rest < 0x38800000U ? small : normal;
    out = rest >= 0x477FF000U ? Words{} + 0x7C00U : out;  // 65520 is the first to become infinite
    out = rest > 0x7F800000U ? Words{} + 0x7E00U : out;
    const Halves narrow = __builtin_convertvector(out | sign, Halves);
    std::memcpy(at, &narrow, sizeof narrow);
}
#endif

//! The first `count` channels; the others are 0.
template <typename T>
VIM_CPU_INLINE Floats load_some(const T* at, std::int64_t count) {
    if (count >= kWidth) {
        return load(at);
    }
    T some[kWidth];
    std::memset(some, 0, sizeof some);
    std::memcpy(some, at, static_cast<std::size_t>(count) * sizeof(T));
    return load(some);
}

template <typename T>
VIM_CPU_INLINE void store_some(T* at, Floats value, std::int64_t count) {
    if (count >= kWidth) {
        store(at, value);
        return;
    }
    T some[kWidth];
    store(some, value);
    std::memcpy(at, some, static_cast<std::size_t>(count) * sizeof(T));
}

//! `count` elements as fp32; `out` has room for whole vectors.
template <typename T>
VIM_CPU_INLINE void widen(const T* at, std::int64_t count, float* out) {
    for (std::int64_t i = 0; i < count; i += kWidth) {
        store(out + i, load_some(at + i, count - i));
    }
}

}  // namespace
}  // namespace vim_plugins::cpu
