//! The chunked scan, for grids too small to fill the GPU with serial walks: L is cut into chunks of
//! kTokens tokens, a thread owns one chunk of kPerLane channels, and a block owns all chunks of a
//! segment of kChunkedSegment tokens for kChannels channels.
//!
//! States are the outer loop, a few at a time. For each, a thread scans its chunk from 0, the
//! chunks are combined (by shuffles inside a warp, through shared memory between warps) as pairs of
//! decay and state, and a second pass over the chunk, from the right state, adds C * h to the
//! outputs. The exponentials stay in registers between the two passes, and a chunk's whole decay is
//! exp(A * sum of delta): one more exponential and no product.
//!
//! A thread owns the same tokens in both directions, so the sum of the directions, the skip and the
//! gate happen in its registers. A sequence longer than a segment is walked segment by segment,
//! with the state carried in shared memory; two directions then leave the forward outputs in
//! scratch.
#pragma once

#include "chunked_block.cuh"

namespace vim_plugins {

//! The value of the lane so many places before in the direction; of the own one outside the warp.
template <bool kReverse>
__device__ __forceinline__ float from_before(float value, int distance) {
    return kReverse ? __shfl_down_sync(~0U, value, distance) : __shfl_up_sync(~0U, value, distance);
}

//! Puts the stretch of the lane so many places before in the direction before `own`, as (decay,
//! state); nothing where the warp has no such lane.
template <bool kReverse>
__device__ __forceinline__ void compose_before(float2& own, int distance) {
#ifdef VIM_PLUGINS_HOST_SHIM
    const float2 other =
        make_float2(from_before<kReverse>(own.x, distance), from_before<kReverse>(own.y, distance));
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (kReverse ? lane + distance < 32 : lane >= distance) {
        own = make_float2(own.x * other.x, fmaf(own.x, other.y, own.y));
    }
#else
    // The shuffle itself says whether there is such a lane, and both results stay in their
    // registers: from C++ come a comparison, and a move for each of them.
#define VIM_COMPOSE_BEFORE(shuffle, bound)              \
    asm volatile(                                       \
        "{ .reg .pred p; .reg .f32 x, y;\n\t"           \
        "shfl.sync." shuffle ".b32 x|p, %0, %2, " bound \
        ", -1;\n\t"                                     \
        "shfl.sync." shuffle ".b32 y, %1, %2, " bound   \
        ", -1;\n\t"                                     \
        "@p fma.rn.f32 %1, %0, y, %1;\n\t"              \
        "@p mul.rn.f32 %0, %0, x; }"                    \
        : "+f"(own.x), "+f"(own.y)                      \
        : "r"(distance))
    if constexpr (kReverse) {
        VIM_COMPOSE_BEFORE("down", "31");
    } else {
        VIM_COMPOSE_BEFORE("up", "0");
    }
#undef VIM_COMPOSE_BEFORE
#endif
}

//! Adds the states' share of one direction's outputs of a segment to `y`. What a lane reads lies at
//! addresses that step from pass to pass, and which of its results count is decided before the
//! loop, so that the loop has little else in it than arithmetic.
template <typename T, typename Shape>
template <bool kReverse>
__device__ __forceinline__ void ChunkedBlock<T, Shape>::scan_states(
    const Outputs& delta, const Outputs& delta_u, const float (&delta_sum)[kPerLane], int parity,
    Outputs& y) const {
    const bool first_chunk = warp_chunk == (kReverse ? Shape::kWarpChunks - 1 : 0);
    const bool last_chunk = warp_chunk == (kReverse ? 0 : Shape::kWarpChunks - 1);
    const bool last_warp = warp == (kReverse ? 0 : Shape::kWarps - 1);
    const bool last = last_warp && last_chunk;
    const int warps_before = kReverse ? Shape::kWarps - 1 - warp : warp;
    const float* rows = shared.bc[0] + first_token(0) * kGroup;
    const Values* rate = &shared.rate[0][place()];
    const Values* carry = &shared.carry[parity][0][place()];
    Values* next_carry = &shared.carry[parity ^ 1][0][place()];
    Maps* totals = &shared.total[0][warps_before][place()];
    Maps* next_totals = &shared.total[1][warps_before][place()];
#pragma unroll 1
    for (int pass = 0; pass < Shape::kPasses; ++pass) {
        float decay[kGroup][kPerLane][kTokens];
        float input[kGroup][kPerLane][kTokens];
        Maps own;
        float b[kTokens][kGroup];
        load_chunk(rows, b);
        const Values rates = *rate;
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                float h = 0.0F;
#pragma unroll
                for (int i = 0; i < kTokens; ++i) {
                    const int t = kReverse ? kTokens - 1 - i : i;
                    decay[g][c][t] = exp2_fast(delta[c][t] * rates.of[c][g]);
                    input[g][c][t] = delta_u[c][t] * b[t][g];
                    h = i == 0 ? input[g][c][t] : fmaf(decay[g][c][t], h, input[g][c][t]);
                }
                float2& stretch = own.of[c][g];
                stretch = make_float2(exp2_fast(delta_sum[c] * rates.of[c][g]), h);
#pragma unroll
                for (int d = Shape::kLaneChannels; d < 32; d *= 2) {
                    compose_before<kReverse>(stretch, d);
                }
            }
        }
        if (last_chunk) {
            totals[(Shape::kWarps - 1) * Shape::kLaneChannels] = own;
        }
        __syncthreads();
        // State at the start of this warp's stretch: the segment's, and the warps before.
        Values entry = *carry;
#pragma unroll
        for (int w = 0; w < Shape::kWarps - 1; ++w) {
            const Maps total = totals[w * Shape::kLaneChannels];
#pragma unroll
            for (int g = 0; g < kGroup; ++g) {
#pragma unroll
                for (int c = 0; c < kPerLane; ++c) {
                    entry.of[c][g] = fmaf(total.of[c][g].x, entry.of[c][g], total.of[c][g].y);
                }
            }
        }
        Values end;
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                end.of[c][g] = fmaf(own.of[c][g].x, entry.of[c][g], own.of[c][g].y);
            }
        }
        if (last) {
            *next_carry = end;
        }
        float c_rows[kTokens][kGroup];
        load_chunk(rows + Shape::kPasses * ChunkedShared<Shape>::kRow, c_rows);
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                const float before = from_before<kReverse>(end.of[c][g], Shape::kLaneChannels);
                float h = first_chunk ? entry.of[c][g] : before;
#pragma unroll
                for (int i = 0; i < kTokens; ++i) {
                    const int t = kReverse ? kTokens - 1 - i : i;
                    h = fmaf(decay[g][c][t], h, input[g][c][t]);
                    y[c][t] = fmaf(c_rows[t][g], h, y[c][t]);
                }
            }
        }
        rows += ChunkedShared<Shape>::kRow;
        rate += Shape::kLaneChannels;
        carry += Shape::kLaneChannels;
        next_carry += Shape::kLaneChannels;
        Maps* const used = totals;
        totals = next_totals;
        next_totals = used;
    }
}

//! Adds this direction's outputs of one segment to `y`, after `done` others of the direction. Slots
//! past the end of the sequence have delta = 0 and an input of 0: they keep the state.
template <typename T, typename Shape>
template <bool kReverse>
__device__ __forceinline__ void ChunkedBlock<T, Shape>::scan_segment(Outputs& y, int segment,
                                                                     int done) const {
    const DirectionArgs& in = args.direction[kReverse ? 1 : 0];
    const int first = first_token(segment);
    const int thread = static_cast<int>(threadIdx.x);
    const auto lane_of = [this](const float* all) {
        return *reinterpret_cast<const Raw<float>*>(all + channel);
    };
    Raw<T> raw_u[kTokens];
    Staged staged;
    Rates rates;
    load_rows<T>(in.u, args.channels, first, raw_u);
    load_bc(in, segment, staged);
    if (done == 0) {
        load_rates(in, thread, rates);
    }
    float bias[kPerLane];
    float skip[kPerLane];
    to_lane(lane_of(in.dt_bias), bias);
    to_lane(lane_of(in.d_skip), skip);
    Outputs delta;
    if (args.rank != 0) {
        low_rank_dt(in, first, delta);
    } else {
        Raw<T> raw_dt[kTokens];
        load_rows<T>(in.dt, args.channels, first, raw_dt);
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            float value[kPerLane];
            to_lane(Numeric<T>::to_float(raw_dt[t]), value);
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                delta[c][t] = value[c];
            }
        }
    }
    // The segment or direction before may still be read, and the carry must be seen.
    __syncthreads();
    if (done == 0) {
        store_rates(rates, thread);
    }
    store_bc(staged, segment);
    Outputs delta_u;
    float delta_sum[kPerLane] = {};
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        float u[kPerLane];
        to_lane(Numeric<T>::to_float(raw_u[t]), u);
#pragma unroll
        for (int c = 0; c < kPerLane; ++c) {
            const float step = softplus(delta[c][t] + bias[c]);
            const bool used = first + t < args.length;
            delta[c][t] = used ? step : 0.0F;
            delta_u[c][t] = used ? step * u[c] : 0.0F;
            delta_sum[c] += delta[c][t];
            y[c][t] = fmaf(skip[c], u[c], y[c][t]);
        }
    }
    __syncthreads();
    scan_states<kReverse>(delta, delta_u, delta_sum, done % 2, y);
}

//! All segments of one direction. With one segment `y` stays in registers between the directions;
//! with more it goes through scratch, where each thread reads back only what it wrote itself.
template <typename T, typename Shape>
template <bool kReverse>
__device__ __forceinline__ void ChunkedBlock<T, Shape>::run(Outputs& y) const {
    const bool finishes = kReverse || !args.reverse;
    const bool resumes = kReverse && args.forward;
    const int count = segments();
    if (resumes && count > 1) {
        // Tokens past the end read what the last one's thread left in scratch.
        __syncthreads();
    }
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
        const int segment = kReverse ? count - 1 - i : i;
        const int first = first_token(segment);
        if (!resumes || count > 1) {
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
#pragma unroll
                for (int t = 0; t < kTokens; ++t) {
                    y[c][t] = 0.0F;
                }
            }
        }
        if (resumes && count > 1) {
            read_partial(first, y);
        }
        scan_segment<kReverse>(y, segment, i);
        if (finishes) {
            write_outputs(first, y);
        } else if (count > 1) {
            write_partial(first, y);
        }
    }
}

template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    chunked_scan_kernel(const ScanArgs args) {
    const int blocks_per_row = args.channels / Shape::kChannels;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int lane_first = lane % Shape::kLaneChannels * Shape::kPerLane;
    const int block_first = static_cast<int>(blockIdx.x) % blocks_per_row * Shape::kChannels;
    const ChunkedBlock<T, Shape> block{args,
                                       shared_storage<ChunkedShared<Shape>>(),
                                       static_cast<int>(blockIdx.x) / blocks_per_row,
                                       block_first + lane_first,
                                       lane_first,
                                       static_cast<int>(threadIdx.x) / 32,
                                       lane / Shape::kLaneChannels};
    float y[Shape::kPerLane][Shape::kTokens];
    if (args.forward) {
        block.template run<false>(y);
    }
    if (args.reverse) {
        block.template run<true>(y);
    }
}

template <typename T, typename Shape>
cudaError_t launch_chunked_shape(const ScanArgs& args, cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(args.channels / Shape::kChannels) *
                    static_cast<unsigned>(args.batch));
    return launch_kernel<ScanArgs>(chunked_scan_kernel<T, Shape>, grid, dim3(Shape::kThreads),
                                   sizeof(ChunkedShared<Shape>), args, stream);
}

template <typename T, int kStates>
cudaError_t launch_chunked_states(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    constexpr int kWidest = widest_chunked(kStates);
    if (tactic == Tactic::kChunked4) {
        return launch_chunked_shape<T, ChunkedShape4<kStates>>(args, stream);
    }
    if constexpr (kWidest >= 8) {
        if (tactic == Tactic::kChunked8) {
            return launch_chunked_shape<T, ChunkedShape8<kStates>>(args, stream);
        }
    }
    if constexpr (kWidest >= 16) {
        if (tactic == Tactic::kChunked16) {
            return launch_chunked_shape<T, ChunkedShape16<kStates>>(args, stream);
        }
    }
    return cudaErrorInvalidValue;
}

template <typename T>
cudaError_t launch_chunked(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    switch (args.states) {
        case 1:
            return launch_chunked_states<T, 1>(args, tactic, stream);
        case 8:
            return launch_chunked_states<T, 8>(args, tactic, stream);
        case 16:
            return launch_chunked_states<T, 16>(args, tactic, stream);
        default:
            return cudaErrorInvalidValue;
    }
}

}  // namespace vim_plugins
