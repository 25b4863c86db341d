//! \file half.cpp
#include "half.h"

#include <cstdint>
#include <cstring>

namespace vim_deploy {
namespace {

constexpr std::uint32_t kInfinity = 0x7F800000U;
// From here on a float32 rounds to infinity: halfway between 65504 and 65536.
constexpr std::uint32_t kTooLarge = 0x477FF000U;
// The least float32 that is a normal float16, 2^-14.
constexpr std::uint32_t kNormal = 0x38800000U;

// Divides by 2^shift, to the nearest, to the even one of two.
std::uint32_t shifted(std::uint32_t value, unsigned shift) noexcept {
    std::uint32_t const half = 1U << (shift - 1);
    std::uint32_t const rest = value & ((1U << shift) - 1);
    std::uint32_t const whole = value >> shift;
    return whole + (rest > half || (rest == half && (whole & 1U) != 0) ? 1 : 0);
}

std::uint16_t to_half(std::uint32_t bits) noexcept {
    std::uint32_t const sign = bits >> 16U & 0x8000U;
    std::uint32_t const value = bits & 0x7FFFFFFFU;
    std::uint32_t half = 0;
    if (value > kInfinity) {
        half = 0x7E00U;  // not a number
    } else if (value >= kTooLarge) {
        half = 0x7C00U;
    } else if (value >= kNormal) {
        // The exponent's bias is 15 instead of 127; a carry goes into the exponent, as it should.
        half = shifted(value - (112U << 23U), 13);
    } else {
        // In units of 2^-24: the significand with its leading one, moved by the exponent.
        std::uint32_t const exponent = value >> 23U;
        std::uint32_t const significand = (value & 0x7FFFFFU) | 0x800000U;
        half = exponent < 102 ? 0 : shifted(significand, 126 - exponent);
    }
    return static_cast<std::uint16_t>(sign | half);
}

std::uint32_t to_float(std::uint16_t half) noexcept {
    std::uint32_t const sign = (half & 0x8000U) << 16U;
    std::uint32_t exponent = half >> 10U & 0x1FU;
    std::uint32_t significand = half & 0x3FFU;
    if (exponent == 0x1F) {
        return sign | kInfinity | significand << 13U;
    }
    if (exponent == 0) {
        if (significand == 0) {
            return sign;
        }
        // A subnormal one is normal as float32.
        exponent = 1;
        while ((significand & 0x400U) == 0) {
            significand <<= 1U;
            --exponent;
        }
        significand &= 0x3FFU;
    }
    return sign | (exponent + 112U) << 23U | significand << 13U;
}

}  // namespace

std::vector<std::byte> halves_of(void const* values, std::size_t count) {
    std::vector<std::byte> bytes(count * sizeof(std::uint16_t));
    for (std::size_t i = 0; i < count; ++i) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, static_cast<std::byte const*>(values) + i * sizeof bits, sizeof bits);
        std::uint16_t const half = to_half(bits);
        std::memcpy(bytes.data() + i * sizeof half, &half, sizeof half);
    }
    return bytes;
}

Result<std::vector<float>> as_floats(Tensor const& tensor) {
    if (tensor.type != DataType::kFloat16) {
        return tensor.values<float>();
    }
    std::vector<float> values(tensor.bytes.size() / sizeof(std::uint16_t));
    for (std::size_t i = 0; i < values.size(); ++i) {
        std::uint16_t half = 0;
        std::memcpy(&half, tensor.bytes.data() + i * sizeof half, sizeof half);
        std::uint32_t const bits = to_float(half);
        std::memcpy(&values[i], &bits, sizeof bits);
    }
    return values;
}

}  // namespace vim_deploy
