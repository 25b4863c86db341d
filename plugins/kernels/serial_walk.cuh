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
template <typename T, int kStates, bool kLowRank, int kChannels, Finish kFinish>
struct SerialWalk {
    using Raw = Adjacent<T, kChannels>;
    using Values = Channels<kChannels>;
    using Tile = SerialTile<T, kStates, kFinish, kLowRank, kChannels>;
    static constexpr bool kHasScratch = kFinish == Finish::kPartial || kReadsPartial<kFinish>;
    static constexpr int kTileValues = kSerialTileValues<kChannels>;
    static constexpr int kTokenValues = kSerialWarpChannels<kChannels>;

    SerialChannels<T, kStates, kLowRank, kChannels>& own;

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
    __device__ __forceinline__ Values partner(const Tile& tile, int t) const;
    __device__ __forceinline__ void stage_tile(const Tile& tile, int buffer) const;
    template <int kTokens>
    __device__ __forceinline__ void low_rank_dt(Values (&dt_out)[kTokens]) const;
    __device__ __forceinline__ Values scan_token(Values u_in, Values dt_in, Values partner_in,
                                                 const float* bc_row) const;
    __device__ __forceinline__ void store(Values out, Raw z_in, float divisor, T* y_at) const;
};

#define VIM_SERIAL_WALK                                                              \
    template <typename T, int kStates, bool kLowRank, int kChannels, Finish kFinish> \
    __device__ __forceinline__
#define VIM_SERIAL_WALK_CLASS SerialWalk<T, kStates, kLowRank, kChannels, kFinish>

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
    tile.u[t] = load_channels<kChannels>(moved(own.u, own.row_step, t));
    if constexpr (!kLowRank) {
        tile.dt[t] = load_channels<kChannels>(moved(own.dt, own.row_step, t));
    }
    if constexpr (kReadsGate<kFinish>) {
        tile.z[t] = load_channels<kChannels>(moved(own.z, own.gate_step, t));
    }
}

//! This lane's place among those of its warp; idle lanes read the last one's values.
VIM_SERIAL_WALK int VIM_SERIAL_WALK_CLASS::scratch_lane() const {
    return own.channel % kTokenValues / kChannels;
}

//! A lane's values of a tile are kChannels times 16 bytes in the scratch, token by token. The other
//! direction wrote them, so that its last token is the first here: what token `t` is the last to
//! need of a tile, its successor's is loaded.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::load_partial(const float* at, int t, Tile& tile) const {
    if constexpr (kReadsPartial<kFinish>) {
        const int value = (kSerialTile - 1 - t) * kChannels;
        if (value % 4 == 0) {
            tile.partial[value / 4] = *reinterpret_cast<const float4*>(at + value * kWarp);
        }
    }
}

VIM_SERIAL_WALK Channels<kChannels> VIM_SERIAL_WALK_CLASS::partner(const Tile& tile, int t) const {
    Values out{};
    if constexpr (kReadsPartial<kFinish>) {
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            const int value = (kSerialTile - 1 - t) * kChannels + c;
            const float4 four = tile.partial[value / 4];
            out.of[c] = value % 4 == 0   ? four.x
                        : value % 4 == 1 ? four.y
                        : value % 4 == 2 ? four.z
                                         : four.w;
        }
    }
    return out;
}

//! What is staged for the whole warp: B, C and the low-rank columns of a tile.
VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::load_bc(Tile& tile) const {
#pragma unroll
    for (int i = 0; i < kBcLoads<kStates>; ++i) {
        tile.bc[i] = load_columns<T, kStates>(moved(own.bc, own.bc_step, kBcTokens<kStates> * i),
                                              own.bc_gap);
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
template <typename T, int kStates, bool kLowRank, int kChannels, Finish kFinish>
template <int kTokens>
__device__ __forceinline__ void VIM_SERIAL_WALK_CLASS::low_rank_dt(
    Values (&dt_out)[kTokens]) const {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
        dt_out[t] = own.bias;
    }
#pragma unroll 1
    for (int j = 0; j < own.rank; j += 4) {
        Values weight[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            weight[k] = to_channels<float, kChannels>(
                load_channels<kChannels>(&own.low_rank->weight[j + k][kChannels * own.lane]));
        }
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
            const float4 x = *reinterpret_cast<const float4*>(&own.low_rank->columns[t][j]);
            const float column[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int k = 0; k < 4; ++k) {
#pragma unroll
                for (int c = 0; c < kChannels; ++c) {
                    dt_out[t].of[c] = fmaf(weight[k].of[c], column[k], dt_out[t].of[c]);
                }
            }
        }
    }
}

//! The recurrence for one token, from dt, or low-rank dt with its bias; the result is y / ln 2, on
//! top of the other direction's where there is one.
VIM_SERIAL_WALK Channels<kChannels> VIM_SERIAL_WALK_CLASS::scan_token(Values u_in, Values dt_in,
                                                                      Values partner_in,
                                                                      const float* bc_row) const {
    float delta[kChannels];
    float delta_u[kChannels];
    Values out;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
        delta[c] =
            softplus_log2(kLowRank ? dt_in.of[c] : fmaf(dt_in.of[c], kLog2E, own.bias.of[c]));
        delta_u[c] = delta[c] * u_in.of[c];
        out.of[c] = kReadsPartial<kFinish> ? fmaf(own.skip.of[c], u_in.of[c], partner_in.of[c])
                                           : own.skip.of[c] * u_in.of[c];
    }
    constexpr int kAtOnce = kStates < 4 ? kStates : 4;
#pragma unroll
    for (int first = 0; first < kStates; first += kAtOnce) {
        float b[kAtOnce];
        float c_row[kAtOnce];
        read_staged<kAtOnce>(bc_row + first, b);
        read_staged<kAtOnce>(bc_row + kStates + first, c_row);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int n = first + i;
#pragma unroll
            for (int c = 0; c < kChannels; ++c) {
                float& x = own.state[c][n];
                x = fmaf(exp2_fast(delta[c] * own.rate[c][n]), x, delta_u[c] * b[i]);
                out.of[c] = fmaf(c_row[i], x, out.of[c]);
            }
        }
    }
    return out;
}

VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::store(Values out, Raw z_in, float divisor,
                                                  T* y_at) const {
    if constexpr (kReadsGate<kFinish>) {
        const Values gate = to_channels<T, kChannels>(z_in);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            out.of[c] *= silu_over(gate.of[c], divisor);
        }
    } else {
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            out.of[c] *= kLn2;
        }
    }
    if (own.active) {
        store_channels<T, kChannels>(y_at, out);
    }
}

VIM_SERIAL_WALK void VIM_SERIAL_WALK_CLASS::singles(int count, float divisor, int token) const {
    float* scratch = nullptr;
    if constexpr (kHasScratch) {
        scratch = own.scratch + token * kTokenValues + kChannels * scratch_lane();
    }
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
        Values dt_in[1];
        if constexpr (kLowRank) {
            if (2 * own.lane < own.rank) {
                *reinterpret_cast<float2*>(&own.low_rank->columns[0][2 * own.lane]) =
                    Numeric<T>::to_float(load_pair(own.columns));
            }
        } else {
            dt_in[0] = to_channels<T, kChannels>(tile.dt[0]);
        }
        Values partner_in{};
        if constexpr (kReadsPartial<kFinish>) {
            partner_in = to_channels<float, kChannels>(load_channels<kChannels, float>(scratch));
            scratch -= kTokenValues;
        }
        __syncwarp();
        if constexpr (kLowRank) {
            low_rank_dt(dt_in);
        }
        const Values out = scan_token(to_channels<T, kChannels>(tile.u[0]), dt_in[0], partner_in,
                                      own.stage->bc[0][0]);
        if constexpr (kFinish == Finish::kPartial) {
            if (own.active) {
                store_channels<float, kChannels>(scratch, out);
            }
            scratch += kTokenValues;
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
    float* scratch = nullptr;
    if constexpr (kHasScratch) {
        scratch = own.scratch + slot * kTileValues + 4 * scratch_lane();
    }
    Tile tile{};
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
                scratch -= kTileValues;
            }
        }
        load_bc(tile);
        Values dt_in[kSerialTile];
        if constexpr (kLowRank) {
            low_rank_dt(dt_in);
        }
        float outputs[kSerialTile * kChannels];
#pragma unroll
        for (int t = 0; t < kSerialTile; ++t) {
            if constexpr (!kLowRank) {
                dt_in[t] = to_channels<T, kChannels>(tile.dt[t]);
            }
            const Raw z_in = tile.z[kReadsGate<kFinish> ? t : 0];
            const Values out = scan_token(to_channels<T, kChannels>(tile.u[t]), dt_in[t],
                                          partner(tile, t), own.stage->bc[0][t] + buffer);
            if constexpr (kFinish == Finish::kPartial) {
#pragma unroll
                for (int c = 0; c < kChannels; ++c) {
                    outputs[t * kChannels + c] = out.of[c];
                }
                const int value = (t + 1) * kChannels - 4;
                if (value >= 0 && value % 4 == 0 && own.active) {
                    *reinterpret_cast<float4*>(scratch + value * kWarp) = float4{
                        outputs[value], outputs[value + 1], outputs[value + 2], outputs[value + 3]};
                }
            } else {
                store(out, z_in, divisor, moved(own.y, own.row_step, t));
            }
            load_token(t, tile);
            load_partial(scratch, t, tile);
        }
        if constexpr (kFinish == Finish::kPartial) {
            scratch += kTileValues;
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
