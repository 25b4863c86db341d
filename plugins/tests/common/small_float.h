//! 16-bit floats as bit patterns, with round-to-nearest-even conversion.
#pragma once

#include <cstdint>
#include <cstring>

namespace vim_shim {

inline std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

//! bfloat16 is the upper half of a float.
inline std::uint16_t bfloat_from(float value) {
    const std::uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
        return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
    }
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

inline float bfloat_to(std::uint16_t bits) {
    return float_of(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t half_from(float value) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) {
        return static_cast<std::uint16_t>(sign | 0x7E00U);
    }
    if (magnitude >= 0x477FF000U) {  // 65520: the first value that rounds to infinity
        return static_cast<std::uint16_t>(sign | 0x7C00U);
    }
    // Below 2^-14 the spacing is fixed: adding 0.5 aligns the significand there and rounds it.
    if (magnitude < 0x38800000U) {
        const float aligned = float_of(magnitude) + 0.5F;
        return static_cast<std::uint16_t>(sign | (bits_of(aligned) - bits_of(0.5F)));
    }
    const std::uint32_t rounded = magnitude + 0xFFFU + ((magnitude >> 13) & 1U);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

inline float half_to(std::uint16_t bits) {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    const std::uint32_t magnitude = bits & 0x7FFFU;
    if (magnitude >= 0x7C00U) {
        return float_of(sign | 0x7F800000U | (magnitude & 0x3FFU) << 13);
    }
    if (magnitude < 0x400U) {
        const float tiny = static_cast<float>(magnitude) * float_of(0x33800000U);  // 2^-24
        return sign != 0U ? -tiny : tiny;
    }
    return float_of(sign | ((magnitude << 13) + 0x38000000U));
}

}  // namespace vim_shim
