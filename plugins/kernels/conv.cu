//! Depthwise convolution over tokens in both directions at once, each followed by SiLU.
//!
//! flip(causal(flip(x))) is the anti-causal convolution with the same taps, so one pass over x
//! gives both outputs and nothing is ever flipped. Memory-bound: x is read once, u2 written once.
#include <cstring>
#include <type_traits>

#include "checks.h"
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

//! Four elements as one word: a struct of pairs would be copied pair by pair, in two accesses.
template <typename T>
using ConvWord = std::conditional_t<sizeof(T) == 4, float4, float2>;

template <typename T>
__device__ __forceinline__ ConvWord<T> load_conv_word(const T* at) {
    return *reinterpret_cast<const ConvWord<T>*>(at);
}

template <typename T>
__device__ __forceinline__ ConvVector to_conv_vector(const ConvWord<T>& word) {
    typename Numeric<T>::Pair pair[2];
    static_assert(sizeof(pair) == sizeof(word));
    std::memcpy(pair, &word, sizeof(word));
    const float2 low = Numeric<T>::to_float(pair[0]);
    const float2 high = Numeric<T>::to_float(pair[1]);
    return {{low.x, low.y, high.x, high.y}};
}

__device__ __forceinline__ ConvVector load_conv_floats(const float* at) {
    return to_conv_vector<float>(load_conv_word(at));
}

template <typename T>
__device__ __forceinline__ void store_conv_vector(T* at, const ConvVector& value) {
    typename Numeric<T>::Pair pair[2];
    pair[0] = Numeric<T>::from_float(make_float2(value.v[0], value.v[1]));
    pair[1] = Numeric<T>::from_float(make_float2(value.v[2], value.v[3]));
    ConvWord<T> word;
    std::memcpy(&word, pair, sizeof(word));
    *reinterpret_cast<ConvWord<T>*>(at) = word;
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
    constexpr int kWindow = kConvTokens + 2 * kHalo;
    // A grid's threads can be counted in 32 bits, whose division is a third of that of 64.
    static_assert(kMaxElements / kConvChannels + kConvThreads < std::int64_t{1} << 32);
    const unsigned groups = static_cast<unsigned>(args.channels) / kConvChannels;
    const unsigned tiles = (static_cast<unsigned>(args.length) + kConvTokens - 1) / kConvTokens;
    const unsigned index = blockIdx.x * kConvThreads + threadIdx.x;
    const int channel = static_cast<int>(index % groups) * kConvChannels;
    const int batch = static_cast<int>(index / groups / tiles);
    const int first = static_cast<int>(index / groups % tiles) * kConvTokens;
    // A thread past the last sequence has no token, and meets its warp at the barrier below.
    const int length = batch < args.batch ? args.length : 0;
    const std::int64_t row = std::int64_t{batch} * args.length + first;

    // The pointers pass both ends of a sequence, where nothing is read or written through them: one
    // addition a token, and no branch around a load or a store.
    const T* x = static_cast<const T*>(args.x) + (row - kHalo) * args.x_columns + channel;
    ConvWord<T> words[kWindow];
#pragma unroll
    for (int i = 0; i < kWindow; ++i) {
        const int token = first + i - kHalo;
        words[i] = {};
        if (token >= 0 && token < length) {
            words[i] = load_conv_word(x);
        }
        x += args.x_columns;
    }
    // Else the compiler uses the first words before it asks for the last ones.
    __syncwarp();
    ConvVector window[kWindow];
#pragma unroll
    for (int i = 0; i < kWindow; ++i) {
        window[i] = to_conv_vector<T>(words[i]);
    }
    const float* w = args.w + channel;
    const float* b = args.bias + channel;
#pragma unroll
    for (int direction = 0; direction < 2; ++direction) {
        ConvVector weight[kConvTaps];
#pragma unroll
        for (int k = 0; k < kConvTaps; ++k) {
            weight[k] = load_conv_floats(w);
            w += args.channels;
        }
        const ConvVector bias = load_conv_floats(b);
        b += args.channels;
        const std::int64_t rows = std::int64_t{args.batch} * args.length;
        T* out = static_cast<T*>(args.u2) + (direction * rows + row) * args.channels + channel;
#pragma unroll
        for (int t = 0; t < kConvTokens; ++t) {
            const ConvVector value = direction == 0
                                         ? conv_dot<1>(window + t, weight, bias)
                                         : conv_dot<-1>(window + t + 2 * kHalo, weight, bias);
            if (first + t < length) {
                store_conv_vector(out, value);
            }
            out += args.channels;
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
