//! A block of the chunked scan: its shape, its shared memory, and how it reads and writes
//! activations. See scan_chunked.cuh.
#pragma once

#include "bc_columns.cuh"
#include "kernel_args.h"
#include "launch.cuh"
#include "numeric_types.cuh"
#include "scan_math.cuh"

namespace vim_plugins {

template <int kStates_, int kLaneChannels_, int kPerLane_, int kTokens_, int kWarps_, int kGroup_,
          int kBlocksPerSm_>
struct ChunkedShape {
    static constexpr int kStates = kStates_;
    static constexpr int kLaneChannels = kLaneChannels_;  //!< lanes side by side over channels
    static constexpr int kPerLane = kPerLane_;            //!< adjacent channels of one lane
    static constexpr int kTokens = kTokens_;              //!< tokens of a chunk
    static constexpr int kWarps = kWarps_;
    static constexpr int kGroup =
        kGroup_ < kStates ? kGroup_ : kStates;  //!< states in flight together
    static constexpr int kBlocksPerSm = kBlocksPerSm_;
    static constexpr int kWarpChunks = 32 / kLaneChannels;
    static constexpr int kChannels = kLaneChannels * kPerLane;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kSegment = kWarps * kWarpChunks * kTokens;
    static_assert(kSegment == kChunkedSegment);
    static_assert(kStates % kGroup == 0);
};

template <int kStates>
using ChunkedShape4 = ChunkedShape<kStates, 4, 1, 5, 5, 4, 3>;
template <int kStates>
using ChunkedShape8 = ChunkedShape<kStates, 8, 1, 10, 5, 2, 3>;
template <int kStates>
using ChunkedShape16 = ChunkedShape<kStates, 8, 2, 10, 5, 1, 2>;

//! Two floats more than the tokens: rows of states then start in different banks.
inline constexpr int kChunkedRow = kChunkedSegment + 2;

template <typename Shape>
struct alignas(16) ChunkedShared {
    float bc[2 * Shape::kStates][kChunkedRow];  //!< rows of B, then of C
    float rate[Shape::kStates][Shape::kChannels];
    //! State at the segment's start; written for the next segment while this one is read.
    float carry[2][Shape::kStates][Shape::kChannels];
    //! (decay, state) over all chunks of a warp; two buffers, so that one barrier a group is
    //! enough.
    float2 total[2][Shape::kGroup][Shape::kWarps][Shape::kChannels];
};

//! Composition of two stretches of the recurrence: `first` happens before `second`.
__device__ __forceinline__ float2 compose(float2 first, float2 second) {
    return make_float2(first.x * second.x, fmaf(second.x, first.y, second.y));
}

//! kTokens consecutive floats; the row starts at an even float, chunks of even length too.
template <int kTokens>
__device__ __forceinline__ void load_chunk(const float* at, float (&out)[kTokens]) {
    if constexpr (kTokens % 2 == 0) {
#pragma unroll
        for (int t = 0; t < kTokens; t += 2) {
            const float2 two = *reinterpret_cast<const float2*>(at + t);
            out[t] = two.x;
            out[t + 1] = two.y;
        }
    } else {
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            out[t] = at[t];
        }
    }
}

template <typename T, typename Shape>
struct ChunkedBlock {
    static constexpr int kTokens = Shape::kTokens;
    static constexpr int kPerLane = Shape::kPerLane;
    using Outputs = float[kPerLane][kTokens];

    const ScanArgs& args;
    ChunkedShared<Shape>& shared;
    int batch;
    int channel;     //!< first channel of this lane
    int lane_first;  //!< the same, counted inside the block
    int warp;
    int lane;
    int warp_chunk;  //!< which of its warp's chunks this lane owns

    __device__ __forceinline__ int segments() const {
        return (args.length + kChunkedSegment - 1) / kChunkedSegment;
    }
    //! First token of this lane's chunk.
    __device__ __forceinline__ int first_token(int segment) const {
        return segment * kChunkedSegment + (warp * Shape::kWarpChunks + warp_chunk) * kTokens;
    }
    __device__ __forceinline__ std::int64_t row(int token) const {
        return std::int64_t{batch} * args.length + token;
    }
    __device__ __forceinline__ void load_rates(const DirectionArgs& in) const;
    __device__ __forceinline__ void stage_bc(const DirectionArgs& in, int segment) const;
    __device__ __forceinline__ void load_dt(const DirectionArgs& in, int first, Outputs& dt) const;
    __device__ __forceinline__ void read_partial(int first, Outputs& y) const;
    __device__ __forceinline__ void write_partial(int first, const Outputs& y) const;
    __device__ __forceinline__ void write_outputs(int first, const Outputs& y) const;
    template <bool kReverse>
    __device__ __forceinline__ float2 combine_lanes(float2& own) const;
    template <bool kReverse>
    __device__ __forceinline__ float warp_entry(int n, int group_state, int buffer, int parity,
                                                int c) const;
    template <bool kReverse>
    __device__ __forceinline__ void scan_states(const Outputs& delta, const Outputs& delta_u,
                                                const float (&delta_sum)[kPerLane], int first,
                                                int segment, int parity, Outputs& y) const;
    template <bool kReverse>
    __device__ __forceinline__ void scan_segment(int segment, int parity, Outputs& y) const;
    template <bool kReverse>
    __device__ __forceinline__ void run(Outputs& y) const;
};

#define VIM_CHUNKED                       \
    template <typename T, typename Shape> \
    __device__ __forceinline__

//! Decay rates of the direction, and a zero state to start from.
VIM_CHUNKED void ChunkedBlock<T, Shape>::load_rates(const DirectionArgs& in) const {
    const int block_first = channel - lane_first;
    for (int i = static_cast<int>(threadIdx.x); i < Shape::kStates * Shape::kChannels;
         i += Shape::kThreads) {
        const int n = i / Shape::kChannels;
        const int c = i % Shape::kChannels;
        shared.rate[n][c] = decay_rate(in.A[n * args.channels + block_first + c]);
        shared.carry[0][n][c] = 0.0F;
    }
}

//! B and C of the segment as fp32, token-fastest; zero past the end of the sequence.
VIM_CHUNKED void ChunkedBlock<T, Shape>::stage_bc(const DirectionArgs& in, int segment) const {
    constexpr int kStates = Shape::kStates;
    constexpr int kPairs = kStates;  // of 2 * kStates columns
    const T* rows = static_cast<const T*>(in.bc) + row(0) * args.bc_columns;
    for (int i = static_cast<int>(threadIdx.x); i < kChunkedSegment * kPairs;
         i += Shape::kThreads) {
        const int slot = i / kPairs;
        const int pair = i % kPairs;
        const int token = segment * kChunkedSegment + slot;
        const int column = first_column<kStates>(args, pair);
        float2 value = make_float2(0.0F, 0.0F);
        if (token < args.length) {
            value = to_floats<T, kStates>(load_columns<T, kStates>(
                rows + std::int64_t{token} * args.bc_columns + column, args.c_off - args.b_off));
        }
        shared.bc[2 * pair][slot] = value.x;
        shared.bc[2 * pair + 1][slot] = value.y;
    }
}

//! dt of the chunk before bias and softplus; formed from the low-rank columns when there is a rank.
VIM_CHUNKED void ChunkedBlock<T, Shape>::load_dt(const DirectionArgs& in, int first,
                                                 Outputs& dt) const {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int c = 0; c < kPerLane; ++c) {
            dt[c][t] = 0.0F;
            if (args.rank == 0 && first + t < args.length) {
                dt[c][t] = Numeric<T>::to_float(
                    static_cast<const T*>(in.dt)[row(first + t) * args.channels + channel + c]);
            }
        }
    }
    const T* weight = static_cast<const T*>(in.dt) + std::int64_t{channel} * args.rank;
    const T* columns = static_cast<const T*>(in.bc) + row(first) * args.bc_columns + args.dt_off;
#pragma unroll 1
    for (int j = 0; j < args.rank; ++j) {
        float w[kPerLane];
#pragma unroll
        for (int c = 0; c < kPerLane; ++c) {
            w[c] = Numeric<T>::to_float(weight[c * args.rank + j]);
        }
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            if (first + t < args.length) {
                const float x = Numeric<T>::to_float(columns[t * args.bc_columns + j]);
#pragma unroll
                for (int c = 0; c < kPerLane; ++c) {
                    dt[c][t] = fmaf(w[c], x, dt[c][t]);
                }
            }
        }
    }
}

VIM_CHUNKED void ChunkedBlock<T, Shape>::read_partial(int first, Outputs& y) const {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        if (first + t < args.length) {
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                y[c][t] = args.partial[row(first + t) * args.channels + channel + c];
            }
        }
    }
}

VIM_CHUNKED void ChunkedBlock<T, Shape>::write_partial(int first, const Outputs& y) const {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        if (first + t < args.length) {
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                args.partial[row(first + t) * args.channels + channel + c] = y[c][t];
            }
        }
    }
}

VIM_CHUNKED void ChunkedBlock<T, Shape>::write_outputs(int first, const Outputs& y) const {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        if (first + t < args.length) {
            float out[kPerLane];
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                out[c] = args.scale * y[c][t];
                if (args.z != nullptr) {
                    out[c] *= silu(Numeric<T>::to_float(static_cast<const T*>(
                        args.z)[row(first + t) * args.z_columns + channel + c]));
                }
            }
            T* to = static_cast<T*>(args.y) + row(first + t) * args.channels + channel;
            if constexpr (kPerLane == 2) {
                store_pair(to, make_float2(out[0], out[1]));
            } else {
                *to = Numeric<T>::from_float(out[0]);
            }
        }
    }
}

#undef VIM_CHUNKED

}  // namespace vim_plugins
