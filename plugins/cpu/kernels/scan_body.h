//! One piece of a scan. Lanes are channels; state and sums are fp32 for every element type.
//!
//! A tile of tokens at a time: step sizes first (softplus is long and independent of the state),
//! then the recurrence of each vector of channels over the tile, then the rows of y.
#pragma once

#include "tasks.h"
#include "vector_math.h"

namespace vim_plugins::cpu {
namespace {

//! exp(delta * A) takes its short way while |delta * A| * log2(e) stays below this.
constexpr float kShortExponent = 125.0F;

//! One vector of channels over a tile. rates, h: [states][kWidth]; delta, du (delta * u) in and sum
//! in and out: [tokens][stride]; b, c: [tokens] pointers to a token's states.
template <int kStates, bool kShort>
void recurrence(std::int64_t tokens, std::int64_t all_states, const float* rates, float* h,
                const float* delta, const float* du, float* sum, std::int64_t stride,
                const float* const* b, const float* const* c) {
    const std::int64_t states = kStates > 0 ? kStates : all_states;
    for (std::int64_t t = 0; t < tokens; ++t) {
        const Floats d = load(delta + t * stride);
        const Floats x = load(du + t * stride);
        Floats total = load(sum + t * stride);
        for (std::int64_t n = 0; n < states; ++n) {
            const Floats e = d * load(rates + n * kWidth);
            const Floats decay = kShort ? exp2_bounded(e) : exp2_any(e);
            const Floats state = fma(decay, load(h + n * kWidth), x * splat(b[t][n]));
            store(h + n * kWidth, state);
            total = fma(splat(c[t][n]), state, total);
        }
        store(sum + t * stride, total);
    }
}

//! A piece's place in the tensors, and its scratch.
template <typename T>
struct Walk {
    const ScanArgs& args;
    const ScanPiece& piece;
    const Direction& in;
    std::int64_t wide;      //!< padded channels
    std::int64_t in_row;    //!< row of token 0 in the direction's tensors
    float* delta;           //!< f[kTile][wide]
    float* du;              //!< f[kTile][wide]
    float* sum;             //!< f[kTile][wide]
    float* rows;            //!< f[kTile][2][kMaxState]: B and C, when T is not fp32
    float* columns;         //!< f[kTile][padded rank]
    const float* b[kTile];  //!< each token's B
    const float* c[kTile];  //!< each token's C

    const T* u() const { return static_cast<const T*>(in.u); }
    const T* dt() const { return static_cast<const T*>(in.dt); }
    const T* bc() const { return static_cast<const T*>(in.bc); }
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

//! dt of one vector of channels and token from the low-rank columns of its row.
template <typename T>
VIM_CPU_INLINE Floats low_rank_dt(const Walk<T>& w, std::int64_t t, const float* weights) {
    const float* const columns = w.columns + t * padded(w.args.rank);
    Floats dt = Floats{};
    for (std::int64_t j = 0; j < w.args.rank; ++j) {
        dt = fma(splat(columns[j]), load(weights + j * kWidth), dt);
    }
    return dt;
}

//! Fills delta, du and sum of a tile.
template <typename T>
void take_steps(Walk<T>& w, std::int64_t first, std::int64_t way, std::int64_t tokens) {
    const ScanArgs& a = w.args;
    for (std::int64_t t = 0; t < tokens; ++t) {
        const std::int64_t row = w.in_row + first + way * t;
        const T* const bc = w.bc() + row * a.bc_columns;
        take_states(w, t, bc);
        if (a.rank > 0) {
            widen(bc + a.dt_off, a.rank, w.columns + t * padded(a.rank));
        }
        for (std::int64_t v = 0; v < w.piece.channels; v += kWidth) {
            const std::int64_t channel = w.piece.first + v;
            const std::int64_t left = a.channels - channel;
            const std::int64_t at = t * w.wide + v;
            const Floats u = load_some(w.u() + row * a.channels + channel, left);
            Floats d = load_some(w.in.dt_bias + channel, left);
            d += a.rank > 0 ? low_rank_dt(w, t, w.in.weights + channel * a.rank)
                            : load_some(w.dt() + row * a.channels + channel, left);
            d = a.delta_softplus ? softplus(d) : d;
            store(w.delta + at, d);
            store(w.du + at, d * u);
            store(w.sum + at, load_some(w.in.d_skip + channel, left) * u);
        }
    }
}

//! Whether no exponent of the tile leaves the short range; false for NaN.
template <typename T>
bool is_short(const Walk<T>& w, std::int64_t v, std::int64_t tokens, const float* rates) {
    Floats largest = Floats{};
    for (std::int64_t t = 0; t < tokens; ++t) {
        const Floats d = magnitude(load(w.delta + t * w.wide + v));
        largest = d <= largest ? largest : d;
    }
    Floats fastest = Floats{};
    for (std::int64_t n = 0; n < w.args.states; ++n) {
        const Floats rate = magnitude(load(rates + n * kWidth));
        fastest = rate <= fastest ? fastest : rate;
    }
    const Ints good = largest * fastest < splat(kShortExponent);
    bool all = true;
    for (int i = 0; i < kWidth; ++i) {
        all = all && good[i] != 0;
    }
    return all;
}

template <typename T, int kStates>
void scan_tile(Walk<T>& w, float* state, std::int64_t tokens) {
    const std::int64_t states = w.args.states;
    for (std::int64_t v = 0; v < w.piece.channels; v += kWidth) {
        const float* const rates = w.in.rates + (w.piece.first + v) * states;
        const auto walk = is_short(w, v, tokens, rates) ? recurrence<kStates, true>
                                                        : recurrence<kStates, false>;
        walk(tokens, states, rates, state + v * states, w.delta + v, w.du + v, w.sum + v, w.wide,
             w.b, w.c);
    }
}

//! Where the sums of the first phase are kept.
VIM_CPU_INLINE float* kept_sums(const ScanArgs& a) {
    return a.partial != nullptr ? a.partial : static_cast<float*>(a.y);
}

template <typename T>
void finish_tile(const Walk<T>& w, std::int64_t first, std::int64_t way, std::int64_t tokens) {
    const ScanArgs& a = w.args;
    const bool both = a.directions == 2;
    const T* const z = static_cast<const T*>(a.z);
    for (std::int64_t t = 0; t < tokens; ++t) {
        const std::int64_t row = w.piece.image * a.length + first + way * t;
        for (std::int64_t v = 0; v < w.piece.channels; v += kWidth) {
            const std::int64_t channel = w.piece.first + v;
            const std::int64_t left = a.channels - channel;
            const std::int64_t at = row * a.channels + channel;
            Floats sum = load(w.sum + t * w.wide + v);
            if (!w.piece.finishes) {
                store_some(kept_sums(a) + at, sum, left);
                continue;
            }
            sum = both ? sum + load_some(kept_sums(a) + at, left) : sum;
            sum = sum * splat(a.scale);
            if (z != nullptr) {
                sum = sum * silu(load_some(z + row * a.z_columns + channel, left));
            }
            store_some(static_cast<T*>(a.y) + at, sum, left);
        }
    }
}

template <typename T, int kStates>
void scan_piece(const ScanArgs& a, const ScanPiece& piece, float* scratch) {
    const std::int64_t wide = padded(piece.channels);
    Walk<T> w = {a, piece, a.direction[piece.direction], wide, piece.image * a.length, scratch,
                 scratch + kTile * wide, scratch + 2 * kTile * wide, scratch + 3 * kTile * wide,
                 scratch + kTile * (3 * wide + 2 * kMaxState), {}, {}};
    float* const state = a.state + ((piece.image * a.directions + piece.direction) *
                                        padded(a.channels) +
                                    piece.first) *
                                       a.states;
    if (piece.starts) {
        std::memset(state, 0, static_cast<std::size_t>(wide * a.states) * sizeof(float));
    }
    const std::int64_t way = w.in.backward != 0 ? -1 : 1;
    for (std::int64_t done = 0; done < piece.end - piece.begin; done += kTile) {
        const std::int64_t left = piece.end - piece.begin - done;
        const std::int64_t tokens = left < kTile ? left : kTile;
        const std::int64_t first = way > 0 ? piece.begin + done : piece.end - 1 - done;
        take_steps(w, first, way, tokens);
        scan_tile<T, kStates>(w, state, tokens);
        finish_tile(w, first, way, tokens);
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

template <typename T>
void pack_weights(const ScanArgs& args, const Direction& in) {
    const T* const weight = static_cast<const T*>(in.dt);
    for (std::int64_t channel = 0; channel < args.channels; ++channel) {
        float* const out =
            in.weights + channel / kWidth * kWidth * args.rank + channel % kWidth;
        for (std::int64_t j = 0; j < args.rank; ++j) {
            out[j * kWidth] = load_some(weight + channel * args.rank + j, 1)[0];
        }
    }
}

void prepare(const ScanArgs& args, std::int64_t direction) noexcept {
    const Direction& in = args.direction[direction];
    const std::int64_t wide = padded(args.channels);
    for (std::int64_t v = 0; v < wide; v += kWidth) {
        for (std::int64_t n = 0; n < args.states; ++n) {
            const std::int64_t left = args.channels - v;
            const Floats a = left > 0 ? load_some(in.A + n * args.channels + v, left) : Floats{};
            store(in.rates + v * args.states + n * kWidth, decay_rate(a));
        }
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
