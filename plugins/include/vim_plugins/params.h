//! Plain parameter structs of the kernels: device pointers, sizes, column offsets, flags.
//!
//! All tensors are dense, row-major and channels-last; T below is `type`, f is fp32. The structs
//! are standard-layout with fixed-width fields, so that ctypes can mirror them. The order is fixed
//! as well, since vim_deploy/plugin/kernels.py works it out: the contract's inputs and outputs,
//! float attributes, sizes, column offsets, flags, the type. Any C++17 compiler reads this, without
//! CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace vim_plugins {

//! Element type T of the activations. Weights, state and accumulators are always fp32.
enum class DataType : std::int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

//! One way to run an op. Ids are stable: TensorRT stores them in plans and timing caches.
enum class Tactic : std::int32_t {
    kDefault = 0,    //!< launch() picks default_tactic() for the current device
    kGeneric = 1,    //!< any shape the contract allows; one thread a channel
    kSerial = 2,     //!< serial in L, two channels x 16 states a thread: large B*D
    kChunked4 = 3,   //!< chunked in L, a block owns 4 channels: smallest B*D
    kChunked8 = 4,   //!< chunked in L, a block owns 8 channels
    kChunked16 = 5,  //!< chunked in L, a block owns 16 channels
    kVector = 6,     //!< convolution: 16-byte loads and stores
    kCluster4 =
        7,  //!< chunked, a pair of blocks (one a direction) owns 4 channels; sm_90 and newer
    kCluster8 = 8,  //!< the same, 8 channels
    kSerial1 = 9,   //!< serial in both directions, one channel a thread: twice as many blocks
};

//! The last of the ids.
inline constexpr Tactic kLastTactic = Tactic::kSerial1;

//! Upper bound of what tactics() writes.
inline constexpr std::int32_t kMaxTactics = 7;

//! VimSelectiveScan: one direction.
struct SelectiveScanParams {
    const void* u = nullptr;         //!< T[batch, length, channels]
    const void* dt = nullptr;        //!< T[batch, length, channels], before bias and softplus
    const float* A = nullptr;        //!< f[states, channels], negative, natural units
    const void* bc = nullptr;        //!< T[batch, length, bc_columns]
    const float* d_skip = nullptr;   //!< f[channels]
    const float* dt_bias = nullptr;  //!< f[channels]
    const void* z = nullptr;         //!< T[batch, length, z_columns]; read only when has_z
    void* y = nullptr;               //!< T[batch, length, channels]
    std::int32_t batch = 0;
    std::int32_t length = 0;
    std::int32_t channels = 0;
    std::int32_t states = 0;
    std::int32_t bc_columns = 0;
    std::int32_t z_columns = 0;
    std::int32_t b_off = 0;  //!< first column of B in bc
    std::int32_t c_off = 0;  //!< first column of C in bc
    std::int32_t z_off = 0;  //!< first column of the gate in z
    std::int32_t reverse = 0;
    std::int32_t delta_softplus = 1;
    std::int32_t has_z = 0;
    DataType type = DataType::kFloat32;
};

//! VimBiCausalConv: depthwise causal and anti-causal convolution, each followed by SiLU.
struct BiCausalConvParams {
    const void* xz = nullptr;     //!< T[batch, length, xz_columns]
    const float* w = nullptr;     //!< f[2, width, channels]
    const float* bias = nullptr;  //!< f[2, channels]
    void* u2 = nullptr;           //!< T[2, batch, length, channels]
    std::int32_t batch = 0;
    std::int32_t length = 0;
    std::int32_t channels = 0;
    std::int32_t width = 0;
    std::int32_t xz_columns = 0;
    std::int32_t x_off = 0;  //!< first column of x in xz
    DataType type = DataType::kFloat32;
};

//! VimBiSelectiveScan: both directions, the skip, the gate and the scaled sum.
struct BiSelectiveScanParams {
    const void* u2 = nullptr;       //!< T[2, batch, length, channels]
    const void* dt = nullptr;       //!< T[2, batch, length, channels], or dt_w T[2, channels, rank]
    const void* xdbl = nullptr;     //!< T[2, batch, length, xdbl_columns]
    const float* A = nullptr;       //!< f[2, states, channels]
    const float* d_skip = nullptr;  //!< f[2, channels]
    const float* dt_bias = nullptr;  //!< f[2, channels]
    const void* xz = nullptr;        //!< T[batch, length, xz_columns]
    void* y = nullptr;               //!< T[batch, length, channels]
    float scale = 1.0F;              //!< 0.5 when the model divides the sum by two
    std::int32_t batch = 0;
    std::int32_t length = 0;
    std::int32_t channels = 0;
    std::int32_t states = 0;
    std::int32_t xdbl_columns = 0;
    std::int32_t xz_columns = 0;
    std::int32_t rank = 0;    //!< r; read only when low_rank
    std::int32_t b_off = 0;   //!< first column of B in xdbl
    std::int32_t c_off = 0;   //!< first column of C in xdbl
    std::int32_t dt_off = 0;  //!< first of the rank columns of xdbl; read only when low_rank
    std::int32_t z_off = 0;   //!< first column of the gate in xz
    std::int32_t delta_softplus = 1;
    std::int32_t low_rank =
        0;  //!< 1: dt is dt_w, and dt[l, d] = sum_r dt_w[d, r] * xdbl[l, dt_off + r]
    DataType type = DataType::kFloat32;
};

//! VimSortedNms: greedy non-maximum suppression of sorted boxes within groups; fp32 alone.
struct SortedNmsParams {
    const float* boxes = nullptr;         //!< f[batch, count, 4]: x1, y1, x2, y2, by falling score
    const std::int64_t* group = nullptr;  //!< [batch, count], in [0, groups)
    const float* valid = nullptr;         //!< f[batch, count]: 1 or 0
    float* keep = nullptr;                //!< f[batch, count]: 1 or 0
    float iou_threshold = 0.5F;
    std::int32_t batch = 0;
    std::int32_t count = 0;
    std::int32_t groups = 1;
    DataType type = DataType::kFloat32;
};

//! Levels of the pyramid that VimPyramidRoiAlign reads: p2 to p5.
inline constexpr std::int32_t kLevels = 4;

//! VimPyramidRoiAlign: RoIAlign on the level of the pyramid that fits each box; fp32 alone.
struct PyramidRoiAlignParams {
    const float* maps[kLevels] = {};  //!< f[batch, channels, heights[i], widths[i]]
    const float* boxes = nullptr;     //!< f[batch, count, 4]: x1, y1, x2, y2 in pixels
    float* pooled = nullptr;          //!< f[batch * count, channels, output_size, output_size]
    float canonical_size = 224.0F;
    float spatial_scale = 0.25F;  //!< cells of p2 a pixel; half as many on each further level
    std::int32_t batch = 0;
    std::int32_t count = 0;
    std::int32_t channels = 0;
    std::int32_t heights[kLevels] = {};
    std::int32_t widths[kLevels] = {};
    std::int32_t output_size = 7;
    DataType type = DataType::kFloat32;
};

}  // namespace vim_plugins

//! Every op with kernels for GPUs and CPUs, once: X(Name, c_name) for NameParams, the op kName of
//! contract.h and the C functions vim_c_name_*. What must be said of each op (declarations,
//! instantiations, creators) loops over this list, in the order in which the library names its ops.
#define VIM_PLUGINS_OPS(X)           \
    X(SelectiveScan, selective_scan) \
    X(BiCausalConv, bi_causal_conv)  \
    X(BiSelectiveScan, bi_selective_scan)

//! The ops of detectors, in the same form, which have kernels for CPUs alone.
#define VIM_PLUGINS_REGION_OPS(X) \
    X(SortedNms, sorted_nms)      \
    X(PyramidRoiAlign, pyramid_roi_align)

//! Both lists.
#define VIM_PLUGINS_ALL_OPS(X) \
    VIM_PLUGINS_OPS(X)         \
    VIM_PLUGINS_REGION_OPS(X)

#define VIM_PLUGINS_ASSERT(Name, c_name) \
    static_assert(std::is_standard_layout_v<vim_plugins::Name##Params>);
VIM_PLUGINS_ALL_OPS(VIM_PLUGINS_ASSERT)
#undef VIM_PLUGINS_ASSERT
