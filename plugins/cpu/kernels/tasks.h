//! What the kernels of each instruction set read, and the table of them. Internal.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"
#include "vim_plugins/contract.h"
#include "vim_plugins/params.h"

namespace vim_plugins::cpu {

//! Channels are padded to this in the workspace: the widest vector, and a cache line of fp32.
inline constexpr std::int64_t kLanes = 16;

//! Tokens whose step sizes are computed ahead of the recurrence.
inline constexpr std::int64_t kTile = 16;

//! Most channels of one piece: what a tile of them takes stays in the second-level cache.
inline constexpr std::int64_t kMaxGroup = 384;

//! Fewest channels that are worth a piece of their own.
inline constexpr std::int64_t kMinGroup = 64;

//! Of each file its own, as everything that is compiled for an instruction set: the linker keeps
//! one of several copies, for all of them.
static inline constexpr std::int64_t padded(std::int64_t channels) {
    return (channels + kLanes - 1) / kLanes * kLanes;
}

//! One direction's tensors, at its own first element.
struct Direction {
    const void* u;          //!< T[batch, length, channels]
    const void* dt;         //!< T[batch, length, channels], or T[channels, rank] with rank > 0
    const void* bc;         //!< T[batch, length, bc_columns]
    const float* A;         //!< f[states, channels]
    const float* d_skip;    //!< f[channels]
    const float* dt_bias;   //!< f[channels]
    float* rates;           //!< f[padded channels / V][states][V]: A in units of log2, finite
    float* longest;         //!< f[padded channels]: steps below it have short exponents
    float* weights;         //!< f[padded channels / V][rank][V]: dt_w
    std::int64_t backward;  //!< 1: from the last token to the first
};

//! Both scans. With two directions they meet in the middle (scan_driver.cpp).
struct ScanArgs {
    Direction direction[2];
    const void* z;  //!< the gate's first column, or null
    void* y;
    float* state;  //!< f[batch][directions][padded channels * states]: kept between the phases
    float*
        partial;  //!< f[batch, length, channels]: sums of the first phase; null when y holds them
    std::int64_t directions;
    std::int64_t batch;
    std::int64_t length;
    std::int64_t channels;
    std::int64_t states;
    std::int64_t bc_columns;
    std::int64_t z_columns;
    std::int64_t rank;  //!< 0: dt is given per token
    std::int64_t b_off;
    std::int64_t c_off;
    std::int64_t dt_off;
    float scale;
    bool delta_softplus;
    DataType type;
};

//! Channels [first, first + channels) of one image and direction over tokens [begin, end).
struct ScanPiece {
    std::int64_t image;
    std::int64_t direction;
    std::int64_t first;     //!< a multiple of kLanes
    std::int64_t channels;  //!< at most kMaxGroup
    std::int64_t begin;
    std::int64_t end;
    bool starts;    //!< the state is zero; else it is what the phase before left
    bool finishes;  //!< adds to the sums of the phase before, gates, and writes y
};

//! fp32 values of scratch that a piece wants: the rows of a tile.
static inline constexpr std::int64_t scratch_floats(std::int64_t rank) {
    return kTile * (2 * kMaxState + padded(rank));
}

struct ConvArgs {
    const void* x;  //!< the first column of x
    const float* w;
    const float* bias;
    void* u2;
    std::int64_t batch;
    std::int64_t length;
    std::int64_t channels;
    std::int64_t width;
    std::int64_t x_columns;
    DataType type;
};

//! The sorted boxes of one image, a column of each corner; padded with boxes that are not live.
struct NmsColumns {
    float* x1;
    float* y1;
    float* x2;
    float* y2;
    float* area;
    std::int32_t* group;
    std::int32_t* live;  //!< -1: may be kept, and nothing kept has suppressed it; 0
    float iou_threshold;
};

//! What one axis of a box takes from the cells of a map: of each of the output's rows or columns
//! the first cell, how many, and their weights, one after another.
struct AxisPlan {
    std::int32_t* first;
    std::int32_t* count;
    float* weights;
};

//! A box on its level; without a map it is zeros.
struct PoolBox {
    const float* map;  //!< channel 0 of the box's image
    float* out;        //!< f[channels, output_size, output_size]
    std::int64_t rows;
    std::int64_t columns;
    std::int64_t first;  //!< column of the map
    std::int64_t last;   //!< behind the last column that the box takes from
    AxisPlan y;
    AxisPlan x;
};

struct PoolArgs {
    const PoolBox* boxes;
    const std::int32_t* order;  //!< of the boxes, so that neighbours follow each other
    std::int64_t channels;
    std::int64_t output_size;
};

//! Channels [channel, last_channel) of boxes order[begin] to order[end - 1].
struct PoolPiece {
    std::int64_t channel;  //!< a multiple of kLanes
    std::int64_t last_channel;
    std::int64_t begin;
    std::int64_t end;
};

//! fp32 values of scratch that a piece wants for maps of so many columns: a row of the box, and the
//! output, of as many channels as a vector has.
static inline constexpr std::int64_t pool_scratch_floats(std::int64_t columns,
                                                         std::int64_t output_size) {
    return (padded(columns) + kLanes + padded(output_size * output_size)) * kLanes;
}

//! The kernels of one instruction set.
struct Kernels {
    const char* name;
    //! Fills rates, longest and weights of a direction.
    void (*prepare)(const ScanArgs& args, std::int64_t direction) noexcept;
    void (*scan)(const ScanArgs& args, const ScanPiece& piece, float* scratch) noexcept;
    //! Both directions of tokens [begin, end) of an image.
    void (*conv)(const ConvArgs& args, std::int64_t image, std::int64_t begin,
                 std::int64_t end) noexcept;
    //! In order, each live box of [first, last) suppresses what it overlaps of those behind it in
    //! [begin, end), which are multiples of kLanes.
    void (*suppress)(const NmsColumns& boxes, std::int64_t first, std::int64_t last,
                     std::int64_t begin, std::int64_t end) noexcept;
    void (*pool)(const PoolArgs& args, const PoolPiece& piece, float* scratch) noexcept;
};

#if defined(__x86_64__)
extern const Kernels kAvx512;
extern const Kernels kAvx2;
#endif
extern const Kernels kBaseline;

//! The kernels of the instruction set in use.
const Kernels& kernels() noexcept;

//! Those of this name, or null when this CPU does not run them or they are not compiled in.
const Kernels* kernels_named(const char* name) noexcept;

#define VIM_CPU_DECLARE(Name, c_name)                                                  \
    /*! run() of kernels.h with the kernels of a chosen instruction set. */            \
    void run_with(const Kernels& kernels, const Name##Params& params, void* workspace, \
                  const Executor& executor) noexcept;
VIM_PLUGINS_ALL_OPS(VIM_CPU_DECLARE)
#undef VIM_CPU_DECLARE

}  // namespace vim_plugins::cpu
