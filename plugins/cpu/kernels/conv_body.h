//! Depthwise convolution over tokens in both directions at once, each followed by SiLU.
//!
//! flip(causal(flip(x))) is the anti-causal convolution with the same taps, so one pass over x
//! gives both outputs and nothing is flipped.
#pragma once

#include "tasks.h"
#include "vector_math.h"

namespace vim_plugins::cpu {
namespace {

//! The taps of the short way, which is Vim's width.
constexpr std::int64_t kTaps = 4;

//! A place in the tensors of one image: vectors of channels from `channel` on.
template <typename T>
struct ConvWalk {
    const ConvArgs& args;
    const T* x;  //!< token 0 of the image
    T* out[2];   //!< token 0 of the image, of each direction

    ConvWalk(const ConvArgs& a, std::int64_t image)
        : args(a), x(static_cast<const T*>(a.x) + image * a.length * a.x_columns) {
        for (std::int64_t direction = 0; direction < 2; ++direction) {
            const std::int64_t row = (direction * a.batch + image) * a.length;
            out[direction] = static_cast<T*>(a.u2) + row * a.channels;
        }
    }

    //! x of a token, and 0 outside of the image.
    Floats token(std::int64_t l, std::int64_t channel, std::int64_t left) const {
        const bool inside = l >= 0 && l < args.length;
        return inside ? load_some(x + l * args.x_columns + channel, left) : Floats{};
    }

    void put(std::int64_t direction, std::int64_t l, std::int64_t channel, std::int64_t left,
             Floats sum) const {
        store_some(out[direction] + l * args.channels + channel, silu(sum), left);
    }

    //! Fetches what a token of the next tile reads and writes; past the end it does no harm.
    void fetch(std::int64_t l, std::int64_t channel) const {
        const auto line = [](const void* base, std::int64_t element) {
            const auto distance = element * static_cast<std::int64_t>(sizeof(T));
            return reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(base) +
                                                 static_cast<std::uintptr_t>(distance));
        };
        __builtin_prefetch(line(x, l * args.x_columns + channel));
        __builtin_prefetch(line(out[0], l * args.channels + channel), 1);
        __builtin_prefetch(line(out[1], l * args.channels + channel), 1);
    }
};

//! One vector of channels over tokens [begin, end) with four taps: each x is read once, and goes
//! through the window of both directions.
template <typename T>
VIM_CPU_INLINE void conv_window(const ConvWalk<T>& walk, std::int64_t channel, std::int64_t begin,
                                std::int64_t end) {
    const ConvArgs& a = walk.args;
    const std::int64_t left = a.channels - channel;
    Floats w[2][kTaps];
    Floats bias[2];
    for (std::int64_t direction = 0; direction < 2; ++direction) {
        for (std::int64_t k = 0; k < kTaps; ++k) {
            w[direction][k] = load_some(a.w + (direction * kTaps + k) * a.channels + channel, left);
        }
        bias[direction] = load_some(a.bias + direction * a.channels + channel, left);
    }
    Floats x[2 * kTaps - 1];  // tokens l - 3 to l + 3
    for (std::int64_t i = 0; i < 2 * kTaps - 2; ++i) {
        x[i + 1] = walk.token(begin - kTaps + 1 + i, channel, left);
    }
    for (std::int64_t l = begin; l < end; ++l) {
        walk.fetch(l + kTile, channel);
        for (std::int64_t i = 0; i < 2 * kTaps - 2; ++i) {
            x[i] = x[i + 1];
        }
        x[2 * kTaps - 2] = walk.token(l + kTaps - 1, channel, left);
        Floats sum[2] = {bias[0], bias[1]};
        for (std::int64_t k = 0; k < kTaps; ++k) {
            sum[0] = fma(w[0][k], x[k], sum[0]);
            sum[1] = fma(w[1][k], x[2 * kTaps - 2 - k], sum[1]);
        }
        walk.put(0, l, channel, left, sum[0]);
        walk.put(1, l, channel, left, sum[1]);
    }
}

//! One vector of channels and token, with any number of taps.
template <typename T>
VIM_CPU_INLINE void conv_token(const ConvWalk<T>& walk, std::int64_t channel, std::int64_t l) {
    const ConvArgs& a = walk.args;
    const std::int64_t left = a.channels - channel;
    for (std::int64_t direction = 0; direction < 2; ++direction) {
        const float* const w = a.w + direction * a.width * a.channels + channel;
        Floats sum = load_some(a.bias + direction * a.channels + channel, left);
        for (std::int64_t k = 0; k < a.width; ++k) {
            const std::int64_t distance = a.width - 1 - k;
            const Floats x =
                walk.token(direction == 0 ? l - distance : l + distance, channel, left);
            sum = fma(load_some(w + k * a.channels, left), x, sum);
        }
        walk.put(direction, l, channel, left, sum);
    }
}

template <typename T>
void conv_typed(const ConvArgs& args, std::int64_t image, std::int64_t begin, std::int64_t end) {
    const ConvWalk<T> walk(args, image);
    for (std::int64_t first = begin; first < end; first += kTile) {
        const std::int64_t stop = first + kTile < end ? first + kTile : end;
        for (std::int64_t channel = 0; channel < args.channels; channel += kWidth) {
            if (args.width == kTaps) {
                conv_window(walk, channel, first, stop);
                continue;
            }
            for (std::int64_t l = first; l < stop; ++l) {
                conv_token(walk, channel, l);
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
