//! \file v2_plugin.h
//! IPluginV2DynamicExt adapter, for TensorRT 8.6. It has no tactics: the kernels' own rule chooses.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "op_node.h"

namespace vim_plugins::adapters {

//! One node as TensorRT 8.6 sees it. Methods report what is wrong through the logger and return
//! failure; none throws.
template <typename Params>
class V2Plugin : public nvinfer1::IPluginV2DynamicExt {
  public:
    explicit V2Plugin(OpNode<Params> const& node) : node_(node) {}

    nvinfer1::IPluginV2DynamicExt* clone() const noexcept override;
    nvinfer1::DimsExprs getOutputDimensions(std::int32_t outputIndex,
                                            nvinfer1::DimsExprs const* inputs,
                                            std::int32_t nbInputs,
                                            nvinfer1::IExprBuilder& exprBuilder) noexcept override;
    bool supportsFormatCombination(std::int32_t pos, nvinfer1::PluginTensorDesc const* inOut,
                                   std::int32_t nbInputs, std::int32_t nbOutputs) noexcept override;
    void configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, std::int32_t nbInputs,
                         nvinfer1::DynamicPluginTensorDesc const* out,
                         std::int32_t nbOutputs) noexcept override;
    std::size_t getWorkspaceSize(nvinfer1::PluginTensorDesc const* inputs, std::int32_t nbInputs,
                                 nvinfer1::PluginTensorDesc const* outputs,
                                 std::int32_t nbOutputs) const noexcept override;
    std::int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDesc,
                         nvinfer1::PluginTensorDesc const* outputDesc, void const* const* inputs,
                         void* const* outputs, void* workspace,
                         cudaStream_t stream) noexcept override;

    nvinfer1::DataType getOutputDataType(std::int32_t index, nvinfer1::DataType const* inputTypes,
                                         std::int32_t nbInputs) const noexcept override;

    char const* getPluginType() const noexcept override;
    char const* getPluginVersion() const noexcept override;
    std::int32_t getNbOutputs() const noexcept override { return 1; }
    std::int32_t initialize() noexcept override { return 0; }
    void terminate() noexcept override {}
    std::size_t getSerializationSize() const noexcept override;
    void serialize(void* buffer) const noexcept override;
    void destroy() noexcept override { delete this; }
    void setPluginNamespace(char const* pluginNamespace) noexcept override;
    char const* getPluginNamespace() const noexcept override;

  private:
    OpNode<Params> node_;
    std::string namespace_ = kPluginNamespace;
};

}  // namespace vim_plugins::adapters
