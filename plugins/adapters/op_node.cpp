//! \file op_node.cpp
#include "op_node.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "attributes.h"
#include "library_info.h"
#include "vim_plugins/ops.h"

namespace vim_plugins::adapters {
namespace {

using nvinfer1::PluginTensorDesc;

std::optional<DataType> activation_type(nvinfer1::DataType type) noexcept {
    if (type == nvinfer1::DataType::kFLOAT) {
        return DataType::kFloat32;
    }
    if (type == nvinfer1::DataType::kHALF) {
        return DataType::kFloat16;
    }
#if NV_TENSORRT_MAJOR >= 9
    if (type == nvinfer1::DataType::kBF16) {
        return DataType::kBFloat16;
    }
#endif
    return std::nullopt;
}

// 1 when no device can be asked: the tactics are then those for the smallest GPU, and only their
// order depends on it.
std::int32_t multiprocessor_count() noexcept {
    int device = 0;
    int count = 0;
    bool const known =
        cudaGetDevice(&device) == cudaSuccess &&
        cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess;
    if (!known) {
        static_cast<void>(cudaGetLastError());  // ours; it must not fail a later call of the host
    }
    return known && count > 0 ? count : 1;
}

[[noreturn]] void refuse(OpDescription const& op, std::string const& what) {
    throw std::invalid_argument(std::string(op.name) + ": " + what);
}

}  // namespace

Shape to_shape(nvinfer1::Dims const& dims) {
    Shape shape;
    if (dims.nbDims < 0 || dims.nbDims > static_cast<std::int32_t>(shape.size.size())) {
        throw std::invalid_argument("a tensor has an unknown number of dimensions");
    }
    shape.rank = dims.nbDims;
    std::copy_n(dims.d, dims.nbDims, shape.size.begin());
    return shape;
}

nvinfer1::DimsExprs output_expressions(OpDescription const& op, nvinfer1::DimsExprs const* inputs,
                                       nvinfer1::IExprBuilder& builder) {
    if (inputs == nullptr) {
        refuse(op, "no input shapes were given");
    }
    nvinfer1::DimsExprs output{};
    for (OutputDimension const& dimension : op.output) {
        nvinfer1::IDimensionExpr const* size = nullptr;
        if (dimension.input < 0) {
            size = builder.constant(dimension.value);
        } else if (dimension.value < inputs[dimension.input].nbDims) {
            size = inputs[dimension.input].d[dimension.value];
        }
        if (size == nullptr) {
            refuse(op, std::string("the output's shape cannot be told from input ") +
                           op.inputs[static_cast<std::size_t>(std::max(dimension.input, 0))].name);
        }
        output.d[output.nbDims++] = size;
    }
    return output;
}

template <typename Params>
OpNode<Params>::OpNode(nvinfer1::PluginFieldCollection const* fields) {
    parse_attributes(op(), fields, &attributes_);
}

template <typename Params>
void OpNode<Params>::require_counts(std::int32_t inputs, std::int32_t outputs) const {
    if (inputs != this->inputs() || outputs != 1) {
        refuse(op(), "has " + std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
                         " outputs, expected " + std::to_string(this->inputs()) +
                         " and 1 with these attributes");
    }
}

template <typename Params>
bool OpNode<Params>::accepts(std::int32_t position, TensorType const* types) const {
    if (position < 0 || position > inputs()) {
        return false;
    }
    TensorType const& tensor = types[position];
    if (tensor.format != nvinfer1::TensorFormat::kLINEAR) {
        return false;
    }
    bool const is_output = position == inputs();
    if (!is_output && op().inputs[static_cast<std::size_t>(position)].kind == InputKind::kFloat32) {
        return tensor.type == nvinfer1::DataType::kFLOAT;
    }
    // Input 0 is an activation of every op and sets T.
    return position == 0 ? activation_type(tensor.type).has_value() : tensor.type == types[0].type;
}

template <typename Params>
nvinfer1::DataType OpNode<Params>::output_type(nvinfer1::DataType const* inputs) const {
    if (inputs == nullptr || !activation_type(inputs[0])) {
        refuse(op(), std::string("input ") + op().inputs[0].name +
                         " must have type float32, float16 or bfloat16");
    }
    return inputs[0];
}

template <typename Params>
Params OpNode<Params>::resolve(InputShapes const& shapes, nvinfer1::DataType type) const {
    std::optional<DataType> const kernel_type = activation_type(type);
    if (!kernel_type) {
        refuse(op(), "activations must have type float32, float16 or bfloat16");
    }
    Params params = attributes_;
    params.type = *kernel_type;
    set_sizes(params, shapes.data());
    if (char const* fault = validate_shape(params)) {
        refuse(op(), fault);
    }
    return params;
}

template <typename Params>
Params OpNode<Params>::resolve(PluginTensorDesc const* inputs,
                               PluginTensorDesc const* outputs) const {
    if (inputs == nullptr || outputs == nullptr) {
        refuse(op(), "no tensor descriptions were given");
    }
    std::array<TensorType, kMaxInputs + 1> types{};
    InputShapes shapes;
    std::int32_t const count = this->inputs();
    for (std::int32_t i = 0; i <= count; ++i) {
        auto const at = static_cast<std::size_t>(i);
        PluginTensorDesc const& tensor = i == count ? outputs[0] : inputs[i];
        types[at] = {tensor.type, tensor.format};
        if (!accepts(i, types.data())) {
            refuse(op(), std::string(i == count ? "the output" : op().inputs[at].name) +
                             " has a type or format that is not supported");
        }
        if (i < count) {
            shapes[at] = to_shape(tensor.dims);
        }
    }
    Params const params = resolve(shapes, inputs[0].type);
    Shape const expected = output_shape(op(), shapes.data());
    Shape const given = to_shape(outputs[0].dims);
    if (!(given == expected)) {
        refuse(op(),
               "the output has shape " + to_string(given) + ", expected " + to_string(expected));
    }
    return params;
}

template <typename Params>
void OpNode<Params>::configure(std::vector<InputShapes> const& points, nvinfer1::DataType type) {
    std::vector<Params> resolved;
    for (InputShapes const& shapes : points) {
        resolved.push_back(resolve(shapes, type));
    }
    std::int32_t const sm_count = multiprocessor_count();
    std::vector<std::int32_t> ids;
    for (Params const& params : resolved) {
        std::array<Tactic, kMaxTactics> offered{};
        std::int32_t const count = tactics(params, sm_count, offered.data(), kMaxTactics);
        for (std::int32_t i = 0; i < count; ++i) {
            Tactic const tactic = offered[static_cast<std::size_t>(i)];
            auto const id = static_cast<std::int32_t>(tactic);
            bool const everywhere =
                std::all_of(resolved.begin(), resolved.end(),
                            [tactic](Params const& other) { return supports(other, tactic); });
            if (everywhere && std::find(ids.begin(), ids.end(), id) == ids.end()) {
                ids.push_back(id);
            }
        }
    }
    tactic_ids_ = std::move(ids);
}

template <typename Params>
void OpNode<Params>::set_tactic(std::int32_t tactic) {
    if (tactic < 0 || tactic > static_cast<std::int32_t>(kLastTactic)) {
        refuse(op(), "tactic " + std::to_string(tactic) + " is not known");
    }
    tactic_ = static_cast<Tactic>(tactic);
}

template <typename Params>
std::size_t OpNode<Params>::workspace(std::vector<InputShapes> const& points,
                                      nvinfer1::DataType type) const {
    std::size_t bytes = 0;
    for (InputShapes const& shapes : points) {
        bytes = std::max(bytes, workspace_bytes(resolve(shapes, type), Tactic::kDefault));
    }
    return bytes;
}

template <typename Params>
void OpNode<Params>::launch_on(PluginTensorDesc const* input_types,
                               PluginTensorDesc const* output_types, void const* const* inputs,
                               void* const* outputs, void* workspace, cudaStream_t stream) const {
    Params params = resolve(input_types, output_types);
    if (inputs == nullptr || outputs == nullptr) {
        refuse(op(), "no buffers were given");
    }
    set_buffers(params, inputs, outputs[0]);
    if (char const* fault = validate(params)) {
        refuse(op(), fault);
    }
    // A tactic timed at one shape of the profile may not know another one.
    Tactic const tactic = supports(params, tactic_) ? tactic_ : Tactic::kDefault;
    cudaError_t const status = launch(params, tactic, workspace, stream);
    if (status != cudaSuccess) {
        throw std::runtime_error(std::string(op().name) + ": the kernel was not launched: " +
                                 cudaGetErrorName(status) + ", " + cudaGetErrorString(status));
    }
}

template <typename Params>
std::string OpNode<Params>::timing_key() const {
    return attribute_text(op(), &attributes_) + ";kernels=" + kernel_version();
}

#define VIM_PLUGINS_INSTANTIATE(Name, c_name) template class OpNode<Name##Params>;
VIM_PLUGINS_OPS(VIM_PLUGINS_INSTANTIATE)
#undef VIM_PLUGINS_INSTANTIATE

}  // namespace vim_plugins::adapters
