//! The walk of the serial scan over a range of tokens: see scan_serial.cuh.
#pragma once

#include "serial_channels.cuh"

namespace vim_plugins {

//! kCount staged values in a row, aligned to as many.
template <int kCount>
__device__ __forceinline__ void read_staged(const float* at, float (&out)[kCount]) {
    static_assert(kCount == 1 || kCount == 4);
    if constexpr (kCount == 4) {
        const float4 four = *reinterpret_cast<const float4*>(at);
        out[0] = four.x;
        out[1] = four.y;
        out[2] = four.z;
        out[3] = four.w;
    } else {
        out[0] = *at;
    }
}

//! One warp's walk over a range of tokens.
template <typename T, int kStates, bool kLowRank, Finish kFinish>
struct SerialWalk {
    using Pair = typename Numeric<T>::Pair;
    using Tile = SerialTile<T, kStates, kFinish, kLowRank>;
    static constexpr bool kWritesPartial = kFinish == Finish::kPartial;

    SerialChannels<T, kStates, kLowRank>& own;

    __device__ __forceinline__ void run(int first, int count, float divisor) const;

  private:
    __device__ __forceinline__ void move(SerialCursor<T>& at, int tokens) const;
    __device__ __forceinline__ void load_token(const SerialCursor<T>& at, int t, Tile& tile) const;
    __device__ __forceinline__ int bc_token() const;
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

#define VIM_SERIAL_WALK                                               \
    template <typename T, int kStates, bool kLowRank, Finish kFinish> \
    __device__ __forceinline__
#define VIM_SERIAL_WALK_CLASS SerialWalk<T, kStates, kLowRank, kFinish>

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

//! Which of a tile's first tokens this lane stages. Lanes that have none read the last of them.
VIM_SERIAL_WALK int VIM_SERIAL_WALK_CLASS::bc_token() const {
    const int token = own.lane / kBcLanes<kStates>;
    if constexpr (kBcLanes<kStates> * kBcTokens<kStates> < kWarp) {
        return token < kBcTokens<kStates> ? token : kBcTokens<kStates> - 1;
    }
    return token;
}

//! What is staged for the whole warp: B, C and the low-rank columns of a tile.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::load_bc(const SerialCursor<T>& at, Tile& tile) const {
#pragma unroll
    for (int i = 0; i < kBcLoads<kStates>; ++i) {
        tile.bc[i] =
            load_columns<T, kStates>(at.bc + kBcTokens<kStates> * i * own.bc_step, own.bc_gap);
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
    // Fewer lanes than a warp's stage the columns of few states.
    if (kBcLanes<kStates> * kBcTokens<kStates> == kWarp ||
        lane < kBcLanes<kStates> * kBcTokens<kStates>) {
#pragma unroll
        for (int i = 0; i < kBcLoads<kStates>; ++i) {
            float* row = own.stage->bc[buffer][kBcTokens<kStates> * i + lane / kBcLanes<kStates>];
            *reinterpret_cast<float2*>(row + 2 * (lane % kBcLanes<kStates>)) =
                to_floats<T, kStates>(tile.bc[i]);
        }
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
template <typename T, int kStates, bool kLowRank, Finish kFinish>
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
    constexpr int kAtOnce = kStates < 4 ? kStates : 4;
#pragma unroll
    for (int first = 0; first < kStates; first += kAtOnce) {
        float b[kAtOnce];
        float c[kAtOnce];
        read_staged<kAtOnce>(bc_row + first, b);
        read_staged<kAtOnce>(bc_row + kStates + first, c);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int n = first + i;
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
        if (own.lane < kBcLanes<kStates>) {
            *reinterpret_cast<float2*>(&own.stage->bc[0][0][2 * own.lane]) =
                to_floats<T, kStates>(load_columns<T, kStates>(at.bc, own.bc_gap));
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
        at.bc += bc_token() * own.bc_step;
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

}  // namespace vim_plugins
