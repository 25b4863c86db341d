//! \file v3_plugin.cpp
#include "v3_plugin.h"

#include <algorithm>
#include <stdexcept>

#include "attributes.h"
#include "logging.h"

namespace vim_plugins::adapters {
namespace {

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

constexpr std::int32_t kOk = 0;
constexpr std::int32_t kFailed = -1;

// The inputs' shapes at the minimum, the optimum and the maximum of the profile.
std::vector<InputShapes> profile_points(DynamicPluginTensorDesc const* inputs, std::int32_t count) {
    if (inputs == nullptr) {
        throw std::invalid_argument("no input descriptions were given");
    }
    std::vector<InputShapes> points(3);
    for (std::int32_t i = 0; i < count; ++i) {
        auto const at = static_cast<std::size_t>(i);
        points[0][at] = to_shape(inputs[i].min);
        points[1][at] = to_shape(inputs[i].opt);
        points[2][at] = to_shape(inputs[i].max);
    }
    return points;
}

// Those of the points that are known in full. TensorRT asks for the workspace while it runs as
// well, when there is a shape and no profile.
std::vector<InputShapes> known_points(DynamicPluginTensorDesc const* inputs, std::int32_t count) {
    std::vector<InputShapes> points = profile_points(inputs, count);
    points.emplace_back();
    for (std::int32_t i = 0; i < count; ++i) {
        points.back()[static_cast<std::size_t>(i)] = to_shape(inputs[i].desc.dims);
    }
    auto const is_unknown = [count](InputShapes const& shapes) {
        return std::any_of(shapes.begin(), shapes.begin() + count, [](Shape const& shape) {
            return shape.rank == 0 ||
                   std::any_of(shape.size.begin(), shape.size.begin() + shape.rank,
                               [](std::int64_t size) { return size < 1; });
        });
    };
    points.erase(std::remove_if(points.begin(), points.end(), is_unknown), points.end());
    if (points.empty()) {
        throw std::invalid_argument("no input shapes are known");
    }
    return points;
}

}  // namespace

template <typename Params>
nvinfer1::IPluginCapability* V3Plugin<Params>::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE:
            return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD:
            return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME:
            return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    report_error(getPluginName(), "an unknown plugin capability was asked for");
    return nullptr;
}

template <typename Params>
nvinfer1::IPluginV3* V3Plugin<Params>::clone() noexcept {
    return guarded<nvinfer1::IPluginV3*>("clone", nullptr,
                                         [this] { return new V3Plugin<Params>(node_); });
}

template <typename Params>
char const* V3Plugin<Params>::getPluginName() const noexcept {
    return guarded("getPluginName", "", [this] { return node_.op().name; });
}

template <typename Params>
char const* V3Plugin<Params>::getPluginVersion() const noexcept {
    return kPluginVersion;
}

template <typename Params>
char const* V3Plugin<Params>::getPluginNamespace() const noexcept {
    return kPluginNamespace;
}

template <typename Params>
std::int32_t V3Plugin<Params>::configurePlugin(DynamicPluginTensorDesc const* in,
                                               std::int32_t nbInputs,
                                               DynamicPluginTensorDesc const* out,
                                               std::int32_t nbOutputs) noexcept {
    return guarded("configurePlugin", kFailed, [&] {
        static_cast<void>(out);
        node_.require_counts(nbInputs, nbOutputs);
        std::vector<InputShapes> const points = profile_points(in, nbInputs);
        node_.configure(points, in[0].desc.type);
        return kOk;
    });
}

template <typename Params>
std::int32_t V3Plugin<Params>::getOutputDataTypes(nvinfer1::DataType* outputTypes,
                                                  std::int32_t nbOutputs,
                                                  nvinfer1::DataType const* inputTypes,
                                                  std::int32_t nbInputs) const noexcept {
    return guarded("getOutputDataTypes", kFailed, [&] {
        node_.require_counts(nbInputs, nbOutputs);
        if (outputTypes == nullptr) {
            throw std::invalid_argument("no place for the output types was given");
        }
        outputTypes[0] = node_.output_type(inputTypes);
        return kOk;
    });
}

template <typename Params>
std::int32_t V3Plugin<Params>::getOutputShapes(nvinfer1::DimsExprs const* inputs,
                                               std::int32_t nbInputs,
                                               nvinfer1::DimsExprs const* shapeInputs,
                                               std::int32_t nbShapeInputs,
                                               nvinfer1::DimsExprs* outputs, std::int32_t nbOutputs,
                                               nvinfer1::IExprBuilder& exprBuilder) noexcept {
    return guarded("getOutputShapes", kFailed, [&] {
        static_cast<void>(shapeInputs);
        static_cast<void>(nbShapeInputs);
        node_.require_counts(nbInputs, nbOutputs);
        if (outputs == nullptr) {
            throw std::invalid_argument("no place for the output shapes was given");
        }
        outputs[0] = output_expressions(node_.op(), inputs, exprBuilder);
        return kOk;
    });
}

template <typename Params>
bool V3Plugin<Params>::supportsFormatCombination(std::int32_t pos,
                                                 DynamicPluginTensorDesc const* inOut,
                                                 std::int32_t nbInputs,
                                                 std::int32_t nbOutputs) noexcept {
    return guarded("supportsFormatCombination", false, [&] {
        node_.require_counts(nbInputs, nbOutputs);
        if (inOut == nullptr) {
            return false;
        }
        std::array<TensorType, kMaxInputs + 1> types{};
        for (std::int32_t i = 0; i <= pos && i <= nbInputs; ++i) {
            types[static_cast<std::size_t>(i)] = {inOut[i].desc.type, inOut[i].desc.format};
        }
        return node_.accepts(pos, types.data());
    });
}

template <typename Params>
std::size_t V3Plugin<Params>::getWorkspaceSize(DynamicPluginTensorDesc const* inputs,
                                               std::int32_t nbInputs,
                                               DynamicPluginTensorDesc const* outputs,
                                               std::int32_t nbOutputs) const noexcept {
    return guarded<std::size_t>("getWorkspaceSize", 0, [&] {
        static_cast<void>(outputs);
        node_.require_counts(nbInputs, nbOutputs);
        std::vector<InputShapes> const points = known_points(inputs, nbInputs);
        return node_.workspace(points, inputs[0].desc.type);
    });
}

template <typename Params>
std::int32_t V3Plugin<Params>::getValidTactics(std::int32_t* tactics,
                                               std::int32_t nbTactics) noexcept {
    return guarded("getValidTactics", kFailed, [&] {
        std::vector<std::int32_t> const& ids = node_.tactic_ids();
        bool const fits = nbTactics >= 0 && nbTactics <= static_cast<std::int32_t>(ids.size());
        if (!fits || (tactics == nullptr && nbTactics > 0)) {
            throw std::invalid_argument("the room for tactics does not fit their number");
        }
        std::copy_n(ids.begin(), nbTactics, tactics);  // the best guesses come first
        return kOk;
    });
}

template <typename Params>
std::int32_t V3Plugin<Params>::getNbTactics() noexcept {
    return static_cast<std::int32_t>(node_.tactic_ids().size());
}

template <typename Params>
char const* V3Plugin<Params>::getTimingCacheID() noexcept {
    // A null id turns timing caching off for this node, which is the safe answer to a failure.
    return guarded<char const*>("getTimingCacheID", nullptr, [this] {
        if (timing_key_.empty()) {
            timing_key_ = node_.timing_key();
        }
        return timing_key_.c_str();
    });
}

template <typename Params>
char const* V3Plugin<Params>::getMetadataString() noexcept {
    return getTimingCacheID();
}

template <typename Params>
std::int32_t V3Plugin<Params>::setTactic(std::int32_t tactic) noexcept {
    return guarded("setTactic", kFailed, [&] {
        node_.set_tactic(tactic);
        return kOk;
    });
}

template <typename Params>
std::int32_t V3Plugin<Params>::onShapeChange(PluginTensorDesc const* in, std::int32_t nbInputs,
                                             PluginTensorDesc const* out,
                                             std::int32_t nbOutputs) noexcept {
    return guarded("onShapeChange", kFailed, [&] {
        node_.require_counts(nbInputs, nbOutputs);
        static_cast<void>(node_.resolve(in, out));
        return kOk;
    });
}

template <typename Params>
std::int32_t V3Plugin<Params>::enqueue(PluginTensorDesc const* inputDesc,
                                       PluginTensorDesc const* outputDesc,
                                       void const* const* inputs, void* const* outputs,
                                       void* workspace, cudaStream_t stream) noexcept {
    return guarded("enqueue", kFailed, [&] {
        node_.launch_on(inputDesc, outputDesc, inputs, outputs, workspace, stream);
        return kOk;
    });
}

template <typename Params>
nvinfer1::IPluginV3* V3Plugin<Params>::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
    return clone();
}

template <typename Params>
nvinfer1::PluginFieldCollection const* V3Plugin<Params>::getFieldsToSerialize() noexcept {
    return guarded<nvinfer1::PluginFieldCollection const*>("getFieldsToSerialize", nullptr, [this] {
        if (fields_.empty()) {  // the contract's version is always among them
            fields_ = serialize_attributes(node_.op(), &node_.attributes());
            collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
        }
        return &collection_;
    });
}

#define VIM_PLUGINS_INSTANTIATE(Name, c_name) template class V3Plugin<Name##Params>;
VIM_PLUGINS_OPS(VIM_PLUGINS_INSTANTIATE)
#undef VIM_PLUGINS_INSTANTIATE

}  // namespace vim_plugins::adapters
