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

//! One warp's walk over a range of tokens, from where `own` is.
template <typename T, int kStates, bool kLowRank, Finish kFinish>
struct SerialWalk {
    using Pair = typename Numeric<T>::Pair;
    using Tile = SerialTile<T, kStates, kFinish, kLowRank>;

    SerialChannels<T, kStates, kLowRank>& own;

    //! `count` tiles. In the scratch, the first is the `slot`th; from there upwards when written,
    //! and downwards when read, since the other direction wrote it.
    __device__ __forceinline__ void tiles(int count, float divisor, int slot) const;
    //! `count` tokens, fewer than a tile, one at a time and without prefetch; in the scratch from
    //! the `token`th on, upwards or downwards as above.
    __device__ __forceinline__ void singles(int count, float divisor, int token) const;

  private:
    __device__ __forceinline__ void move(int tokens) const;
    __device__ __forceinline__ void load_token(int t, Tile& tile) const;
    __device__ __forceinline__ void load_bc(Tile& tile) const;
    __device__ __forceinline__ int scratch_lane() const;
    __device__ __forceinline__ void load_partial(const float* at, int t, Tile& tile) const;
    __device__ __forceinline__ float2 partner(const Tile& tile, int t) const;
    __device__ __forceinline__ void stage_tile(const Tile& tile, int buffer) const;
    template <int kTokens>
    __device__ __forceinline__ void low_rank_dt(float2 (&dt_out)[kTokens]) const;
    __device__ __forceinline__ float2 scan_token(float2 u_in, float2 dt_in, float2 partner_in,
                                                 const float* bc_row) const;
    __device__ __forceinline__ void store(float2 y_out, Pair z_in, float divisor, T* y_at) const;
};

#define VIM_SERIAL_WALK                                               \
    template <typename T, int kStates, bool kLowRank, Finish kFinish> \
    __device__ __forceinline__
#define VIM_SERIAL_WALK_CLASS SerialWalk<T, kStates, kLowRank, kFinish>

//! So many tokens on in what is read.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::move(int tokens) const {
    own.u = moved(own.u, own.row_step, tokens);
    own.bc = moved(own.bc, own.bc_step, tokens);
    if constexpr (kLowRank) {
        own.columns = moved(own.columns, own.bc_step, tokens);
    } else {
        own.dt = moved(own.dt, own.row_step, tokens);
    }
    if constexpr (kReadsGate<kFinish>) {
        own.z = moved(own.z, own.gate_step, tokens);
    }
}

//! This lane's share of token `t` of a tile.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::load_token(int t, Tile& tile) const {
    tile.u[t] = load_pair(moved(own.u, own.row_step, t));
    if constexpr (!kLowRank) {
        tile.dt[t] = load_pair(moved(own.dt, own.row_step, t));
    }
    if constexpr (kReadsGate<kFinish>) {
        tile.z[t] = load_pair(moved(own.z, own.gate_step, t));
    }
}

//! This lane's place in the scratch, in pairs of channels; idle lanes read the last one's.
VIM_SERIAL_WALK int VIM_SERIAL_WALK_CLASS::scratch_lane() const {
    return own.channel % kSerialWarpChannels / kSerialChannels;
}

//! The other direction's outputs of two tokens, before the first of them; it wrote its last token
//! last.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::load_partial(const float* at, int t, Tile& tile) const {
    if constexpr (kReadsPartial<kFinish>) {
        if (t % 2 == 0) {
            tile.partial[t / 2] =
                *reinterpret_cast<const float4*>(at + (1 - t / 2) * (kSerialTileValues / 2));
        }
    }
}

VIM_SERIAL_WALK float2 VIM_SERIAL_WALK_CLASS::partner(const Tile& tile, int t) const {
    const float4 two = tile.partial[kReadsPartial<kFinish> ? t / 2 : 0];
    return t % 2 == 0 ? make_float2(two.z, two.w) : make_float2(two.x, two.y);
}

//! What is staged for the whole warp: B, C and the low-rank columns of a tile.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::load_bc(Tile& tile) const {
#pragma unroll
    for (int i = 0; i < kBcLoads<kStates>; ++i) {
        tile.bc[i] =
            load_columns<T, kStates>(moved(own.bc, own.bc_step, kBcTokens<kStates> * i), own.bc_gap);
    }
    if constexpr (kLowRank) {
#pragma unroll
        for (int t = 0; t < kSerialTile; ++t) {
            tile.columns[t] = load_pair(moved(own.columns, own.bc_step, t));
        }
    }
}

VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::stage_tile(const Tile& tile, int buffer) const {
    const int lane = own.lane;
    // Fewer lanes than a warp's stage the columns of few states.
    if (kBcLanes<kStates> * kBcTokens<kStates> == kWarp ||
        lane < kBcLanes<kStates> * kBcTokens<kStates>) {
        float* at = own.stage->bc[0][0] + (buffer + 2 * lane);
#pragma unroll
        for (int i = 0; i < kBcLoads<kStates>; ++i) {
            *reinterpret_cast<float2*>(at + i * (kBcTokens<kStates> * 2 * kStates)) =
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

//! dt with its bias, divided by ln 2, of this lane's channels for the first kTokens staged tokens.
template <typename T, int kStates, bool kLowRank, Finish kFinish>
template <int kTokens>
__device__ __forceinline__ void VIM_SERIAL_WALK_CLASS::low_rank_dt(
    float2 (&dt_out)[kTokens]) const {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        dt_out[t] = own.bias;
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

//! The recurrence for one token of two channels, from dt, or low-rank dt with its bias; the result is y / ln 2, on top of the other
//! direction's where there is one.
VIM_SERIAL_WALK float2 VIM_SERIAL_WALK_CLASS::scan_token(float2 u_in, float2 dt_in,
                                                         float2 partner_in,
                                                         const float* bc_row) const {
    if constexpr (!kLowRank) {
        dt_in.x = fmaf(dt_in.x, kLog2E, own.bias.x);
        dt_in.y = fmaf(dt_in.y, kLog2E, own.bias.y);
    }
    const float delta_x = softplus_log2(dt_in.x);
    const float delta_y = softplus_log2(dt_in.y);
    const float delta_u_x = delta_x * u_in.x;
    const float delta_u_y = delta_y * u_in.y;
    float2 out;
    if constexpr (kReadsPartial<kFinish>) {
        out.x = fmaf(own.skip.x, u_in.x, partner_in.x);
        out.y = fmaf(own.skip.y, u_in.y, partner_in.y);
    } else {
        out = make_float2(own.skip.x * u_in.x, own.skip.y * u_in.y);
    }
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

VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::store(float2 y_out, Pair z_in, float divisor,
                                                  T* y_at) const {
    if constexpr (kReadsGate<kFinish>) {
        const float2 gate = Numeric<T>::to_float(z_in);
        y_out.x *= silu_over(gate.x, divisor);
        y_out.y *= silu_over(gate.y, divisor);
    } else {
        y_out.x *= kLn2;
        y_out.y *= kLn2;
    }
    if (own.active) {
        store_pair(y_at, y_out);
    }
}

VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::singles(int count, float divisor, int token) const {
    float* scratch = own.scratch + token * kSerialWarpChannels + 2 * scratch_lane();
#pragma unroll 1
    for (int t = 0; t < count; ++t) {
        // The row staged last may still be in use by a slower lane.
        __syncwarp();
        // These lanes stage a tile's first token, so they are at this one.
        if (own.lane < kBcLanes<kStates>) {
            *reinterpret_cast<float2*>(&own.stage->bc[0][0][2 * own.lane]) =
                to_floats<T, kStates>(load_columns<T, kStates>(own.bc, own.bc_gap));
        }
        Tile tile;
        load_token(0, tile);
        float2 dt_in[1];
        if constexpr (kLowRank) {
            if (2 * own.lane < own.rank) {
                *reinterpret_cast<float2*>(&own.low_rank->columns[0][2 * own.lane]) =
                    Numeric<T>::to_float(load_pair(own.columns));
            }
        } else {
            dt_in[0] = Numeric<T>::to_float(tile.dt[0]);
        }
        float2 partner_in{};
        if constexpr (kReadsPartial<kFinish>) {
            partner_in = *reinterpret_cast<const float2*>(scratch);
            scratch -= kSerialWarpChannels;
        }
        __syncwarp();
        if constexpr (kLowRank) {
            low_rank_dt(dt_in);
        }
        const float2 out =
            scan_token(Numeric<T>::to_float(tile.u[0]), dt_in[0], partner_in, own.stage->bc[0][0]);
        if constexpr (kFinish == Finish::kPartial) {
            if (own.active) {
                *reinterpret_cast<float2*>(scratch) = out;
            }
            scratch += kSerialWarpChannels;
        } else {
            store(out, tile.z[0], divisor, own.y);
            own.y = moved(own.y, own.row_step, 1);
        }
        move(1);
    }
}

//! Each token's successor in the next tile is loaded as soon as its registers are free; during the
//! last tile the pointers stand still, so nothing outside the sequence is read.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::tiles(int count, float divisor, int slot) const {
    if (count == 0) {
        return;
    }
    float* scratch = own.scratch + slot * kSerialTileValues + 4 * scratch_lane();
    Tile tile;
    load_bc(tile);
#pragma unroll
    for (int t = 0; t < kSerialTile; ++t) {
        load_token(t, tile);
        load_partial(scratch, t, tile);
    }
    // What was staged last may still be in use by a slower lane.
    __syncwarp();
    int buffer = 0;
#pragma unroll 1
    for (int left = count; left > 0; --left) {
        if constexpr (kLowRank) {
            // The dt columns have one buffer: wait until the last tile's are read.
            __syncwarp();
        }
        stage_tile(tile, buffer);
        __syncwarp();
        if (left > 1) {
            move(kSerialTile);
            if constexpr (kReadsPartial<kFinish>) {
                scratch -= kSerialTileValues;
            }
        }
        load_bc(tile);
        float2 dt_in[kSerialTile];
        if constexpr (kLowRank) {
            low_rank_dt(dt_in);
        }
        float2 earlier{};
#pragma unroll
        for (int t = 0; t < kSerialTile; ++t) {
            if constexpr (!kLowRank) {
                dt_in[t] = Numeric<T>::to_float(tile.dt[t]);
            }
            const Pair z_in = tile.z[kReadsGate<kFinish> ? t : 0];
            const float2 out = scan_token(Numeric<T>::to_float(tile.u[t]), dt_in[t],
                                          partner(tile, t), own.stage->bc[0][t] + buffer);
            if constexpr (kFinish == Finish::kPartial) {
                if (t % 2 == 1 && own.active) {
                    *reinterpret_cast<float4*>(scratch + t / 2 * (kSerialTileValues / 2)) =
                        float4{earlier.x, earlier.y, out.x, out.y};
                }
                earlier = out;
            } else {
                store(out, z_in, divisor, moved(own.y, own.row_step, t));
            }
            load_token(t, tile);
            if (t % 2 == 1) {
                load_partial(scratch, t - 1, tile);
            }
        }
        if constexpr (kFinish == Finish::kPartial) {
            scratch += kSerialTileValues;
        } else {
            own.y = moved(own.y, own.row_step, kSerialTile);
        }
        buffer ^= kSerialTile * 2 * kStates;
    }
    move(kSerialTile);
}

#undef VIM_SERIAL_WALK
#undef VIM_SERIAL_WALK_CLASS

}  // namespace vim_plugins
