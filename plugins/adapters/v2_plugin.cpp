//! \file v2_plugin.cpp
#include "v2_plugin.h"

#include <algorithm>
#include <stdexcept>

#include "attributes.h"
#include "logging.h"
#include "v2_fields.h"

namespace vim_plugins::adapters {

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

template <typename Params>
nvinfer1::IPluginV2DynamicExt* V2Plugin<Params>::clone() const noexcept {
    return guarded<nvinfer1::IPluginV2DynamicExt*>("clone", nullptr,
                                                   [this] { return new V2Plugin<Params>(*this); });
}

template <typename Params>
nvinfer1::DimsExprs V2Plugin<Params>::getOutputDimensions(
    std::int32_t outputIndex, nvinfer1::DimsExprs const* inputs, std::int32_t nbInputs,
    nvinfer1::IExprBuilder& exprBuilder) noexcept {
    nvinfer1::DimsExprs failure{};
    failure.nbDims = -1;
    return guarded("getOutputDimensions", failure, [&] {
        node_.require_counts(nbInputs, outputIndex + 1);
        return output_expressions(node_.op(), inputs, exprBuilder);
    });
}

template <typename Params>
bool V2Plugin<Params>::supportsFormatCombination(std::int32_t pos, PluginTensorDesc const* inOut,
                                                 std::int32_t nbInputs,
                                                 std::int32_t nbOutputs) noexcept {
    return guarded("supportsFormatCombination", false, [&] {
        node_.require_counts(nbInputs, nbOutputs);
        if (inOut == nullptr) {
            return false;
        }
        std::array<TensorType, kMaxInputs + 1> types{};
        for (std::int32_t i = 0; i <= pos && i <= nbInputs; ++i) {
            types[static_cast<std::size_t>(i)] = {inOut[i].type, inOut[i].format};
        }
        return node_.accepts(pos, types.data());
    });
}

template <typename Params>
void V2Plugin<Params>::configurePlugin(DynamicPluginTensorDesc const* in, std::int32_t nbInputs,
                                       DynamicPluginTensorDesc const* out,
                                       std::int32_t nbOutputs) noexcept {
    // There is no way to refuse here; enqueue() refuses what is reported now.
    guarded("configurePlugin", 0, [&] {
        static_cast<void>(out);
        node_.require_counts(nbInputs, nbOutputs);
        if (in == nullptr) {
            throw std::invalid_argument("no input descriptions were given");
        }
        std::vector<InputShapes> points(2);
        for (std::int32_t i = 0; i < nbInputs; ++i) {
            points[0][static_cast<std::size_t>(i)] = to_shape(in[i].min);
            points[1][static_cast<std::size_t>(i)] = to_shape(in[i].max);
        }
        node_.configure(points, in[0].desc.type);
        return 0;
    });
}

template <typename Params>
std::size_t V2Plugin<Params>::getWorkspaceSize(PluginTensorDesc const* inputs,
                                               std::int32_t nbInputs,
                                               PluginTensorDesc const* outputs,
                                               std::int32_t nbOutputs) const noexcept {
    return guarded<std::size_t>("getWorkspaceSize", 0, [&] {
        static_cast<void>(outputs);
        node_.require_counts(nbInputs, nbOutputs);
        if (inputs == nullptr) {
            throw std::invalid_argument("no input descriptions were given");
        }
        std::vector<InputShapes> points(1);
        for (std::int32_t i = 0; i < nbInputs; ++i) {
            points[0][static_cast<std::size_t>(i)] = to_shape(inputs[i].dims);
        }
        return node_.workspace(points, inputs[0].type);
    });
}

template <typename Params>
std::int32_t V2Plugin<Params>::enqueue(PluginTensorDesc const* inputDesc,
                                       PluginTensorDesc const* outputDesc,
                                       void const* const* inputs, void* const* outputs,
                                       void* workspace, cudaStream_t stream) noexcept {
    return guarded("enqueue", -1, [&] {
        node_.launch_on(inputDesc, outputDesc, inputs, outputs, workspace, stream);
        return 0;
    });
}

template <typename Params>
nvinfer1::DataType V2Plugin<Params>::getOutputDataType(std::int32_t index,
                                                       nvinfer1::DataType const* inputTypes,
                                                       std::int32_t nbInputs) const noexcept {
    return guarded("getOutputDataType", nvinfer1::DataType::kFLOAT, [&] {
        node_.require_counts(nbInputs, index + 1);
        return node_.output_type(inputTypes);
    });
}

template <typename Params>
char const* V2Plugin<Params>::getPluginType() const noexcept {
    return guarded("getPluginType", "", [this] { return node_.op().name; });
}

template <typename Params>
char const* V2Plugin<Params>::getPluginVersion() const noexcept {
    return kPluginVersion;
}

template <typename Params>
std::size_t V2Plugin<Params>::getSerializationSize() const noexcept {
    return guarded<std::size_t>("getSerializationSize", 0, [this] {
        return pack_fields(serialize_attributes(node_.op(), &node_.attributes())).size();
    });
}

template <typename Params>
void V2Plugin<Params>::serialize(void* buffer) const noexcept {
    guarded("serialize", 0, [&] {
        auto const bytes = pack_fields(serialize_attributes(node_.op(), &node_.attributes()));
        std::copy(bytes.begin(), bytes.end(), static_cast<unsigned char*>(buffer));
        return 0;
    });
}

template <typename Params>
void V2Plugin<Params>::setPluginNamespace(char const* pluginNamespace) noexcept {
    guarded("setPluginNamespace", 0, [&] {
        namespace_ = pluginNamespace == nullptr ? "" : pluginNamespace;
        return 0;
    });
}

template <typename Params>
char const* V2Plugin<Params>::getPluginNamespace() const noexcept {
    return namespace_.c_str();
}

#define VIM_PLUGINS_INSTANTIATE(Name, c_name) template class V2Plugin<Name##Params>;
VIM_PLUGINS_OPS(VIM_PLUGINS_INSTANTIATE)
#undef VIM_PLUGINS_INSTANTIATE

}  // namespace vim_plugins::adapters
