//! Depthwise convolution over tokens in both directions at once, each followed by SiLU.
//!
//! flip(causal(flip(x))) is the anti-causal convolution with the same taps, so one pass over x
//! gives both outputs and nothing is ever flipped. Memory-bound: x is read once, u2 written once.
#include "kernel_args.h"
#include "launch.cuh"
#include "numeric_types.cuh"
#include "scan_math.cuh"

namespace vim_plugins {

inline constexpr int kConvThreads = 128;
//! The vector kernel: 4 taps; a thread owns 4 channels of 8 tokens.
inline constexpr int kConvTaps = 4;
inline constexpr int kConvChannels = 4;
inline constexpr int kConvTokens = 8;

struct ConvVector {
    float v[kConvChannels];
};

template <typename T>
__device__ __forceinline__ ConvVector load_conv_vector(const T* at) {
    struct alignas(kConvChannels * sizeof(T)) Raw {
        typename Numeric<T>::Pair pair[2];
    };
    const Raw raw = *reinterpret_cast<const Raw*>(at);
    const float2 low = Numeric<T>::to_float(raw.pair[0]);
    const float2 high = Numeric<T>::to_float(raw.pair[1]);
    return {{low.x, low.y, high.x, high.y}};
}

template <typename T>
__device__ __forceinline__ void store_conv_vector(T* at, const ConvVector& value) {
    struct alignas(kConvChannels * sizeof(T)) Raw {
        typename Numeric<T>::Pair pair[2];
    };
    Raw raw;
    raw.pair[0] = Numeric<T>::from_float(make_float2(value.v[0], value.v[1]));
    raw.pair[1] = Numeric<T>::from_float(make_float2(value.v[2], value.v[3]));
    *reinterpret_cast<Raw*>(at) = raw;
}

//! One output vector; `x` holds the taps in the order of the weights.
template <int kStep>
__device__ __forceinline__ ConvVector conv_dot(const ConvVector* x, const ConvVector* weight,
                                               const ConvVector& bias) {
    ConvVector out;
#pragma unroll
    for (int c = 0; c < kConvChannels; ++c) {
        float sum = bias.v[c];
#pragma unroll
        for (int k = 0; k < kConvTaps; ++k) {
            sum = fmaf(weight[k].v[c], x[kStep * k].v[c], sum);
        }
        out.v[c] = silu(sum);
    }
    return out;
}

template <typename T>
__global__ void __launch_bounds__(kConvThreads) conv_vector_kernel(const ConvArgs args) {
    constexpr int kHalo = kConvTaps - 1;
    const int groups = args.channels / kConvChannels;
    const int token_tiles = (args.length + kConvTokens - 1) / kConvTokens;
    const std::int64_t index = std::int64_t{blockIdx.x} * kConvThreads + threadIdx.x;
    const int channel = static_cast<int>(index % groups) * kConvChannels;
    const std::int64_t tile = index / groups;
    const int batch = static_cast<int>(tile / token_tiles);
    if (batch >= args.batch) {
        return;
    }
    const int first = static_cast<int>(tile % token_tiles) * kConvTokens;

    const T* x = static_cast<const T*>(args.x) +
                 std::int64_t{batch} * args.length * args.x_columns + channel;
    ConvVector window[kConvTokens + 2 * kHalo];
#pragma unroll
    for (int i = 0; i < kConvTokens + 2 * kHalo; ++i) {
        const int token = first + i - kHalo;
        if (token >= 0 && token < args.length) {
            window[i] = load_conv_vector(x + std::int64_t{token} * args.x_columns);
        } else {
            window[i] = {{0.0F, 0.0F, 0.0F, 0.0F}};
        }
    }
#pragma unroll
    for (int direction = 0; direction < 2; ++direction) {
        ConvVector weight[kConvTaps];
#pragma unroll
        for (int k = 0; k < kConvTaps; ++k) {
            weight[k] =
                load_conv_vector(args.w + (direction * kConvTaps + k) * args.channels + channel);
        }
        const ConvVector bias = load_conv_vector(args.bias + direction * args.channels + channel);
        T* out = static_cast<T*>(args.u2) +
                 (std::int64_t{direction} * args.batch + batch) * args.length * args.channels +
                 channel;
#pragma unroll
        for (int t = 0; t < kConvTokens; ++t) {
            const int token = first + t;
            if (token < args.length) {
                const ConvVector value = direction == 0
                                             ? conv_dot<1>(window + t, weight, bias)
                                             : conv_dot<-1>(window + t + 2 * kHalo, weight, bias);
                store_conv_vector(out + std::int64_t{token} * args.channels, value);
            }
        }
    }
}

//! Any width, any number of channels, any offset: one thread an output position.
template <typename T>
__global__ void __launch_bounds__(kConvThreads) conv_generic_kernel(const ConvArgs args) {
    const std::int64_t index = std::int64_t{blockIdx.x} * kConvThreads + threadIdx.x;
    const std::int64_t row = index / args.channels;
    if (row >= std::int64_t{args.batch} * args.length) {
        return;
    }
    const int channel = static_cast<int>(index % args.channels);
    const int token = static_cast<int>(row % args.length);
    const T* x = static_cast<const T*>(args.x) + row * args.x_columns + channel;
    for (int direction = 0; direction < 2; ++direction) {
        float sum = args.bias[std::int64_t{direction} * args.channels + channel];
        for (int k = 0; k < args.width; ++k) {
            const int distance = args.width - 1 - k;
            const int source = direction == 0 ? -distance : distance;
            if (token + source >= 0 && token + source < args.length) {
                const std::int64_t tap =
                    (std::int64_t{direction} * args.width + k) * args.channels + channel;
                sum = fmaf(args.w[tap],
                           Numeric<T>::to_float(x[std::int64_t{source} * args.x_columns]), sum);
            }
        }
        const std::int64_t rows = std::int64_t{args.batch} * args.length;
        static_cast<T*>(args.u2)[(direction * rows + row) * args.channels + channel] =
            Numeric<T>::from_float(silu(sum));
    }
}

template <typename T>
cudaError_t launch_conv(const ConvArgs& args, Tactic tactic, cudaStream_t stream) {
    std::int64_t threads = std::int64_t{args.batch} * args.length * args.channels;
    void (*kernel)(ConvArgs) = conv_generic_kernel<T>;
    if (tactic == Tactic::kVector) {
        const std::int64_t tiles = (args.length + kConvTokens - 1) / kConvTokens;
        threads = std::int64_t{args.batch} * tiles * (args.channels / kConvChannels);
        kernel = conv_vector_kernel<T>;
    }
    const dim3 grid(static_cast<unsigned>((threads + kConvThreads - 1) / kConvThreads));
    return launch_kernel<ConvArgs>(kernel, grid, dim3(kConvThreads), 0, args, stream);
}

cudaError_t launch_conv_fp32(const ConvArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_conv<float>(args, tactic, stream);
}

cudaError_t launch_conv_fp16(const ConvArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_conv<__half>(args, tactic, stream);
}

cudaError_t launch_conv_bf16(const ConvArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_conv<__nv_bfloat16>(args, tactic, stream);
}

}  // namespace vim_plugins
