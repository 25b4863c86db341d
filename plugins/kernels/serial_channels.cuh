//! What a warp of the serial scan holds and where it reads and writes: see scan_serial.cuh.
#pragma once

#include "bc_columns.cuh"
#include "kernel_args.h"
#include "launch.cuh"
#include "numeric_types.cuh"
#include "scan_math.cuh"

namespace vim_plugins {

inline constexpr int kWarp = 32;
//! Tokens staged and prefetched together: the arithmetic of four tokens covers a DRAM access.
inline constexpr int kSerialTile = 4;
inline constexpr int kSerialWarps = 2;
//! Channels of a warp, of so many a lane.
template <int kChannels>
inline constexpr int kSerialWarpChannels = kWarp * kChannels;
static_assert(kSerialWarpChannels<2> == kSerialBlockChannels);
//! Values of a tile in the scratch.
template <int kChannels>
inline constexpr int kSerialTileValues = kSerialTile * kSerialWarpChannels<kChannels>;
//! Blocks of two warps an SM: six are what about 168 registers a thread allow, eight 128, ten 96.
template <int kStates, int kChannels>
inline constexpr int kSerialBlocksPerSm = kStates * kChannels == 32   ? kSerialBlocksOfTwo
                                          : kStates * kChannels == 16 ? kSerialBlocksOfOne
                                                                      : 10;

//! Two columns of the B/C rows are a lane's share of a token: lanes that a token takes, tokens that
//! a warp reads at once, and how often it has to for a tile.
template <int kStates>
inline constexpr int kBcLanes = kStates;
template <int kStates>
inline constexpr int kBcTokens = kWarp / kStates < kSerialTile ? kWarp / kStates : kSerialTile;
template <int kStates>
inline constexpr int kBcLoads = kSerialTile / kBcTokens<kStates>;

//! The warp's number in its block, read from one lane: then the compiler knows that a warp agrees.
__device__ __forceinline__ int warp_number() {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
#ifdef VIM_PLUGINS_HOST_SHIM
    return warp;
#else
    return __shfl_sync(0xFFFFFFFFU, warp, 0);
#endif
}

//! The pointer so many tokens on. The product stays a 32-bit multiplication, which ptxas makes one
//! instruction with the addition (IMAD.WIDE); from C++ comes a 64-bit step, added in two halves.
template <typename T>
__device__ __forceinline__ T* moved(T* at, int step, int tokens) {
#ifdef VIM_PLUGINS_HOST_SHIM
    return at + step * tokens;
#else
    std::int64_t bytes;
    asm("mul.wide.s32 %0, %1, %2;" : "=l"(bytes) : "r"(step), "r"(tokens * int(sizeof(T))));
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(at) + bytes);
#endif
}

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
template <int kStates>
struct alignas(16) SerialStage {
    float bc[2][kSerialTile][2 * kStates];
};

//! The low-rank part of it, behind the stages: dt columns of a tile, and the weight, rank-major and
//! divided by ln 2, as the bias is.
template <int kChannels>
struct alignas(16) SerialLowRank {
    float columns[kSerialTile][kSerialMaxRank];
    float weight[1][kSerialWarpChannels<kChannels>];  //!< [rank rounded up to 4][...]
};

__host__ __device__ constexpr int padded_rank(int rank) {
    return (rank + 3) / 4 * 4;
}

template <int kChannels>
__host__ __device__ constexpr std::size_t serial_low_rank_bytes(int rank) {
    return sizeof(float) *
           (kSerialTile * kSerialMaxRank +
            static_cast<std::size_t>(padded_rank(rank)) * kSerialWarpChannels<kChannels>);
}

template <int kStates, int kChannels>
__host__ __device__ constexpr std::size_t serial_shared_bytes(int rank) {
    return kSerialWarps *
           (sizeof(SerialStage<kStates>) + (rank > 0 ? serial_low_rank_bytes<kChannels>(rank) : 0));
}

//! A lane's channels of a token, as they lie in memory and as fp32.
template <typename T, int kChannels>
using Adjacent = std::conditional_t<kChannels == 2, typename Numeric<T>::Pair, T>;
template <int kChannels>
struct Channels {
    float of[kChannels];
};

template <int kChannels, typename T>
__device__ __forceinline__ Adjacent<T, kChannels> load_channels(const T* at) {
    return *reinterpret_cast<const Adjacent<T, kChannels>*>(at);
}

template <typename T, int kChannels>
__device__ __forceinline__ Channels<kChannels> to_channels(Adjacent<T, kChannels> raw) {
    if constexpr (kChannels == 2) {
        const float2 two = Numeric<T>::to_float(raw);
        return {{two.x, two.y}};
    } else {
        return {{Numeric<T>::to_float(raw)}};
    }
}

template <typename T, int kChannels>
__device__ __forceinline__ void store_channels(T* at, Channels<kChannels> values) {
    if constexpr (kChannels == 2) {
        store_pair(at, make_float2(values.of[0], values.of[1]));
    } else {
        *at = Numeric<T>::from_float(values.of[0]);
    }
}

//! Raw activations of one tile, on their way from memory.
template <typename T, int kStates, Finish kFinish, bool kLowRank, int kChannels>
struct SerialTile {
    using Raw = Adjacent<T, kChannels>;
    Raw u[kSerialTile];
    Raw dt[kLowRank ? 1 : kSerialTile];
    Raw z[kReadsGate<kFinish> ? kSerialTile : 1];
    float4 partial[kReadsPartial<kFinish> ? kChannels : 1];
    ColumnPair<T, kStates> bc[kBcLoads<kStates>];
    typename Numeric<T>::Pair columns[kLowRank ? kSerialTile : 1];
};

//! What both directions of a warp share, and where a walk is: each pointer at this lane's channels
//! (or columns) of the token that is read, or written, next.
template <typename T, int kStates, bool kLowRank, int kChannels>
struct SerialChannels {
    float state[kChannels][kStates];
    float rate[kChannels][kStates];
    Channels<kChannels> skip;  //!< divided by ln 2, as the outputs are
    Channels<kChannels> bias;  //!< divided by ln 2
    const T* u;
    const T* dt;
    const T* bc;  //!< of the token of a tile that this lane stages
    const T* columns;
    const T* z;
    T* y;
    float* scratch;  //!< of the warp's channels, in both directions
    SerialStage<kStates>* stage;
    SerialLowRank<kChannels>* low_rank;
    int row_step;   //!< elements from a token to the next in u, dt and y; negative in reverse
    int gate_step;  //!< the same in z
    int bc_step;    //!< the same in the B/C rows
    int bc_gap;     //!< from B to C of a single state; not set with more, whose pairs are adjacent
    int rank;
    int lane;
    int channel;
    bool active;  //!< false for lanes past the last channel: they load, but never store
};

//! Pieces of a weight row that a lane has under way at once, in each of its rows.
inline constexpr int kWeightPieces = 8;

//! The weight rows of a warp into shared memory, transposed. Each lane reads its rows a piece at a
//! time: the loads of a round are independent, nothing of the adjacent rows is fetched in vain, and
//! every lane writes to a bank of its own.
template <typename Piece, typename T, int kStates, int kChannels>
__device__ __forceinline__ void serial_load_rows(const ScanArgs& args, const T* weight,
                                                 int first_channel,
                                                 SerialChannels<T, kStates, true, kChannels>& own) {
    constexpr int kElements = sizeof(Piece) / sizeof(T);
    static_assert(kElements * kSerialWarpChannels<kChannels> <= kSerialTile * kSerialMaxRank);
    const T* rows[kChannels];
#pragma unroll
    for (int h = 0; h < kChannels; ++h) {
        const int channel = first_channel + own.lane + h * kWarp;
        rows[h] = weight + (channel < args.channels ? channel : args.channels - 1) * args.rank;
    }
#pragma unroll 1
    for (int first = 0; first < args.rank; first += kWeightPieces * kElements) {
        Piece pieces[kWeightPieces][kChannels];
#pragma unroll
        for (int i = 0; i < kWeightPieces; ++i) {
            const int j = first + i * kElements;
#pragma unroll
            for (int h = 0; h < kChannels; ++h) {
                pieces[i][h] = *reinterpret_cast<const Piece*>(rows[h] + (j < args.rank ? j : 0));
            }
        }
#pragma unroll
        for (int i = 0; i < kWeightPieces; ++i) {
            const int j = first + i * kElements;
            // Behind the last column, into the room of the dt columns, which are not there yet: a
            // branch would let the compiler put each load behind the stores before it.
            float* to = j < args.rank ? own.low_rank->weight[j] : own.low_rank->columns[0];
#pragma unroll
            for (int h = 0; h < kChannels; ++h) {
                const T* elements = reinterpret_cast<const T*>(&pieces[i][h]);
#pragma unroll
                for (int k = 0; k < kElements; ++k) {
                    to[k * kSerialWarpChannels<kChannels> + own.lane + h * kWarp] =
                        Numeric<T>::to_float(elements[k]) * kLog2E;
                }
            }
        }
    }
    __syncwarp();
}

//! The weight of a warp's channels; rows up to the next multiple of four are zero, and so are the
//! dt columns they meet. The rank is even.
template <typename T, int kStates, int kChannels>
__device__ __forceinline__ void serial_load_weight(
    const ScanArgs& args, const T* weight, int first_channel,
    SerialChannels<T, kStates, true, kChannels>& own) {
    if (sizeof(T) == 4 || args.rank % 4 == 0) {
        serial_load_rows<uint2>(args, weight, first_channel, own);
    } else {
        serial_load_rows<unsigned>(args, weight, first_channel, own);
    }
#pragma unroll 1
    for (int j = args.rank; j < padded_rank(args.rank); ++j) {
#pragma unroll
        for (int h = 0; h < kChannels; ++h) {
            own.low_rank->weight[j][own.lane + h * kWarp] = 0.0F;
        }
        if (own.lane < kSerialTile) {
            own.low_rank->columns[own.lane][j] = 0.0F;
        }
    }
    __syncwarp();
}

//! The row of a direction's token, counted from the direction's start.
__device__ __forceinline__ std::int64_t serial_row(const ScanArgs& args, bool reverse, int batch,
                                                   int token) {
    return std::int64_t{batch} * args.length + (reverse ? args.length - 1 - token : token);
}

//! Which of a tile's first tokens a lane stages. Lanes that have none read the last of them.
template <int kStates>
__device__ __forceinline__ int bc_token(int lane) {
    const int token = lane / kBcLanes<kStates>;
    return token < kBcTokens<kStates> ? token : kBcTokens<kStates> - 1;
}

template <typename T, int kStates, bool kLowRank, int kChannels>
__device__ __forceinline__ void serial_init(const ScanArgs& args, bool reverse, int batch,
                                            int first_channel, int warp,
                                            SerialChannels<T, kStates, kLowRank, kChannels>& own) {
    const DirectionArgs& in = args.direction[reverse ? 1 : 0];
    own.lane = static_cast<int>(threadIdx.x) % kWarp;
    const int step = reverse ? -1 : 1;
    own.row_step = step * args.channels;
    own.bc_step = step * args.bc_columns;
    own.rank = args.rank;
    const int wanted = first_channel + own.lane * kChannels;
    own.active = wanted < args.channels;
    own.channel = own.active ? wanted : args.channels - kChannels;

    const std::int64_t row = serial_row(args, reverse, batch, 0);
    const std::int64_t first = row * args.channels + own.channel;
    const T* rows = static_cast<const T*>(in.bc) + row * args.bc_columns;
    own.u = static_cast<const T*>(in.u) + first;
    own.dt = static_cast<const T*>(in.dt) + (kLowRank ? 0 : first);
    // Of 16 states, lanes 0-15 stage the 16 column pairs (8 of B, 8 of C) of one token, lanes 16-31
    // of the next.
    const int pair = own.lane % kBcLanes<kStates>;
    own.bc = rows + first_column<kStates>(args, pair) + bc_token<kStates>(own.lane) * own.bc_step;
    if constexpr (kStates == 1) {
        own.bc_gap = args.c_off - args.b_off;
    }
    own.columns = rows + args.dt_off + (2 * own.lane < args.rank ? 2 * own.lane : 0);

    unsigned char* shared = &shared_storage<unsigned char>();
    own.stage = reinterpret_cast<SerialStage<kStates>*>(shared) + warp;
    own.low_rank = reinterpret_cast<SerialLowRank<kChannels>*>(
        shared + kSerialWarps * sizeof(SerialStage<kStates>) +
        (kLowRank ? warp * serial_low_rank_bytes<kChannels>(args.rank) : 0));
    const auto load = [&](const float* at) {
        return to_channels<float, kChannels>(load_channels<kChannels>(at + own.channel));
    };
#pragma unroll
    for (int n = 0; n < kStates; ++n) {
        const Channels<kChannels> a = load(in.A + n * args.channels);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            own.rate[c][n] = finite_decay(a.of[c]);
            keep(own.rate[c][n]);
            own.state[c][n] = 0.0F;
        }
    }
    own.skip = load(in.d_skip);
    own.bias = load(in.dt_bias);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
        own.skip.of[c] *= kLog2E;
        own.bias.of[c] *= kLog2E;
    }
    if constexpr (kLowRank) {
        serial_load_weight(args, static_cast<const T*>(in.dt), first_channel, own);
    }
}

//! Before a walk that writes y: where the gate is read and y written from this token on.
template <typename T, int kStates, bool kLowRank, int kChannels>
__device__ __forceinline__ void serial_output(
    const ScanArgs& args, bool reverse, int batch, int token,
    SerialChannels<T, kStates, kLowRank, kChannels>& own) {
    const std::int64_t row = serial_row(args, reverse, batch, token);
    own.gate_step = reverse ? -args.z_columns : args.z_columns;
    own.z = static_cast<const T*>(args.z) + (args.z ? row * args.z_columns + own.channel : 0);
    own.y = static_cast<T*>(args.y) + row * args.channels + own.channel;
}

}  // namespace vim_plugins
