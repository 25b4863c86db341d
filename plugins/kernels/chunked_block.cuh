//! A block of the chunked scan: its shape, its shared memory, and how it reads and writes
//! activations. See scan_chunked.cuh.
#pragma once

#include "bc_columns.cuh"
#include "kernel_args.h"
#include "launch.cuh"
#include "numeric_types.cuh"
#include "scan_math.cuh"

#include <type_traits>

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
    static constexpr int kPasses = kStates / kGroup;  //!< of the loop over states
    static constexpr int kPassValues = kPerLane * kGroup;
};

template <int kStates>
using ChunkedShape4 = ChunkedShape<kStates, 4, 1, 5, 5, 4, 3>;
template <int kStates>
using ChunkedShape8 = ChunkedShape<kStates, 8, 1, 10, 5, 2, 3>;
template <int kStates>
using ChunkedShape16 = ChunkedShape<kStates, 8, 2, 10, 5, 1, 2>;

//! What a lane has of one kind in a pass of the loop over states: a value for each of its channels
//! and of the pass's states. They lie side by side, to be read and written as vectors.
template <typename E, typename Shape>
struct alignas(Shape::kPassValues * sizeof(E) < 16 ? Shape::kPassValues * sizeof(E) : 16)
    PassValues {
    E of[Shape::kPerLane][Shape::kGroup];
};

template <typename Shape>
struct alignas(16) ChunkedShared {
    using Values = PassValues<float, Shape>;
    using Maps = PassValues<float2, Shape>;
    //! Some floats more than the tokens have: rows then start in different banks.
    static constexpr int kRow = kChunkedSegment * Shape::kGroup + (Shape::kGroup == 1 ? 2 : 4);

    //! Rows of B, then of C; a row has the states of a pass, side by side for each token.
    float bc[2 * Shape::kPasses][kRow];
    Values rate[Shape::kPasses][Shape::kLaneChannels];
    //! State at the segment's start; written for the next segment while this one is read.
    Values carry[2][Shape::kPasses][Shape::kLaneChannels];
    //! (decay, state) over all chunks of a warp, in the direction's order of the warps, behind as
    //! many that change nothing: each warp then composes the same number before its own. Two
    //! buffers, so that one barrier a pass is enough.
    Maps total[2][Shape::kWarps - 1 + Shape::kWarps][Shape::kLaneChannels];
};

//! A chunk's part of a row of ChunkedShared::bc, in vectors as wide as every chunk starts at.
template <int kTokens, int kGroup>
__device__ __forceinline__ void load_chunk(const float* at, float (&out)[kTokens][kGroup]) {
    constexpr int kFloats = kTokens * kGroup;
    constexpr int kWidth = kGroup > 1 ? 4 : kFloats % 2 == 0 ? 2 : 1;
    static_assert(kFloats % kWidth == 0);
    struct alignas(kWidth * sizeof(float)) Vector {
        float of[kWidth];
    };
#pragma unroll
    for (int i = 0; i < kFloats; i += kWidth) {
        const Vector vector = *reinterpret_cast<const Vector*>(at + i);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            out[(i + j) / kGroup][(i + j) % kGroup] = vector.of[j];
        }
    }
}

//! What a block reads, it asks for all at once, in no branch on a token: a load then waits for no
//! other. Tokens past the end of the sequence read the last one, and their values are not used.
template <typename T, typename Shape>
struct ChunkedBlock {
    static constexpr int kTokens = Shape::kTokens;
    static constexpr int kPerLane = Shape::kPerLane;
    static constexpr int kGroup = Shape::kGroup;
    using Values = typename ChunkedShared<Shape>::Values;
    using Maps = typename ChunkedShared<Shape>::Maps;
    using Outputs = float[kPerLane][kTokens];
    //! A lane's channels of one row of E, as they lie in memory.
    template <typename E>
    using Raw = std::conditional_t<kPerLane == 2, typename Numeric<E>::Pair, E>;
    //! A thread's share of a segment's B and C on their way to shared memory: always the same two
    //! columns, of every kStagedStep-th token.
    static constexpr int kStagedStep = Shape::kThreads / Shape::kStates;
    static constexpr int kStagedRounds = (kChunkedSegment + kStagedStep - 1) / kStagedStep;
    static_assert(Shape::kThreads % Shape::kStates == 0);
    using Staged = ColumnPair<T, Shape::kStates>[kStagedRounds];
    //! A thread's share of a direction's A.
    static constexpr int kRates = Shape::kStates * Shape::kChannels;
    using Rates = float[(kRates + Shape::kThreads - 1) / Shape::kThreads];

    const ScanArgs& args;
    ChunkedShared<Shape>& shared;
    int batch;
    int channel;     //!< first channel of this lane
    int lane_first;  //!< the same, counted inside the block
    int warp;
    int warp_chunk;  //!< which of its warp's chunks this lane owns

    //! The lane's place among those side by side over channels.
    __device__ __forceinline__ int place() const { return lane_first / kPerLane; }

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
    //! Elements from the start of a sequence to the token's row, or to the last row for tokens past
    //! the end. The fast scans are for sequences where 31 bits suffice; unsigned, they widen to an
    //! address in one instruction.
    __device__ __forceinline__ unsigned row_start(int token, int columns) const {
        return static_cast<unsigned>((token < args.length ? token : args.length - 1) * columns);
    }
    static __device__ __forceinline__ void to_lane(float value, float (&out)[kPerLane]) {
        out[0] = value;
    }
    static __device__ __forceinline__ void to_lane(float2 value, float (&out)[kPerLane]) {
        out[0] = value.x;
        out[1] = value.y;
    }
    template <typename E>
    __device__ __forceinline__ void load_rows(const void* tensor, int columns, int first,
                                              Raw<E> (&raw)[kTokens]) const;
    __device__ __forceinline__ void load_rates(const DirectionArgs& in, int thread,
                                               Rates& rates) const;
    __device__ __forceinline__ void store_rates(const Rates& rates, int thread) const;
    __device__ __forceinline__ void load_bc(const DirectionArgs& in, int segment,
                                            Staged& staged) const;
    __device__ __forceinline__ void store_bc(const Staged& staged, int segment) const;
    __device__ __forceinline__ void low_rank_dt(const DirectionArgs& in, int first,
                                                Outputs& dt) const;
    __device__ __forceinline__ void read_partial(int first, Outputs& y) const;
    __device__ __forceinline__ void write_partial(int first, const Outputs& y) const;
    __device__ __forceinline__ void write_outputs(int first, const Outputs& y) const;
    template <bool kReverse>
    __device__ __forceinline__ void scan_states(const Outputs& delta, const Outputs& delta_u,
                                                const float (&delta_sum)[kPerLane], int parity,
                                                Outputs& y) const;
    template <bool kReverse>
    __device__ __forceinline__ void scan_segment(Outputs& y, int segment, int done) const;
    template <bool kReverse>
    __device__ __forceinline__ void run(Outputs& y) const;
};

#define VIM_CHUNKED                       \
    template <typename T, typename Shape> \
    __device__ __forceinline__

//! This lane's channels of its chunk's tokens.
template <typename T, typename Shape>
template <typename E>
__device__ __forceinline__ void ChunkedBlock<T, Shape>::load_rows(const void* tensor, int columns,
                                                                  int first,
                                                                  Raw<E> (&raw)[kTokens]) const {
    const E* at = static_cast<const E*>(tensor) + row(0) * columns + channel;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        raw[t] = *reinterpret_cast<const Raw<E>*>(at + row_start(first + t, columns));
    }
}

VIM_CHUNKED void ChunkedBlock<T, Shape>::load_rates(const DirectionArgs& in, int thread,
                                                    Rates& rates) const {
    const float* at = in.A + (channel - lane_first);
    int round = 0;
#pragma unroll
    for (float& rate : rates) {
        const int i = thread + round++ * Shape::kThreads;
        if (i < kRates) {
            rate = at[i / Shape::kChannels * args.channels + i % Shape::kChannels];
        }
    }
}

//! Decay rates of the direction, a zero state to start from, and totals that change nothing.
VIM_CHUNKED void ChunkedBlock<T, Shape>::store_rates(const Rates& rates, int thread) const {
    int round = 0;
#pragma unroll
    for (const float rate : rates) {
        const int i = thread + round++ * Shape::kThreads;
        const int n = i / Shape::kChannels;
        const int c = i % Shape::kChannels;
        if (i < kRates) {
            shared.rate[n / kGroup][c / kPerLane].of[c % kPerLane][n % kGroup] = decay_rate(rate);
            shared.carry[0][n / kGroup][c / kPerLane].of[c % kPerLane][n % kGroup] = 0.0F;
        }
    }
    constexpr int kPlain = (Shape::kWarps - 1) * Shape::kLaneChannels * Shape::kPassValues;
    static_assert(2 * kPlain <= Shape::kThreads);
    if (thread < 2 * kPlain) {
        (&shared.total[thread / kPlain][0][0].of[0][0])[thread % kPlain] = make_float2(1.0F, 0.0F);
    }
}

VIM_CHUNKED void ChunkedBlock<T, Shape>::load_bc(const DirectionArgs& in, int segment,
                                                 Staged& staged) const {
    constexpr int kStates = Shape::kStates;
    const int pair = static_cast<int>(threadIdx.x) % kStates;
    const int first = segment * kChunkedSegment + static_cast<int>(threadIdx.x) / kStates;
    const T* at =
        static_cast<const T*>(in.bc) + row(0) * args.bc_columns + first_column<kStates>(args, pair);
#pragma unroll
    for (int i = 0; i < kStagedRounds; ++i) {
        staged[i] = load_columns<T, kStates>(
            at + row_start(first + i * kStagedStep, args.bc_columns), args.c_off - args.b_off);
    }
}

//! B and C of the segment as fp32, token-fastest; zero past the end of the sequence.
VIM_CHUNKED void ChunkedBlock<T, Shape>::store_bc(const Staged& staged, int segment) const {
    constexpr int kStates = Shape::kStates;
    const int pair = static_cast<int>(threadIdx.x) % kStates;
    const int first = static_cast<int>(threadIdx.x) / kStates;
    const int valid = args.length - segment * kChunkedSegment;
#pragma unroll
    for (int i = 0; i < kStagedRounds; ++i) {
        const int slot = first + i * kStagedStep;
        if (kChunkedSegment % kStagedStep == 0 || slot < kChunkedSegment) {
            float2 value = to_floats<T, kStates>(staged[i]);
            value.x = slot < valid ? value.x : 0.0F;
            value.y = slot < valid ? value.y : 0.0F;
            float* const to = &shared.bc[2 * pair / kGroup][slot * kGroup + 2 * pair % kGroup];
            if constexpr (kGroup == 1) {
                to[0] = value.x;
                to[ChunkedShared<Shape>::kRow] = value.y;
            } else {
                *reinterpret_cast<float2*>(to) = value;
            }
        }
    }
}

//! dt of the chunk before bias and softplus, from the low-rank columns, two at a time. The first
//! one is taken by itself where pairs of columns then begin at even offsets, and the last one where
//! it is left over.
VIM_CHUNKED void ChunkedBlock<T, Shape>::low_rank_dt(const DirectionArgs& in, int first,
                                                     Outputs& dt) const {
    constexpr int kStates = Shape::kStates;
    const T* weight = static_cast<const T*>(in.dt) + std::int64_t{channel} * args.rank;
    const T* columns = static_cast<const T*>(in.bc) + row(0) * args.bc_columns + args.dt_off;
    unsigned offset[kTokens];
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        offset[t] = row_start(first + t, args.bc_columns);
#pragma unroll
        for (int c = 0; c < kPerLane; ++c) {
            dt[c][t] = 0.0F;
        }
    }
    const int odd = kStates == kPairedStates ? args.dt_off % 2 : 0;
    const int paired = odd + (args.rank - odd) / 2 * 2;
    const T* pair = columns + odd;
    const T* pair_weight = weight + odd;
#pragma unroll 1
    for (int j = odd; j < paired; j += 2) {
        ColumnPair<T, kStates> raw[kTokens];
        float2 w[kPerLane];
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            raw[t] = load_columns<T, kStates>(pair + offset[t], 1);
        }
#pragma unroll
        for (int c = 0; c < kPerLane; ++c) {
            w[c] = make_float2(Numeric<T>::to_float(pair_weight[c * args.rank]),
                               Numeric<T>::to_float(pair_weight[c * args.rank + 1]));
        }
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            const float2 x = to_floats<T, kStates>(raw[t]);
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                dt[c][t] = fmaf(w[c].y, x.y, fmaf(w[c].x, x.x, dt[c][t]));
            }
        }
        pair += 2;
        pair_weight += 2;
    }
#pragma unroll 1
    for (int j = odd != 0 ? 0 : paired; j < args.rank; j = j < paired ? paired : args.rank) {
        T raw[kTokens];
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            raw[t] = columns[j + offset[t]];
        }
#pragma unroll
        for (int c = 0; c < kPerLane; ++c) {
            const float w = Numeric<T>::to_float(weight[c * args.rank + j]);
#pragma unroll
            for (int t = 0; t < kTokens; ++t) {
                dt[c][t] = fmaf(w, Numeric<T>::to_float(raw[t]), dt[c][t]);
            }
        }
    }
}

VIM_CHUNKED void ChunkedBlock<T, Shape>::read_partial(int first, Outputs& y) const {
    Raw<float> raw[kTokens];
    load_rows<float>(args.partial, args.channels, first, raw);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        float value[kPerLane];
        to_lane(raw[t], value);
#pragma unroll
        for (int c = 0; c < kPerLane; ++c) {
            y[c][t] = value[c];
        }
    }
}

VIM_CHUNKED void ChunkedBlock<T, Shape>::write_partial(int first, const Outputs& y) const {
    float* at = args.partial + row(0) * args.channels + channel;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        if (first + t < args.length) {
            float* to = at + (first + t) * args.channels;
            if constexpr (kPerLane == 2) {
                store_pair(to, make_float2(y[0][t], y[1][t]));
            } else {
                *to = y[0][t];
            }
        }
    }
}

VIM_CHUNKED void ChunkedBlock<T, Shape>::write_outputs(int first, const Outputs& y) const {
    Outputs out;
#pragma unroll
    for (int c = 0; c < kPerLane; ++c) {
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            out[c][t] = args.scale * y[c][t];
        }
    }
    if (args.z != nullptr) {
        Raw<T> gate[kTokens];
        load_rows<T>(args.z, args.z_columns, first, gate);
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            float z[kPerLane];
            to_lane(Numeric<T>::to_float(gate[t]), z);
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                out[c][t] *= silu(z[c]);
            }
        }
    }
    T* at = static_cast<T*>(args.y) + row(0) * args.channels + channel;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        if (first + t < args.length) {
            T* to = at + (first + t) * args.channels;
            if constexpr (kPerLane == 2) {
                store_pair(to, make_float2(out[0][t], out[1][t]));
            } else {
                *to = Numeric<T>::from_float(out[0][t]);
            }
        }
    }
}

#undef VIM_CHUNKED

}  // namespace vim_plugins
