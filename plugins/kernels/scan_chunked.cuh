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

//! Scan over the chunks of a warp. On return `own` includes this lane's chunk and all before it in
//! the direction; the result covers only those before it.
template <typename T, typename Shape>
template <bool kReverse>
__device__ __forceinline__ float2 ChunkedBlock<T, Shape>::combine_lanes(float2& own) const {
    const int order = kReverse ? Shape::kWarpChunks - 1 - warp_chunk : warp_chunk;
#pragma unroll
    for (int step = 1; step < Shape::kWarpChunks; step *= 2) {
        const int distance = step * Shape::kLaneChannels;
        float2 other;
        other.x = kReverse ? __shfl_down_sync(~0U, own.x, distance)
                           : __shfl_up_sync(~0U, own.x, distance);
        other.y = kReverse ? __shfl_down_sync(~0U, own.y, distance)
                           : __shfl_up_sync(~0U, own.y, distance);
        if (order >= step) {
            own = compose(other, own);
        }
    }
    float2 before;
    before.x = kReverse ? __shfl_down_sync(~0U, own.x, Shape::kLaneChannels)
                        : __shfl_up_sync(~0U, own.x, Shape::kLaneChannels);
    before.y = kReverse ? __shfl_down_sync(~0U, own.y, Shape::kLaneChannels)
                        : __shfl_up_sync(~0U, own.y, Shape::kLaneChannels);
    return order > 0 ? before : make_float2(1.0F, 0.0F);
}

//! State n at the start of this warp's stretch: the segment's, and the warps before in direction.
template <typename T, typename Shape>
template <bool kReverse>
__device__ __forceinline__ float ChunkedBlock<T, Shape>::warp_entry(int n, int group_state,
                                                                    int buffer, int parity,
                                                                    int c) const {
    float entry = shared.carry[parity][n][lane_first + c];
#pragma unroll
    for (int i = 0; i < Shape::kWarps - 1; ++i) {
        const int other = kReverse ? Shape::kWarps - 1 - i : i;
        if (kReverse ? other > warp : other < warp) {
            const float2 total = shared.total[buffer][group_state][other][lane_first + c];
            entry = fmaf(total.x, entry, total.y);
        }
    }
    return entry;
}

template <typename T, typename Shape>
template <bool kReverse>
__device__ __forceinline__ void ChunkedBlock<T, Shape>::scan_states(
    const Outputs& delta, const Outputs& delta_u, const float (&delta_sum)[kPerLane], int first,
    int segment, int parity, Outputs& y) const {
    constexpr int kGroup = Shape::kGroup;
    const int slot = first - segment * kChunkedSegment;
    const bool last_chunk = warp_chunk == (kReverse ? 0 : Shape::kWarpChunks - 1);
    const bool last_warp = warp == (kReverse ? 0 : Shape::kWarps - 1);
#pragma unroll 1
    for (int n = 0; n < Shape::kStates; n += kGroup) {
        const int buffer = n / kGroup % 2;
        float decay[kGroup][kPerLane][kTokens];
        float input[kGroup][kPerLane][kTokens];
        float2 own[kGroup][kPerLane];
        float2 before[kGroup][kPerLane];
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
            float b[kTokens];
            load_chunk<kTokens>(&shared.bc[n + g][slot], b);
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                const float rate = shared.rate[n + g][lane_first + c];
                float h = 0.0F;
#pragma unroll
                for (int i = 0; i < kTokens; ++i) {
                    const int t = kReverse ? kTokens - 1 - i : i;
                    decay[g][c][t] = exp2_fast(delta[c][t] * rate);
                    input[g][c][t] = delta_u[c][t] * b[t];
                    h = fmaf(decay[g][c][t], h, input[g][c][t]);
                }
                own[g][c] = make_float2(exp2_fast(delta_sum[c] * rate), h);
                before[g][c] = combine_lanes<kReverse>(own[g][c]);
                if (last_chunk) {
                    shared.total[buffer][g][warp][lane_first + c] = own[g][c];
                }
            }
        }
        __syncthreads();
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
            float c_row[kTokens];
            load_chunk<kTokens>(&shared.bc[Shape::kStates + n + g][slot], c_row);
#pragma unroll
            for (int c = 0; c < kPerLane; ++c) {
                const float entry = warp_entry<kReverse>(n + g, g, buffer, parity, c);
                if (last_warp && last_chunk) {
                    shared.carry[parity ^ 1][n + g][lane_first + c] =
                        fmaf(own[g][c].x, entry, own[g][c].y);
                }
                float h = fmaf(before[g][c].x, entry, before[g][c].y);
#pragma unroll
                for (int i = 0; i < kTokens; ++i) {
                    const int t = kReverse ? kTokens - 1 - i : i;
                    h = fmaf(decay[g][c][t], h, input[g][c][t]);
                    y[c][t] = fmaf(c_row[t], h, y[c][t]);
                }
            }
        }
    }
}

//! Adds this direction's outputs of one segment to `y`. Slots past the end of the sequence have
//! delta = 0 and u = 0: they keep the state.
template <typename T, typename Shape>
template <bool kReverse>
__device__ __forceinline__ void ChunkedBlock<T, Shape>::scan_segment(int segment, int parity,
                                                                     Outputs& y) const {
    const DirectionArgs& in = args.direction[kReverse ? 1 : 0];
    const int first = first_token(segment);
    // The segment before may still be read, and the carry must be seen.
    __syncthreads();
    stage_bc(in, segment);
    Outputs delta;
    Outputs delta_u;
    float delta_sum[kPerLane];
    load_dt(in, first, delta);
#pragma unroll
    for (int c = 0; c < kPerLane; ++c) {
        const float bias = in.dt_bias[channel + c];
        const float skip = in.d_skip[channel + c];
        delta_sum[c] = 0.0F;
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            float u = 0.0F;
            float value = 0.0F;
            if (first + t < args.length) {
                u = Numeric<T>::to_float(
                    static_cast<const T*>(in.u)[row(first + t) * args.channels + channel + c]);
                value = softplus(delta[c][t] + bias);
            }
            delta[c][t] = value;
            delta_u[c][t] = value * u;
            delta_sum[c] += value;
            y[c][t] = fmaf(skip, u, y[c][t]);
        }
    }
    __syncthreads();
    scan_states<kReverse>(delta, delta_u, delta_sum, first, segment, parity, y);
}

//! All segments of one direction. With one segment `y` stays in registers between the directions;
//! with more it goes through scratch, where each thread reads back only what it wrote itself.
template <typename T, typename Shape>
template <bool kReverse>
__device__ __forceinline__ void ChunkedBlock<T, Shape>::run(Outputs& y) const {
    const bool finishes = kReverse || !args.reverse;
    const bool resumes = kReverse && args.forward;
    const int count = segments();
    // The direction before may still read the rates and the carry.
    __syncthreads();
    load_rates(args.direction[kReverse ? 1 : 0]);
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
        scan_segment<kReverse>(segment, i % 2, y);
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
                                       lane,
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
