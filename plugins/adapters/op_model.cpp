//! \file op_model.cpp
#include "op_model.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <stdexcept>

namespace vim_plugins::adapters {
namespace {

using Scan = SelectiveScanParams;
using Conv = BiCausalConvParams;
using BiScan = BiSelectiveScanParams;
using Nms = SortedNmsParams;
using Pooling = PyramidRoiAlignParams;

constexpr InputKind kT = InputKind::kActivation;
constexpr InputKind kF = InputKind::kFloat32;
constexpr InputKind kI = InputKind::kInt64;

// Positions in the contract's input lists.
enum ScanInput : std::int32_t { kScanU, kScanDt, kScanA, kScanBc, kScanSkip, kScanBias, kScanZ };
enum ConvInput : std::int32_t { kConvXz, kConvW, kConvB };
enum BiScanInput : std::int32_t { kBiU2, kBiDt, kBiXdbl, kBiA, kBiSkip, kBiBias, kBiXz };
enum NmsInput : std::int32_t { kNmsBoxes, kNmsGroup, kNmsValid };
//! p2 is the first of kLevels maps.
enum PoolingInput : std::int32_t { kPoolingMaps, kPoolingBoxes = kLevels };

template <std::size_t Count>
std::vector<Input> name_inputs(std::array<char const*, Count> const& names,
                               std::array<InputKind, Count> const& kinds) {
    std::vector<Input> inputs;
    for (std::size_t i = 0; i < Count; ++i) {
        inputs.push_back({names[i], kinds[i]});
    }
    return inputs;
}

// Reads sizes and compares them; each refusal names the op's input.
class SizeReader {
  public:
    SizeReader(OpDescription const& op, Shape const* inputs) : op_(op), inputs_(inputs) {}

    void require_rank(std::int32_t input, std::int32_t rank) const {
        Shape const& shape = inputs_[input];
        if (shape.rank != rank) {
            refuse(input, "has shape " + to_string(shape) + ", expected " + std::to_string(rank) +
                              " dimensions");
        }
    }

    std::int32_t size(std::int32_t input, std::int32_t dimension) const {
        std::int64_t const size = inputs_[input].size[static_cast<std::size_t>(dimension)];
        if (size < 0 || size > std::numeric_limits<std::int32_t>::max()) {
            refuse(input, "has shape " + to_string(inputs_[input]) +
                              "; every size must lie between 0 and 2^31 - 1");
        }
        return static_cast<std::int32_t>(size);
    }

    void require_shape(std::int32_t input, std::initializer_list<std::int32_t> expected) const {
        Shape wanted;
        for (std::int32_t const size : expected) {
            wanted.size[static_cast<std::size_t>(wanted.rank++)] = size;
        }
        Shape const& shape = inputs_[input];
        if (!(shape == wanted)) {
            refuse(input, "has shape " + to_string(shape) + ", expected " + to_string(wanted));
        }
    }

  private:
    [[noreturn]] void refuse(std::int32_t input, std::string const& what) const {
        throw std::invalid_argument(std::string(op_.name) + ": input " +
                                    op_.inputs[static_cast<std::size_t>(input)].name + " " + what);
    }

    OpDescription const& op_;
    Shape const* inputs_;
};

OpDescription make_scan() {
    return {kSelectiveScan,
            name_inputs<7>(kSelectiveScanInputs, {kT, kT, kF, kT, kF, kF, kT}),
            {{"reverse", AttributeKind::kFlag, offsetof(Scan, reverse)},
             {"delta_softplus", AttributeKind::kFlag, offsetof(Scan, delta_softplus)},
             {"b_off", AttributeKind::kOffset, offsetof(Scan, b_off)},
             {"c_off", AttributeKind::kOffset, offsetof(Scan, c_off)},
             {"z_off", AttributeKind::kOffset, offsetof(Scan, z_off)},
             {"has_z", AttributeKind::kFlag, offsetof(Scan, has_z)}},
            {{kScanU, 0}, {kScanU, 1}, {kScanU, 2}}};
}

OpDescription make_conv() {
    return {kBiCausalConv,
            name_inputs<3>(kBiCausalConvInputs, {kT, kF, kF}),
            {{"x_off", AttributeKind::kOffset, offsetof(Conv, x_off)}},
            {{-1, 2}, {kConvXz, 0}, {kConvXz, 1}, {kConvW, 2}}};
}

OpDescription make_bi_scan() {
    return {kBiSelectiveScan,
            name_inputs<7>(kBiSelectiveScanInputs, {kT, kT, kT, kF, kF, kF, kT}),
            {{"delta_softplus", AttributeKind::kFlag, offsetof(BiScan, delta_softplus)},
             {"b_off", AttributeKind::kOffset, offsetof(BiScan, b_off)},
             {"c_off", AttributeKind::kOffset, offsetof(BiScan, c_off)},
             {"dt_off", AttributeKind::kOffset, offsetof(BiScan, dt_off)},
             {"z_off", AttributeKind::kOffset, offsetof(BiScan, z_off)},
             {"low_rank", AttributeKind::kFlag, offsetof(BiScan, low_rank)},
             {"scale", AttributeKind::kScale, offsetof(BiScan, scale)}},
            {{kBiU2, 1}, {kBiU2, 2}, {kBiU2, 3}}};
}

OpDescription make_nms() {
    return {kSortedNms,
            name_inputs<3>(kSortedNmsInputs, {kF, kI, kF}),
            {{"iou_threshold", AttributeKind::kNumber, offsetof(Nms, iou_threshold)},
             {"groups", AttributeKind::kOffset, offsetof(Nms, groups)}},
            {{kNmsBoxes, 0}, {kNmsBoxes, 1}}};
}

OpDescription make_pooling() {
    return {kPyramidRoiAlign,
            name_inputs<5>(kPyramidRoiAlignInputs, {kF, kF, kF, kF, kF}),
            {{"output_size", AttributeKind::kOffset, offsetof(Pooling, output_size)},
             {"canonical_size", AttributeKind::kNumber, offsetof(Pooling, canonical_size)},
             {"spatial_scale", AttributeKind::kNumber, offsetof(Pooling, spatial_scale)}},
            {{-1, -1}, {kPoolingMaps, 1}, {-1, -1}, {-1, -1}}};
}

float const* as_float(void const* pointer) noexcept {
    return static_cast<float const*>(pointer);
}

}  // namespace

OpDescription const& describe(Scan const&) {
    static OpDescription const op = make_scan();
    return op;
}

OpDescription const& describe(Conv const&) {
    static OpDescription const op = make_conv();
    return op;
}

OpDescription const& describe(BiScan const&) {
    static OpDescription const op = make_bi_scan();
    return op;
}

OpDescription const& describe(Nms const&) {
    static OpDescription const op = make_nms();
    return op;
}

OpDescription const& describe(Pooling const&) {
    static OpDescription const op = make_pooling();
    return op;
}

std::int32_t input_count(Scan const& params) noexcept {
    return params.has_z != 0 ? 7 : 6;
}
std::int32_t input_count(Conv const&) noexcept {
    return 3;
}
std::int32_t input_count(BiScan const&) noexcept {
    return 7;
}
std::int32_t input_count(Nms const&) noexcept {
    return 3;
}
std::int32_t input_count(Pooling const&) noexcept {
    return kLevels + 1;
}

void set_sizes(Scan& params, Shape const* inputs) {
    SizeReader const read(describe(params), inputs);
    read.require_rank(kScanU, 3);
    read.require_rank(kScanA, 2);
    read.require_rank(kScanBc, 3);
    params.batch = read.size(kScanU, 0);
    params.length = read.size(kScanU, 1);
    params.channels = read.size(kScanU, 2);
    params.states = read.size(kScanA, 0);
    params.bc_columns = read.size(kScanBc, 2);
    read.require_shape(kScanDt, {params.batch, params.length, params.channels});
    read.require_shape(kScanA, {params.states, params.channels});
    read.require_shape(kScanBc, {params.batch, params.length, params.bc_columns});
    read.require_shape(kScanSkip, {params.channels});
    read.require_shape(kScanBias, {params.channels});
    params.z_columns = 0;
    if (params.has_z != 0) {
        read.require_rank(kScanZ, 3);
        params.z_columns = read.size(kScanZ, 2);
        read.require_shape(kScanZ, {params.batch, params.length, params.z_columns});
    }
}

void set_sizes(Conv& params, Shape const* inputs) {
    SizeReader const read(describe(params), inputs);
    read.require_rank(kConvXz, 3);
    read.require_rank(kConvW, 3);
    params.batch = read.size(kConvXz, 0);
    params.length = read.size(kConvXz, 1);
    params.xz_columns = read.size(kConvXz, 2);
    params.width = read.size(kConvW, 1);
    params.channels = read.size(kConvW, 2);
    read.require_shape(kConvW, {2, params.width, params.channels});
    read.require_shape(kConvB, {2, params.channels});
}

void set_sizes(BiScan& params, Shape const* inputs) {
    SizeReader const read(describe(params), inputs);
    read.require_rank(kBiU2, 4);
    read.require_rank(kBiXdbl, 4);
    read.require_rank(kBiA, 3);
    read.require_rank(kBiXz, 3);
    params.batch = read.size(kBiU2, 1);
    params.length = read.size(kBiU2, 2);
    params.channels = read.size(kBiU2, 3);
    params.states = read.size(kBiA, 1);
    params.xdbl_columns = read.size(kBiXdbl, 3);
    params.xz_columns = read.size(kBiXz, 2);
    read.require_shape(kBiU2, {2, params.batch, params.length, params.channels});
    params.rank = 0;
    if (params.low_rank != 0) {
        read.require_rank(kBiDt, 3);
        params.rank = read.size(kBiDt, 2);
        read.require_shape(kBiDt, {2, params.channels, params.rank});
    } else {
        read.require_shape(kBiDt, {2, params.batch, params.length, params.channels});
    }
    read.require_shape(kBiXdbl, {2, params.batch, params.length, params.xdbl_columns});
    read.require_shape(kBiA, {2, params.states, params.channels});
    read.require_shape(kBiSkip, {2, params.channels});
    read.require_shape(kBiBias, {2, params.channels});
    read.require_shape(kBiXz, {params.batch, params.length, params.xz_columns});
}

void set_sizes(Nms& params, Shape const* inputs) {
    SizeReader const read(describe(params), inputs);
    read.require_rank(kNmsBoxes, 3);
    params.batch = read.size(kNmsBoxes, 0);
    params.count = read.size(kNmsBoxes, 1);
    read.require_shape(kNmsBoxes, {params.batch, params.count, 4});
    read.require_shape(kNmsGroup, {params.batch, params.count});
    read.require_shape(kNmsValid, {params.batch, params.count});
}

void set_sizes(Pooling& params, Shape const* inputs) {
    SizeReader const read(describe(params), inputs);
    read.require_rank(kPoolingMaps, 4);
    read.require_rank(kPoolingBoxes, 3);
    params.batch = read.size(kPoolingMaps, 0);
    params.channels = read.size(kPoolingMaps, 1);
    params.count = read.size(kPoolingBoxes, 1);
    for (std::int32_t i = 0; i < kLevels; ++i) {
        read.require_rank(kPoolingMaps + i, 4);
        params.heights[i] = read.size(kPoolingMaps + i, 2);
        params.widths[i] = read.size(kPoolingMaps + i, 3);
        read.require_shape(kPoolingMaps + i,
                           {params.batch, params.channels, params.heights[i], params.widths[i]});
    }
    read.require_shape(kPoolingBoxes, {params.batch, params.count, 4});
}

void set_buffers(Scan& params, void const* const* inputs, void* output) noexcept {
    params.u = inputs[kScanU];
    params.dt = inputs[kScanDt];
    params.A = as_float(inputs[kScanA]);
    params.bc = inputs[kScanBc];
    params.d_skip = as_float(inputs[kScanSkip]);
    params.dt_bias = as_float(inputs[kScanBias]);
    params.z = params.has_z != 0 ? inputs[kScanZ] : nullptr;
    params.y = output;
}

void set_buffers(Conv& params, void const* const* inputs, void* output) noexcept {
    params.xz = inputs[kConvXz];
    params.w = as_float(inputs[kConvW]);
    params.bias = as_float(inputs[kConvB]);
    params.u2 = output;
}

void set_buffers(BiScan& params, void const* const* inputs, void* output) noexcept {
    params.u2 = inputs[kBiU2];
    params.dt = inputs[kBiDt];
    params.xdbl = inputs[kBiXdbl];
    params.A = as_float(inputs[kBiA]);
    params.d_skip = as_float(inputs[kBiSkip]);
    params.dt_bias = as_float(inputs[kBiBias]);
    params.xz = inputs[kBiXz];
    params.y = output;
}

void set_buffers(Nms& params, void const* const* inputs, void* output) noexcept {
    params.boxes = as_float(inputs[kNmsBoxes]);
    params.group = static_cast<std::int64_t const*>(inputs[kNmsGroup]);
    params.valid = as_float(inputs[kNmsValid]);
    params.keep = static_cast<float*>(output);
}

void set_buffers(Pooling& params, void const* const* inputs, void* output) noexcept {
    for (std::int32_t i = 0; i < kLevels; ++i) {
        params.maps[i] = as_float(inputs[kPoolingMaps + i]);
    }
    params.boxes = as_float(inputs[kPoolingBoxes]);
    params.pooled = static_cast<float*>(output);
}

Shape output_shape(OpDescription const& op, Shape const* inputs) noexcept {
    Shape shape;
    for (OutputDimension const& dimension : op.output) {
        std::int64_t const size =
            dimension.input < 0
                ? dimension.value
                : inputs[dimension.input].size[static_cast<std::size_t>(dimension.value)];
        shape.size[static_cast<std::size_t>(shape.rank++)] = size;
    }
    return shape;
}

Shape output_shape_of(Pooling const& params, Shape const* inputs) noexcept {
    Shape shape = output_shape(describe(params), inputs);
    shape.size[0] = std::int64_t{params.batch} * params.count;
    shape.size[2] = shape.size[3] = params.output_size;
    return shape;
}

bool operator==(Shape const& left, Shape const& right) noexcept {
    return left.rank == right.rank &&
           std::equal(left.size.begin(), left.size.begin() + left.rank, right.size.begin());
}

std::string to_string(Shape const& shape) {
    std::string text = "[";
    for (std::int32_t i = 0; i < shape.rank; ++i) {
        text += (i == 0 ? "" : ", ") + std::to_string(shape.size[static_cast<std::size_t>(i)]);
    }
    return text + "]";
}

}  // namespace vim_plugins::adapters
