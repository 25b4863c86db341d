//! The serial scan, for batches that fill the GPU: a thread owns two adjacent channels with their
//! 2 x 16 states in registers and walks L; a warp owns 64 channels.
//!
//! B and C of a token are the same for all channels: the warp stages them as fp32 in shared memory,
//! four tokens at a time, and every lane reads them back as broadcast 16-byte loads. Two channels a
//! thread halve those loads per element; with one, they would compete with the special-function
//! unit that bounds the kernel. A warp never waits for another one inside its walk.
//!
//! Every tensor has a running pointer and a signed row step, so that an address costs one
//! instruction and both directions share their code.
//!
//! delta is kept in units of log2 (delta / ln 2), which saves a multiplication an element: the
//! decay is then exp2(delta2 * A), the outputs come out divided by ln 2, and the gate's reciprocal
//! gives the factor back for nothing.
//!
//! Both directions: warp 0 of a block runs forward and warp 1 in reverse over the same channels.
//! Each leaves the fp32 outputs of its first half in scratch; after one barrier each walks the half
//! the other has done, adds the other's output, applies gate and scale, and writes y. Nothing is
//! added atomically and no token is finished twice.
#pragma once

#include "kernel_args.h"
#include "launch.cuh"
#include "numeric_types.cuh"
#include "scan_math.cuh"

namespace vim_plugins {

inline constexpr int kWarp = 32;
//! Tokens staged and prefetched together: the arithmetic of four tokens covers a DRAM access.
inline constexpr int kSerialTile = 4;
inline constexpr int kSerialChannels = 2;
inline constexpr int kSerialWarps = 2;
inline constexpr int kSerialWarpChannels = kWarp * kSerialChannels;
//! Six blocks of two warps an SM: what about 168 registers a thread allow.
inline constexpr int kSerialBlocksPerSm = 6;

//! What becomes of a token's output.
enum class Finish {
    kStore,    //!< y = output
    kGate,     //!< y = output * silu(z)
    kPartial,  //!< scratch = output
    kCombine,  //!< y = scale * (output + scratch) * silu(z)
};

template <Finish kFinish>
inline constexpr bool kReadsGate = kFinish == Finish::kGate || kFinish == Finish::kCombine;
template <Finish kFinish>
inline constexpr bool kReadsPartial = kFinish == Finish::kCombine;

//! Shared memory of one warp. Two buffers, so that one warp barrier a tile is enough.
struct alignas(16) SerialStage {
    float bc[2][kSerialTile][kFastBcColumns];
};

//! The low-rank part of it, behind the stages: dt columns of a tile, and the weight, rank-major.
struct alignas(16) SerialLowRank {
    float columns[kSerialTile][kSerialMaxRank];
    float weight[1][kSerialWarpChannels];  //!< [rank rounded up to 4][64]
};

__host__ __device__ constexpr int padded_rank(int rank) {
    return (rank + 3) / 4 * 4;
}

__host__ __device__ constexpr std::size_t serial_low_rank_bytes(int rank) {
    return sizeof(float) * (kSerialTile * kSerialMaxRank +
                            static_cast<std::size_t>(padded_rank(rank)) * kSerialWarpChannels);
}

__host__ __device__ constexpr std::size_t serial_shared_bytes(int rank) {
    return kSerialWarps * (sizeof(SerialStage) + (rank > 0 ? serial_low_rank_bytes(rank) : 0));
}

//! Raw activations of one tile, on their way from memory.
template <typename T, Finish kFinish, bool kLowRank>
struct SerialTile {
    using Pair = typename Numeric<T>::Pair;
    Pair u[kSerialTile];
    Pair dt[kLowRank ? 1 : kSerialTile];
    Pair z[kReadsGate<kFinish> ? kSerialTile : 1];
    float2 partial[kReadsPartial<kFinish> ? kSerialTile : 1];
    Pair bc[kSerialTile / 2];
    Pair columns[kLowRank ? kSerialTile : 1];
};

//! Where a walk reads and writes next: this lane's channels (or columns) of one token.
template <typename T>
struct SerialCursor {
    const T* u;
    const T* dt;
    const T* z;
    const T* bc;
    const T* columns;
    const float* partial;
};

//! What both directions of a warp share.
template <typename T, bool kLowRank>
struct SerialChannels {
    float state[kSerialChannels][kFastStates];
    float rate[kSerialChannels][kFastStates];
    float2 skip;             //!< divided by ln 2, as the outputs are
    float2 bias;             //!< divided by ln 2
    SerialCursor<T> origin;  //!< the direction's first token
    T* y;                    //!< at that token
    float* partial;          //!< at that token
    SerialStage* stage;
    SerialLowRank* low_rank;
    int row_step;   //!< elements from a token to the next in u, dt, y and partial; negative in
                    //!< reverse
    int gate_step;  //!< the same in z
    int bc_step;    //!< the same in the B/C rows
    int rank;
    int lane;
    bool active;  //!< false for lanes past the last channel: they load, but never store
};

//! Weight rows of a warp's channels into shared memory, transposed; rows up to the next multiple of
//! four are zero, and so are the dt columns they meet.
template <typename T>
__device__ __forceinline__ void serial_load_weight(const ScanArgs& args, const T* weight,
                                                   int first_channel,
                                                   SerialChannels<T, true>& own) {
    const int padded = padded_rank(args.rank);
    for (int c = 0; c < kSerialWarpChannels; ++c) {
        const int channel =
            first_channel + c < args.channels ? first_channel + c : args.channels - 1;
        for (int j = own.lane; j < padded; j += kWarp) {
            own.low_rank->weight[j][c] =
                j < args.rank ? Numeric<T>::to_float(weight[channel * args.rank + j]) : 0.0F;
        }
    }
    for (int j = args.rank + own.lane; j < padded; j += kWarp) {
        for (int t = 0; t < kSerialTile; ++t) {
            own.low_rank->columns[t][j] = 0.0F;
        }
    }
    __syncwarp();
}

template <typename T, bool kLowRank>
__device__ __forceinline__ void serial_init(const ScanArgs& args, bool reverse, int batch,
                                            int first_channel, int warp,
                                            SerialChannels<T, kLowRank>& own) {
    const DirectionArgs& in = args.direction[reverse ? 1 : 0];
    own.lane = static_cast<int>(threadIdx.x) % kWarp;
    const int step = reverse ? -1 : 1;
    own.row_step = step * args.channels;
    own.gate_step = step * args.z_columns;
    own.bc_step = step * args.bc_columns;
    own.rank = args.rank;
    const int wanted = first_channel + own.lane * kSerialChannels;
    own.active = wanted < args.channels;
    const int channel = own.active ? wanted : args.channels - kSerialChannels;

    const std::int64_t first_row =
        std::int64_t{batch} * args.length + (reverse ? args.length - 1 : 0);
    const std::int64_t first = first_row * args.channels + channel;
    const T* rows = static_cast<const T*>(in.bc) + first_row * args.bc_columns;
    // Lanes 0-15 stage the 16 column pairs (8 of B, 8 of C) of one token, lanes 16-31 of the next.
    const int pair = own.lane % kFastStates;
    own.origin.u = static_cast<const T*>(in.u) + first;
    own.origin.dt = static_cast<const T*>(in.dt) + (kLowRank ? 0 : first);
    own.origin.z =
        static_cast<const T*>(args.z) + (args.z ? first_row * args.z_columns + channel : 0);
    own.origin.bc = rows + (pair < 8 ? args.b_off + 2 * pair : args.c_off + 2 * (pair - 8));
    own.origin.columns = rows + args.dt_off + (2 * own.lane < args.rank ? 2 * own.lane : 0);
    own.partial = args.partial + (args.partial ? first : 0);
    own.origin.partial = own.partial;
    own.y = static_cast<T*>(args.y) + first;

    unsigned char* shared = &shared_storage<unsigned char>();
    own.stage = reinterpret_cast<SerialStage*>(shared) + warp;
    own.low_rank =
        reinterpret_cast<SerialLowRank*>(shared + kSerialWarps * sizeof(SerialStage) +
                                         (kLowRank ? warp * serial_low_rank_bytes(args.rank) : 0));
#pragma unroll
    for (int n = 0; n < kFastStates; ++n) {
        const float2 a = *reinterpret_cast<const float2*>(in.A + n * args.channels + channel);
        own.rate[0][n] = finite_decay(a.x);
        own.rate[1][n] = finite_decay(a.y);
        keep(own.rate[0][n]);
        keep(own.rate[1][n]);
        own.state[0][n] = 0.0F;
        own.state[1][n] = 0.0F;
    }
    const float2 skip = *reinterpret_cast<const float2*>(in.d_skip + channel);
    const float2 bias = *reinterpret_cast<const float2*>(in.dt_bias + channel);
    own.skip = make_float2(skip.x * kLog2E, skip.y * kLog2E);
    own.bias = make_float2(bias.x * kLog2E, bias.y * kLog2E);
    if constexpr (kLowRank) {
        serial_load_weight(args, static_cast<const T*>(in.dt), first_channel, own);
    }
}

//! One warp's walk over a range of tokens.
template <typename T, bool kLowRank, Finish kFinish>
struct SerialWalk {
    using Pair = typename Numeric<T>::Pair;
    using Tile = SerialTile<T, kFinish, kLowRank>;
    static constexpr bool kWritesPartial = kFinish == Finish::kPartial;

    SerialChannels<T, kLowRank>& own;

    __device__ __forceinline__ void run(int first, int count, float divisor) const;

  private:
    __device__ __forceinline__ void move(SerialCursor<T>& at, int tokens) const;
    __device__ __forceinline__ void load_token(const SerialCursor<T>& at, int t, Tile& tile) const;
    __device__ __forceinline__ void load_bc(const SerialCursor<T>& at, Tile& tile) const;
    __device__ __forceinline__ void stage_tile(const Tile& tile, int buffer) const;
    template <int kTokens>
    __device__ __forceinline__ void low_rank_dt(float2 (&dt_out)[kTokens]) const;
    __device__ __forceinline__ float2 scan_token(float2 u_in, float2 dt_in,
                                                 const float* bc_row) const;
    __device__ __forceinline__ void finish(float2 y_out, Pair z_in, float2 partner, float divisor,
                                           T* y_at, float* partial_at) const;
    __device__ __forceinline__ void run_tail(int first, int count, float divisor) const;
};

#define VIM_SERIAL_WALK                                  \
    template <typename T, bool kLowRank, Finish kFinish> \
    __device__ __forceinline__
#define VIM_SERIAL_WALK_CLASS SerialWalk<T, kLowRank, kFinish>

//! Advance by `tokens` of this direction.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::move(SerialCursor<T>& at, int tokens) const {
    at.u += tokens * own.row_step;
    at.bc += tokens * own.bc_step;
    if constexpr (kLowRank) {
        at.columns += tokens * own.bc_step;
    } else {
        at.dt += tokens * own.row_step;
    }
    if constexpr (kReadsGate<kFinish>) {
        at.z += tokens * own.gate_step;
    }
    if constexpr (kReadsPartial<kFinish>) {
        at.partial += tokens * own.row_step;
    }
}

//! This lane's share of token `t` of a tile.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::load_token(const SerialCursor<T>& at, int t,
                                                       Tile& tile) const {
    tile.u[t] = load_pair(at.u + t * own.row_step);
    if constexpr (!kLowRank) {
        tile.dt[t] = load_pair(at.dt + t * own.row_step);
    }
    if constexpr (kReadsGate<kFinish>) {
        tile.z[t] = load_pair(at.z + t * own.gate_step);
    }
    if constexpr (kReadsPartial<kFinish>) {
        tile.partial[t] = *reinterpret_cast<const float2*>(at.partial + t * own.row_step);
    }
}

//! What is staged for the whole warp: B, C and the low-rank columns of a tile.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::load_bc(const SerialCursor<T>& at, Tile& tile) const {
#pragma unroll
    for (int i = 0; i < kSerialTile / 2; ++i) {
        tile.bc[i] = load_pair(at.bc + 2 * i * own.bc_step);
    }
    if constexpr (kLowRank) {
#pragma unroll
        for (int t = 0; t < kSerialTile; ++t) {
            tile.columns[t] = load_pair(at.columns + t * own.bc_step);
        }
    }
}

VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::stage_tile(const Tile& tile, int buffer) const {
    const int lane = own.lane;
#pragma unroll
    for (int i = 0; i < kSerialTile / 2; ++i) {
        float* row = own.stage->bc[buffer][2 * i + lane / kFastStates];
        *reinterpret_cast<float2*>(row + 2 * (lane % kFastStates)) =
            Numeric<T>::to_float(tile.bc[i]);
    }
    if constexpr (kLowRank) {
        if (2 * lane < own.rank) {
#pragma unroll
            for (int t = 0; t < kSerialTile; ++t) {
                *reinterpret_cast<float2*>(&own.low_rank->columns[t][2 * lane]) =
                    Numeric<T>::to_float(tile.columns[t]);
            }
        }
    }
}

//! dt of this lane's channels for the first kTokens staged tokens.
template <typename T, bool kLowRank, Finish kFinish>
template <int kTokens>
__device__ __forceinline__ void VIM_SERIAL_WALK_CLASS::low_rank_dt(
    float2 (&dt_out)[kTokens]) const {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        dt_out[t] = make_float2(0.0F, 0.0F);
    }
#pragma unroll 1
    for (int j = 0; j < own.rank; j += 4) {
        float2 weight[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            weight[k] =
                *reinterpret_cast<const float2*>(&own.low_rank->weight[j + k][2 * own.lane]);
        }
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            const float4 x = *reinterpret_cast<const float4*>(&own.low_rank->columns[t][j]);
            const float column[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                dt_out[t].x = fmaf(weight[k].x, column[k], dt_out[t].x);
                dt_out[t].y = fmaf(weight[k].y, column[k], dt_out[t].y);
            }
        }
    }
}

//! The recurrence for one token of two channels; the result is y / ln 2.
VIM_SERIAL_WALK float2 VIM_SERIAL_WALK_CLASS::scan_token(float2 u_in, float2 dt_in,
                                                         const float* bc_row) const {
    const float delta_x = softplus_log2(fmaf(dt_in.x, kLog2E, own.bias.x));
    const float delta_y = softplus_log2(fmaf(dt_in.y, kLog2E, own.bias.y));
    const float delta_u_x = delta_x * u_in.x;
    const float delta_u_y = delta_y * u_in.y;
    float2 out = make_float2(own.skip.x * u_in.x, own.skip.y * u_in.y);
#pragma unroll
    for (int quad = 0; quad < kFastStates / 4; ++quad) {
        const float4 b4 = *reinterpret_cast<const float4*>(bc_row + 4 * quad);
        const float4 c4 = *reinterpret_cast<const float4*>(bc_row + kFastStates + 4 * quad);
        const float b[4] = {b4.x, b4.y, b4.z, b4.w};
        const float c[4] = {c4.x, c4.y, c4.z, c4.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int n = 4 * quad + i;
            float& x = own.state[0][n];
            float& y = own.state[1][n];
            x = fmaf(exp2_fast(delta_x * own.rate[0][n]), x, delta_u_x * b[i]);
            y = fmaf(exp2_fast(delta_y * own.rate[1][n]), y, delta_u_y * b[i]);
            out.x = fmaf(c[i], x, out.x);
            out.y = fmaf(c[i], y, out.y);
        }
    }
    return out;
}

VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::finish(float2 y_out, Pair z_in, float2 partner,
                                                   float divisor, T* y_at,
                                                   float* partial_at) const {
    if constexpr (kReadsPartial<kFinish>) {
        y_out.x += partner.x;
        y_out.y += partner.y;
    }
    if constexpr (kReadsGate<kFinish>) {
        const float2 gate = Numeric<T>::to_float(z_in);
        y_out.x *= silu_over(gate.x, divisor);
        y_out.y *= silu_over(gate.y, divisor);
    } else if constexpr (kFinish == Finish::kStore) {
        y_out.x *= kLn2;
        y_out.y *= kLn2;
    }
    if (own.active) {
        if constexpr (kFinish == Finish::kPartial) {
            *reinterpret_cast<float2*>(partial_at) = y_out;
        } else {
            store_pair(y_at, y_out);
        }
    }
}

//! Fewer tokens than a tile, one at a time and without prefetch.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::run_tail(int first, int count, float divisor) const {
    const int partial_step = kWritesPartial ? own.row_step : 0;
    SerialCursor<T> at = own.origin;
    move(at, first);
    T* y_at = own.y + first * own.row_step;
    float* partial_at = own.partial + (kWritesPartial ? first * own.row_step : 0);
#pragma unroll 1
    for (int t = 0; t < count; ++t) {
        // The row staged last may still be in use by a slower lane.
        __syncwarp();
        if (own.lane < kFastStates) {
            *reinterpret_cast<float2*>(&own.stage->bc[0][0][2 * own.lane]) =
                Numeric<T>::to_float(load_pair(at.bc));
        }
        float2 dt_in[1];
        if constexpr (kLowRank) {
            if (2 * own.lane < own.rank) {
                *reinterpret_cast<float2*>(&own.low_rank->columns[0][2 * own.lane]) =
                    Numeric<T>::to_float(load_pair(at.columns));
            }
        } else {
            dt_in[0] = Numeric<T>::to_float(load_pair(at.dt));
        }
        Pair z_in{};
        if constexpr (kReadsGate<kFinish>) {
            z_in = load_pair(at.z);
        }
        float2 partner{};
        if constexpr (kReadsPartial<kFinish>) {
            partner = *reinterpret_cast<const float2*>(at.partial);
        }
        const float2 u_in = Numeric<T>::to_float(load_pair(at.u));
        __syncwarp();
        if constexpr (kLowRank) {
            low_rank_dt(dt_in);
        }
        const float2 out = scan_token(u_in, dt_in[0], own.stage->bc[0][0]);
        finish(out, z_in, partner, divisor, y_at, partial_at);
        move(at, 1);
        y_at += own.row_step;
        partial_at += partial_step;
    }
}

//! `count` tokens, `first` tokens after the start. Each token's successor in the next tile is
//! loaded as soon as its registers are free; during the last tile the cursor stands still, so no
//! address outside the sequence is ever formed.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::run(int first, int count, float divisor) const {
    const int tiles = count / kSerialTile;
    const int partial_step = kWritesPartial ? own.row_step : 0;
    if (tiles > 0) {
        SerialCursor<T> at = own.origin;
        move(at, first);
        at.bc += own.lane / kFastStates * own.bc_step;
        T* y_at = own.y + first * own.row_step;
        float* partial_at = own.partial + (kWritesPartial ? first * own.row_step : 0);
        Tile tile;
        load_bc(at, tile);
#pragma unroll
        for (int t = 0; t < kSerialTile; ++t) {
            load_token(at, t, tile);
        }
        int buffer = 0;
#pragma unroll 1
        for (int left = tiles; left > 0; --left) {
            if constexpr (kLowRank) {
                // The dt columns have one buffer: wait until the last tile's are read.
                __syncwarp();
            }
            stage_tile(tile, buffer);
            __syncwarp();
            if (left > 1) {
                move(at, kSerialTile);
            }
            load_bc(at, tile);
            float2 dt_in[kSerialTile];
            if constexpr (kLowRank) {
                low_rank_dt(dt_in);
            }
#pragma unroll
            for (int t = 0; t < kSerialTile; ++t) {
                if constexpr (!kLowRank) {
                    dt_in[t] = Numeric<T>::to_float(tile.dt[t]);
                }
                const float2 u_in = Numeric<T>::to_float(tile.u[t]);
                const Pair z_in = tile.z[kReadsGate<kFinish> ? t : 0];
                const float2 partner = tile.partial[kReadsPartial<kFinish> ? t : 0];
                const float2 out = scan_token(u_in, dt_in[t], own.stage->bc[buffer][t]);
                finish(out, z_in, partner, divisor, y_at + t * own.row_step,
                       partial_at + t * partial_step);
                load_token(at, t, tile);
            }
            y_at += kSerialTile * own.row_step;
            partial_at += kSerialTile * partial_step;
            buffer ^= 1;
        }
    }
    const int done = tiles * kSerialTile;
    run_tail(first + done, count - done, divisor);
}

#undef VIM_SERIAL_WALK
#undef VIM_SERIAL_WALK_CLASS

//! One direction; a block's two warps own 64 channels each.
template <typename T, bool kGate>
__global__ void __launch_bounds__(kSerialWarps* kWarp, kSerialBlocksPerSm)
    serial_scan_kernel(const ScanArgs args) {
    constexpr int kBlockChannels = kSerialWarps * kSerialWarpChannels;
    const int blocks_per_row = (args.channels + kBlockChannels - 1) / kBlockChannels;
    const int batch = static_cast<int>(blockIdx.x) / blocks_per_row;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int first_channel = (static_cast<int>(blockIdx.x) % blocks_per_row) * kBlockChannels +
                              warp * kSerialWarpChannels;
    if (first_channel >= args.channels) {
        return;
    }
    SerialChannels<T, false> own;
    serial_init(args, args.reverse, batch, first_channel, warp, own);
    constexpr Finish kFinish = kGate ? Finish::kGate : Finish::kStore;
    SerialWalk<T, false, kFinish>{own}.run(0, args.length, kLog2E);
}

//! Both directions meeting in the middle; a block owns 64 channels. The gate is always there.
template <typename T, bool kLowRank>
__global__ void __launch_bounds__(kSerialWarps* kWarp, kSerialBlocksPerSm)
    serial_bi_scan_kernel(const ScanArgs args) {
    const int blocks_per_row = (args.channels + kSerialWarpChannels - 1) / kSerialWarpChannels;
    const int batch = static_cast<int>(blockIdx.x) / blocks_per_row;
    const int first_channel = (static_cast<int>(blockIdx.x) % blocks_per_row) * kSerialWarpChannels;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const bool reverse = warp == 1;
    const int half = args.length / 2;
    SerialChannels<T, kLowRank> own;
    serial_init(args, reverse, batch, first_channel, warp, own);
    const int own_half = reverse ? args.length - half : half;
    SerialWalk<T, kLowRank, Finish::kPartial>{own}.run(0, own_half, 1.0F);
    __syncthreads();
    SerialWalk<T, kLowRank, Finish::kCombine>{own}.run(own_half, args.length - own_half,
                                                       kLog2E / args.scale);
}

template <typename T>
auto serial_kernel(const ScanArgs& args) -> void (*)(ScanArgs) {
    if (args.forward && args.reverse) {
        return args.rank > 0 ? serial_bi_scan_kernel<T, true> : serial_bi_scan_kernel<T, false>;
    }
    return args.z != nullptr ? serial_scan_kernel<T, true> : serial_scan_kernel<T, false>;
}

template <typename T>
cudaError_t launch_serial(const ScanArgs& args, cudaStream_t stream) {
    const bool both = args.forward && args.reverse;
    const int block_channels = both ? kSerialWarpChannels : kSerialWarps * kSerialWarpChannels;
    const int blocks_per_row = (args.channels + block_channels - 1) / block_channels;
    const dim3 grid(static_cast<unsigned>(blocks_per_row) * static_cast<unsigned>(args.batch));
    const dim3 block(kSerialWarps * kWarp);
    return launch_kernel<ScanArgs>(serial_kernel<T>(args), grid, block,
                                   serial_shared_bytes(args.rank), args, stream);
}

}  // namespace vim_plugins
