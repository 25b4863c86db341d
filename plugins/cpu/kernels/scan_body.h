//! One piece of a scan. Lanes are channels; state and sums are fp32 for every element type.
//!
//! A tile of tokens at a time and in it one vector of channels after another: first the step sizes
//! (softplus is long, and waits for no state), then the recurrence, then y.
#pragma once

#include "tasks.h"
#include "vector_math.h"

namespace vim_plugins::cpu {
namespace {

//! exp(delta * A) takes its short way while |delta * A| * log2(e) stays below this.
constexpr float kShortExponent = 125.0F;

//! One vector of channels over a tile of tokens, in fp32.
struct Tile {
    alignas(kWorkspaceAlignment) float delta[kTile][kWidth];
    alignas(kWorkspaceAlignment) float u[kTile][kWidth];
};

//! The lines of the tensors that the same channels want of the next tile, fetched meanwhile: rows
//! lie far apart, which the hardware does not foresee.
struct Ahead {
    std::uintptr_t at[4];
    std::int64_t step[4];  //!< bytes from token to token
};

VIM_CPU_INLINE void fetch(const Ahead& ahead, std::int64_t t) {
    for (int i = 0; i < 4; ++i) {
        const auto distance = static_cast<std::uintptr_t>(t * ahead.step[i]);
        __builtin_prefetch(reinterpret_cast<const void*>(ahead.at[i] + distance));
    }
}

//! A piece's place in the tensors, and the rows of its tile.
template <typename T>
struct Walk {
    const ScanArgs& args;
    const ScanPiece& piece;
    const Direction& in;
    std::int64_t way;       //!< 1 or -1: from token to token
    std::int64_t row;       //!< of the tile's first token, in [batch * length]
    std::int64_t tokens;    //!< of the tile
    float* rows;            //!< f[kTile][2][kMaxState]: B and C, when T is not fp32
    float* columns;         //!< f[kTile][padded rank]: what dt_w is multiplied with
    const float* b[kTile];  //!< each token's B
    const float* c[kTile];  //!< each token's C

    const T* u() const { return static_cast<const T*>(in.u); }
    const T* dt() const { return static_cast<const T*>(in.dt); }
    const T* bc() const { return static_cast<const T*>(in.bc); }
    const T* z() const { return static_cast<const T*>(args.z); }
    //! Where the sums of the first phase are kept.
    float* kept() const {
        return args.partial != nullptr ? args.partial : static_cast<float*>(args.y);
    }
};

//! B and C of one token: where they are, or as fp32.
template <typename T>
VIM_CPU_INLINE void take_states(Walk<T>& w, std::int64_t t, const T* row) {
    float* const out = w.rows + t * 2 * kMaxState;
    widen(row + w.args.b_off, w.args.states, out);
    widen(row + w.args.c_off, w.args.states, out + kMaxState);
    w.b[t] = out;
    w.c[t] = out + kMaxState;
}

VIM_CPU_INLINE void take_states(Walk<float>& w, std::int64_t t, const float* row) {
    w.b[t] = row + w.args.b_off;
    w.c[t] = row + w.args.c_off;
}

template <typename T>
void take_rows(Walk<T>& w) {
    const ScanArgs& a = w.args;
    for (std::int64_t t = 0; t < w.tokens; ++t) {
        const T* const row = w.bc() + (w.row + w.way * t) * a.bc_columns;
        take_states(w, t, row);
        if (a.rank > 0) {
            widen(row + a.dt_off, a.rank, w.columns + t * padded(a.rank));
        }
    }
}

//! Tokens whose steps are made side by side: a low-rank sum, and softplus, is a long chain of which
//! the multiplying units have to have several at hand.
constexpr int kBeside = 8;

//! The low-rank dt of kCount tokens from `first`, on top of `bias`.
template <int kCount, typename T>
VIM_CPU_INLINE void low_rank(const Walk<T>& w, const float* weights, std::int64_t first, Floats bias,
                             Floats* dt) {
    const std::int64_t stride = padded(w.args.rank);
    const float* const columns = w.columns + first * stride;
    for (int t = 0; t < kCount; ++t) {
        dt[t] = bias;
    }
    for (std::int64_t j = 0; j < w.args.rank; ++j) {
        const Floats weight = load(weights + j * kWidth);
        for (int t = 0; t < kCount; ++t) {
            dt[t] = fma(splat(columns[t * stride + j]), weight, dt[t]);
        }
    }
}

//! Makes the steps of kCount tokens from `first`; where their exponents all stay in the short range
//! (nowhere for NaN).
template <int kCount, typename T>
VIM_CPU_INLINE Ints take_some_steps(const Walk<T>& w, std::int64_t channel, std::int64_t left,
                                    std::int64_t first, Tile& tile) {
    const ScanArgs& a = w.args;
    const Floats bias = load_some(w.in.dt_bias + channel, left);
    const Floats longest = load(w.in.longest + channel);
    const std::int64_t step = w.way * a.channels;
    const std::int64_t at = (w.row + w.way * first) * a.channels + channel;
    Floats d[kCount];
    if (a.rank > 0) {
        low_rank<kCount>(w, w.in.weights + channel * a.rank, first, bias, d);
    } else {
        for (int t = 0; t < kCount; ++t) {
            d[t] = bias + load_some(w.dt() + at + t * step, left);
        }
    }
    if (a.delta_softplus) {
        softplus_beside<kCount>(d);
    }
    Ints holds = ~Ints{};
    for (int t = 0; t < kCount; ++t) {
        holds &= magnitude(d[t]) < longest;
        store(tile.delta[first + t], d[t]);
        store(tile.u[first + t], load_some(w.u() + at + t * step, left));
    }
    return holds;
}

//! Fills a tile's delta and u; whether no exponent of it leaves the short range.
template <typename T>
VIM_CPU_INLINE bool take_steps(const Walk<T>& w, std::int64_t channel, std::int64_t left,
                               Tile& tile) {
    Ints holds = ~Ints{};
    std::int64_t t = 0;
    for (; t + kBeside <= w.tokens; t += kBeside) {
        holds &= take_some_steps<kBeside>(w, channel, left, t, tile);
    }
    for (; t < w.tokens; ++t) {
        holds &= take_some_steps<1>(w, channel, left, t, tile);
    }
    return all_lanes(holds);
}

//! A token's sum over the states: kept for the second phase, or added to the first's, gated, and y.
template <typename T>
VIM_CPU_INLINE void finish(const Walk<T>& w, std::int64_t channel, std::int64_t left,
                           std::int64_t t, Floats sum) {
    const ScanArgs& a = w.args;
    const std::int64_t row = w.row + w.way * t;
    const std::int64_t at = row * a.channels + channel;
    if (!w.piece.finishes) {
        store_some(w.kept() + at, sum, left);
        return;
    }
    sum = w.piece.starts ? sum : sum + load_some(w.kept() + at, left);
    sum = sum * splat(a.scale);
    if (a.z != nullptr) {
        sum = sum * silu(load_some(w.z() + row * a.z_columns + channel, left));
    }
    store_some(static_cast<T*>(a.y) + at, sum, left);
}

//! The recurrence of one vector of channels over a tile. rates, h: [states][kWidth].
template <typename T, int kStates, bool kShort>
void recurrence(const Walk<T>& w, std::int64_t channel, std::int64_t left, const Ahead& ahead,
                float* h, const Tile& tile) {
    const std::int64_t states = kStates > 0 ? kStates : w.args.states;
    const float* const rates = w.in.rates + channel * states;
    const Floats skip = load_some(w.in.d_skip + channel, left);
    for (std::int64_t t = 0; t < w.tokens; ++t) {
        fetch(ahead, t);
        const Floats d = load(tile.delta[t]);
        const Floats u = load(tile.u[t]);
        const Floats x = rounded_here(d * u);
        const float* const b = w.b[t];
        const float* const c = w.c[t];
        Floats total = skip * u;
        std::int64_t n = 0;
        if (kShort) {
#pragma GCC unroll 4
            for (; n + kAbreast <= states; n += kAbreast) {
                Floats e[kAbreast], before[kAbreast], state[kAbreast];
                for (int k = 0; k < kAbreast; ++k) {
                    e[k] = d * load(rates + (n + k) * kWidth);
                    before[k] = load(h + (n + k) * kWidth);
                }
                decay_abreast(e, before, x, b + n, state);
                for (int k = 0; k < kAbreast; ++k) {
                    store(h + (n + k) * kWidth, state[k]);
                    total = fma(splat(c[n + k]), state[k], total);
                }
            }
        }
        for (; n < states; ++n) {
            const Floats e = d * load(rates + n * kWidth);
            const Floats decay = kShort ? exp2_bounded(e) : exp2_any(e);
            const Floats state = fma(decay, load(h + n * kWidth), x * splat(b[n]));
            store(h + n * kWidth, state);
            total = fma(splat(c[n]), state, total);
        }
        finish(w, channel, left, t, total);
    }
}

//! What the same channels read of the next tile.
template <typename T>
VIM_CPU_INLINE Ahead look_ahead(const Walk<T>& w, std::int64_t channel) {
    const ScanArgs& a = w.args;
    const std::int64_t row = w.row + w.way * kTile;
    const auto line = [&](const void* base, std::int64_t columns, std::int64_t size) {
        // Past the end on the last tile, where a prefetch does no harm; so no pointers are made.
        return reinterpret_cast<std::uintptr_t>(base) +
               static_cast<std::uintptr_t>((row * columns + channel) * size);
    };
    constexpr std::int64_t kSize = sizeof(T);
    const std::int64_t step = w.way * a.channels;
    Ahead ahead;
    ahead.at[0] = line(w.u(), a.channels, kSize);
    ahead.step[0] = step * kSize;
    ahead.at[1] = a.rank > 0 ? ahead.at[0] : line(w.dt(), a.channels, kSize);
    ahead.step[1] = step * kSize;
    const bool sums = a.directions == 2;
    ahead.at[2] = sums ? line(w.kept(), a.channels, sizeof(float)) : line(a.y, a.channels, kSize);
    ahead.step[2] = step * (sums ? static_cast<std::int64_t>(sizeof(float)) : kSize);
    const bool gated = w.piece.finishes && a.z != nullptr;
    ahead.at[3] = gated ? line(w.z(), a.z_columns, kSize) : ahead.at[0];
    ahead.step[3] = gated ? w.way * a.z_columns * kSize : ahead.step[0];
    return ahead;
}

template <typename T, int kStates>
void scan_piece(const ScanArgs& a, const ScanPiece& piece, float* scratch) {
    const Direction& in = a.direction[piece.direction];
    const std::int64_t way = in.backward != 0 ? -1 : 1;
    Walk<T> w = {a, piece, in, way, 0, 0, scratch, scratch + kTile * 2 * kMaxState, {}, {}};
    const std::int64_t owner = piece.image * a.directions + piece.direction;
    float* const state = a.state + (owner * padded(a.channels) + piece.first) * a.states;
    if (piece.starts) {
        const std::int64_t count = padded(piece.channels) * a.states;
        std::memset(state, 0, static_cast<std::size_t>(count) * sizeof(float));
    }
    Tile tile;
    for (std::int64_t done = 0; done < piece.end - piece.begin; done += kTile) {
        const std::int64_t todo = piece.end - piece.begin - done;
        w.tokens = todo < kTile ? todo : kTile;
        w.row = piece.image * a.length + (way > 0 ? piece.begin + done : piece.end - 1 - done);
        take_rows(w);
        for (std::int64_t v = 0; v < piece.channels; v += kWidth) {
            const std::int64_t channel = piece.first + v;
            const std::int64_t left = a.channels - channel;
            const auto walk = take_steps(w, channel, left, tile) ? recurrence<T, kStates, true>
                                                                 : recurrence<T, kStates, false>;
            walk(w, channel, left, look_ahead(w, channel), state + v * a.states, tile);
        }
    }
}

template <typename T>
void scan_typed(const ScanArgs& args, const ScanPiece& piece, float* scratch) {
    if (args.states == 16) {
        scan_piece<T, 16>(args, piece, scratch);
    } else {
        scan_piece<T, 0>(args, piece, scratch);
    }
}

void scan(const ScanArgs& args, const ScanPiece& piece, float* scratch) noexcept {
    switch (args.type) {
        case DataType::kFloat32:
            return scan_typed<float>(args, piece, scratch);
        case DataType::kFloat16:
            return scan_typed<Half>(args, piece, scratch);
        default:
            return scan_typed<BFloat>(args, piece, scratch);
    }
}

//! A with -inf made the most negative finite number: padded slots have delta = 0, and 0 * -inf
//! would be NaN where "keep the state" is meant. NaN stays NaN.
VIM_CPU_INLINE Floats decay_rate(Floats a) {
    return at_least(a * splat(kLog2E), -3.402823466e+38F);
}

//! A row of dt_w, T[rank], to where its channel is one of a vector: out[j * kWidth].
template <typename T>
void pack_row(const T* row, std::int64_t rank, float* out) {
    float some[kWidth];
    for (std::int64_t j = 0; j < rank; j += kWidth) {
        const std::int64_t left = rank - j;
        store(some, load_some(row + j, left));
        for (std::int64_t i = 0; i < kWidth && i < left; ++i) {
            out[(j + i) * kWidth] = some[i];
        }
    }
}

void pack_row(const float* row, std::int64_t rank, float* out) {
    for (std::int64_t j = 0; j < rank; ++j) {
        out[j * kWidth] = row[j];
    }
}

template <typename T>
void pack_weights(const ScanArgs& args, const Direction& in) {
    const T* const weight = static_cast<const T*>(in.dt);
    for (std::int64_t channel = 0; channel < args.channels; ++channel) {
        float* const out = in.weights + channel / kWidth * kWidth * args.rank + channel % kWidth;
        pack_row(weight + channel * args.rank, args.rank, out);
    }
}

void prepare(const ScanArgs& args, std::int64_t direction) noexcept {
    const Direction& in = args.direction[direction];
    const std::int64_t wide = padded(args.channels);
    for (std::int64_t v = 0; v < wide; v += kWidth) {
        Floats fastest = Floats{};
        for (std::int64_t n = 0; n < args.states; ++n) {
            const std::int64_t left = args.channels - v;
            const Floats a = left > 0 ? load_some(in.A + n * args.channels + v, left) : Floats{};
            const Floats rate = decay_rate(a);
            store(in.rates + v * args.states + n * kWidth, rate);
            fastest = magnitude(rate) <= fastest ? fastest : magnitude(rate);  // NaN counts
        }
        store(in.longest + v, splat(kShortExponent) / fastest);
    }
    if (args.rank == 0) {
        return;
    }
    std::memset(in.weights, 0, static_cast<std::size_t>(wide * args.rank) * sizeof(float));
    switch (args.type) {
        case DataType::kFloat32:
            return pack_weights<float>(args, in);
        case DataType::kFloat16:
            return pack_weights<Half>(args, in);
        default:
            return pack_weights<BFloat>(args, in);
    }
}

}  // namespace
}  // namespace vim_plugins::cpu
