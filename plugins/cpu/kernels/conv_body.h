//! Depthwise convolution over tokens in both directions at once, each followed by SiLU.
//!
//! flip(causal(flip(x))) is the anti-causal convolution with the same taps, so nothing is flipped.
#pragma once

#include "tasks.h"
#include "vector_math.h"

namespace vim_plugins::cpu {
namespace {

template <typename T>
void conv_typed(const ConvArgs& a, std::int64_t image, std::int64_t begin, std::int64_t end) {
    const T* const x = static_cast<const T*>(a.x) + image * a.length * a.x_columns;
    const std::int64_t last = a.width - 1;
    for (std::int64_t l = begin; l < end; ++l) {
        for (std::int64_t direction = 0; direction < 2; ++direction) {
            T* const out =
                static_cast<T*>(a.u2) + ((direction * a.batch + image) * a.length + l) * a.channels;
            const float* const w = a.w + direction * a.width * a.channels;
            for (std::int64_t c = 0; c < a.channels; c += kWidth) {
                const std::int64_t left = a.channels - c;
                Floats sum = load_some(a.bias + direction * a.channels + c, left);
                for (std::int64_t k = 0; k < a.width; ++k) {
                    const std::int64_t source = direction == 0 ? l - last + k : l + last - k;
                    if (source >= 0 && source < a.length) {
                        sum = fma(load_some(w + k * a.channels + c, left),
                                  load_some(x + source * a.x_columns + c, left), sum);
                    }
                }
                store_some(out + c, silu(sum), left);
            }
        }
    }
}

void conv(const ConvArgs& args, std::int64_t image, std::int64_t begin, std::int64_t end) noexcept {
    switch (args.type) {
        case DataType::kFloat32:
            return conv_typed<float>(args, image, begin, end);
        case DataType::kFloat16:
            return conv_typed<Half>(args, image, begin, end);
        default:
            return conv_typed<BFloat>(args, image, begin, end);
    }
}

}  // namespace
}  // namespace vim_plugins::cpu
