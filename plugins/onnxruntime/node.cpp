//! \file node.cpp
#include "node.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "adapters/op_model.h"
#include "calls.h"
#include "vim_plugins/validate.h"

namespace vim_plugins::ort {
namespace {

using adapters::Attribute;
using adapters::AttributeKind;
using adapters::describe;
using adapters::input_count;
using adapters::OpDescription;
using adapters::output_shape_of;
using adapters::set_buffers;
using adapters::set_sizes;
using adapters::Shape;

constexpr std::size_t kMaxInputs = 7;

[[noreturn]] void refuse(OpDescription const& op, std::string const& what) {
    throw std::invalid_argument(std::string(op.name) + ": " + what);
}

// A missing attribute and one of another type are told apart by ONNX Runtime's words alone.
template <typename Value, typename Entry>
Value read(OrtApi const* api, OrtKernelInfo const* info, OpDescription const& op, char const* name,
           Entry entry, char const* kind) {
    Value value{};
    try {
        check(api, entry(info, name, &value));
    } catch (std::runtime_error const& error) {
        refuse(op, std::string("attribute ") + name + " is missing or not " + kind + ": " +
                       error.what());
    }
    return value;
}

template <typename Value>
void store(Value value, Attribute const& attribute, void* params) noexcept {
    std::memcpy(static_cast<char*>(params) + attribute.offset, &value, sizeof(value));
}

void read_attribute(OrtApi const* api, OrtKernelInfo const* info, OpDescription const& op,
                    Attribute const& attribute, void* params) {
    std::string const name = std::string("attribute ") + attribute.name;
    bool const scale = attribute.kind == AttributeKind::kScale;
    if (scale || attribute.kind == AttributeKind::kNumber) {
        auto const value = read<float>(api, info, op, attribute.name,
                                       KernelInfoGetAttribute_float(api), "a float");
        if (scale && (!std::isfinite(value) || value == 0.0F)) {
            refuse(op, name + " must be finite and not 0");
        }
        store(value, attribute, params);
        return;
    }
    auto const value = read<std::int64_t>(api, info, op, attribute.name,
                                          KernelInfoGetAttribute_int64(api), "an integer");
    if (attribute.kind == AttributeKind::kFlag && value != 0 && value != 1) {
        refuse(op, name + " is " + std::to_string(value) + ", must be 0 or 1");
    }
    if (value < 0 || value > std::numeric_limits<std::int32_t>::max()) {
        refuse(op, name + " is " + std::to_string(value) + ", must lie between 0 and 2^31 - 1");
    }
    store(static_cast<std::int32_t>(value), attribute, params);
}

Shape read_shape(OrtApi const* api, OpDescription const& op, char const* input,
                 OrtValue const* value) {
    OrtTensorTypeAndShapeInfo* raw = nullptr;
    check(api, GetTensorTypeAndShape(api)(value, &raw));
    TensorInfo const info(raw, {api});
    std::size_t rank = 0;
    check(api, GetDimensionsCount(api)(info.get(), &rank));
    Shape shape;
    if (rank > shape.size.size()) {
        refuse(op, std::string("input ") + input + " has " + std::to_string(rank) + " dimensions");
    }
    shape.rank = static_cast<std::int32_t>(rank);
    check(api, GetDimensions(api)(info.get(), shape.size.data(), rank));
    return shape;
}

}  // namespace

template <typename Params>
Node<Params>::Node(OrtApi const* api, OrtKernelInfo const* info, DataType type,
                   std::unique_ptr<Device> device)
    : api_(api), device_(std::move(device)) {
    OpDescription const& op = describe(attributes_);
    for (Attribute const& attribute : op.attributes) {
        read_attribute(api, info, op, attribute, &attributes_);
    }
    attributes_.type = type;
}

template <typename Params>
void Node<Params>::compute(OrtKernelContext* context) const {
    Params params = attributes_;
    OpDescription const& op = describe(params);
    std::size_t given = 0;
    check(api_, KernelContext_GetInputCount(api_)(context, &given));
    auto const wanted = static_cast<std::size_t>(input_count(params));
    std::array<Shape, kMaxInputs> shapes;
    std::array<void const*, kMaxInputs> buffers{};
    for (std::size_t i = 0; i < wanted; ++i) {
        OrtValue const* value = nullptr;
        if (i < given) {
            check(api_, KernelContext_GetInput(api_)(context, i, &value));
        }
        if (value == nullptr) {
            refuse(op, std::string("input ") + op.inputs[i].name + " is missing");
        }
        shapes[i] = read_shape(api_, op, op.inputs[i].name, value);
        void* data = nullptr;  // the one entry for data has no form for values that are only read
        check(api_, GetTensorMutableData(api_)(const_cast<OrtValue*>(value), &data));
        buffers[i] = data;
    }
    set_sizes(params, shapes.data());
    // An empty batch is no fault: the output is empty as well.
    Params checked = params;
    checked.batch = params.batch == 0 ? 1 : params.batch;
    if (char const* fault = validate_shape(checked)) {
        refuse(op, fault);
    }
    Shape const shape = output_shape_of(params, shapes.data());
    bool const empty = std::find(shape.size.begin(), shape.size.begin() + shape.rank, 0) !=
                       shape.size.begin() + shape.rank;
    OrtValue* output = nullptr;
    check(api_, KernelContext_GetOutput(api_)(context, 0, shape.size.data(),
                                              static_cast<std::size_t>(shape.rank), &output));
    if (empty) {
        return;
    }
    void* data = nullptr;
    check(api_, GetTensorMutableData(api_)(output, &data));
    set_buffers(params, buffers.data(), data);
    device_->run(params, context);
}

#define VIM_PLUGINS_INSTANTIATE(Name, c_name) template class Node<Name##Params>;
VIM_ORT_OPS(VIM_PLUGINS_INSTANTIATE)
#undef VIM_PLUGINS_INSTANTIATE

}  // namespace vim_plugins::ort
