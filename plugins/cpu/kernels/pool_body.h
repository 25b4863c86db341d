//! RoIAlign of boxes whose samples have become weights of rows and columns.
//!
//! The average of bilinear samples on a grid is separable: rows of the output are sums of rows of
//! the map, and columns of those sums of columns. The first sums have columns of the map in their
//! lanes, as they lie in memory, one vector for each of kWidth channels; transposed, the second
//! ones have these channels.
#pragma once

#include "tasks.h"
#include "vectors.h"

namespace vim_plugins::cpu {
namespace {

// Two vectors a, b as a0 b0 a1 b1 ..., the lower or the upper half of it.
#if VIM_CPU_WIDTH == 16
#define VIM_CPU_LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define VIM_CPU_UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif VIM_CPU_WIDTH == 8
#define VIM_CPU_LOWER 0, 8, 1, 9, 2, 10, 3, 11
#define VIM_CPU_UPPER 4, 12, 5, 13, 6, 14, 7, 15
#else
#define VIM_CPU_LOWER 0, 4, 1, 5
#define VIM_CPU_UPPER 2, 6, 3, 7
#endif
#if defined(__clang__)
#define VIM_CPU_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define VIM_CPU_PICK(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

//! kWidth vectors as a matrix, to its transpose: each round interleaves the rows of its halves,
//! which turns the bits of an element's place, row before column, by one.
VIM_CPU_INLINE void transpose(Floats* rows) {
#pragma GCC unroll 4
    for (int round = 1; round < kWidth; round *= 2) {
        Floats next[kWidth];
#pragma GCC unroll 8
        for (int i = 0; i < kWidth / 2; ++i) {
            next[2 * i] = VIM_CPU_PICK(rows[i], rows[i + kWidth / 2], VIM_CPU_LOWER);
            next[2 * i + 1] = VIM_CPU_PICK(rows[i], rows[i + kWidth / 2], VIM_CPU_UPPER);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; ++i) {
            rows[i] = next[i];
        }
    }
}

//! kWidth channels of a box, from `channel` on.
struct PoolWalk {
    const PoolBox& box;
    const float* map;       //!< the first channel and row, and the column `first`
    std::int64_t plane;     //!< elements of a channel
    std::int64_t left;      //!< channels from `channel` on
    std::int64_t first;     //!< column of lane 0 of the first vector
    std::int64_t vectors;   //!< of columns
    std::int64_t in_row;    //!< columns from `first` on to the end of the map's row
    std::int64_t out_size;  //!< o

    PoolWalk(const PoolArgs& args, const PoolBox& b, std::int64_t channel)
        : box(b),
          plane(b.rows * b.columns),
          left(args.channels - channel),
          vectors((b.last - b.first + kWidth - 1) / kWidth),
          out_size(args.output_size) {
        // Whole vectors that end in the row, where it has so many columns; what they hold too much
        // of is not looked at.
        const std::int64_t latest = b.columns - vectors * kWidth;
        first = b.first < latest ? b.first : latest > 0 ? latest : 0;
        in_row = b.columns - first;
        map = b.map + channel * plane + first;
    }

    //! Whether every load is of a whole vector, of channels that there are.
    bool is_whole() const { return left >= kWidth && in_row >= vectors * kWidth; }
};

//! The sums over rows for row p of the output: to sums[column - first][channel].
template <bool kWhole>
VIM_CPU_INLINE void sum_rows(const PoolWalk& walk, std::int64_t p, const float* weights,
                             float* sums) {
    const std::int64_t rows = walk.box.y.count[p];
    const float* const top = walk.map + walk.box.y.first[p] * walk.box.columns;
    for (std::int64_t v = 0; v < walk.vectors; ++v) {
        Floats sum[kWidth] = {};
        for (std::int64_t r = 0; r < rows; ++r) {
            const Floats weight = splat(weights[r]);
            const float* const at = top + r * walk.box.columns + v * kWidth;
#pragma GCC unroll 16
            for (int k = 0; k < kWidth; ++k) {
                if constexpr (kWhole) {
                    sum[k] = fma(weight, load(at + k * walk.plane), sum[k]);
                } else if (k < walk.left) {
                    sum[k] = fma(weight, load_some(at + k * walk.plane, walk.in_row - v * kWidth),
                                 sum[k]);
                }
            }
        }
        transpose(sum);
#pragma GCC unroll 16
        for (int k = 0; k < kWidth; ++k) {
            store(sums + (v * kWidth + k) * kWidth, sum[k]);
        }
    }
}

//! The sums over columns, from sums[column - first][channel] to tile[q][channel].
VIM_CPU_INLINE void sum_columns(const PoolWalk& walk, const float* sums, float* tile) {
    const float* weights = walk.box.x.weights;
    for (std::int64_t q = 0; q < walk.out_size; ++q) {
        const std::int64_t columns = walk.box.x.count[q];
        const std::int64_t from = walk.box.x.first[q] - walk.first;
        Floats sum{};
        for (std::int64_t i = 0; i < columns; ++i) {
            sum = fma(splat(weights[i]), load(sums + (from + i) * kWidth), sum);
        }
        store(tile + q * kWidth, sum);
        weights += columns;
    }
}

//! From tile[place][channel] to out[channel][place].
VIM_CPU_INLINE void put(const float* tile, std::int64_t places, std::int64_t channels, float* out) {
    for (std::int64_t i = 0; i < places; i += kWidth) {
        // The last vector ends with the channel: what it writes again are the same values.
        const std::int64_t at = i + kWidth > places && places > kWidth ? places - kWidth : i;
        Floats part[kWidth];
#pragma GCC unroll 16
        for (int k = 0; k < kWidth; ++k) {
            part[k] = load(tile + (at + k) * kWidth);
        }
        transpose(part);
        for (std::int64_t k = 0; k < channels; ++k) {
            store_some(out + k * places + at, part[k], places - at);
        }
    }
}

template <bool kWhole>
void pool_box(const PoolWalk& walk, std::int64_t channel, float* sums, float* tile) {
    const float* weights = walk.box.y.weights;
    for (std::int64_t p = 0; p < walk.out_size; ++p) {
        sum_rows<kWhole>(walk, p, weights, sums);
        sum_columns(walk, sums, tile + p * walk.out_size * kWidth);
        weights += walk.box.y.count[p];
    }
    const std::int64_t places = walk.out_size * walk.out_size;
    put(tile, places, walk.left < kWidth ? walk.left : kWidth, walk.box.out + channel * places);
}

void pool(const PoolArgs& args, const PoolPiece& piece, float* scratch) noexcept {
    const std::int64_t places = args.output_size * args.output_size;
    float* const tile = scratch;
    float* const sums = scratch + padded(places) * kWidth;
    for (std::int64_t c = piece.channel; c < piece.last_channel; c += kWidth) {
        for (std::int64_t i = piece.begin; i < piece.end; ++i) {
            const PoolBox& box = args.boxes[args.order[i]];
            if (box.map == nullptr) {
                const std::int64_t left = args.channels - c;
                const std::int64_t count = (left < kWidth ? left : kWidth) * places;
                std::memset(box.out + c * places, 0,
                            static_cast<std::size_t>(count) * sizeof(float));
                continue;
            }
            const PoolWalk walk(args, box, c);
            if (walk.is_whole()) {
                pool_box<true>(walk, c, sums, tile);
            } else {
                pool_box<false>(walk, c, sums, tile);
            }
        }
    }
}

}  // namespace
}  // namespace vim_plugins::cpu
