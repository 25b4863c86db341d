//! \file v2_creator.h
//! Creators of the IPluginV2DynamicExt adapters.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <string>
#include <vector>

#include "op_node.h"

namespace vim_plugins::adapters {

//! Makes the plugins of one op, from a network's attributes or from a plan's bytes.
template <typename Params>
class V2Creator : public nvinfer1::IPluginCreator {
  public:
    V2Creator();

    char const* getPluginName() const noexcept override { return name_; }
    char const* getPluginVersion() const noexcept override { return kPluginVersion; }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override {
        return &collection_;
    }
    nvinfer1::IPluginV2* createPlugin(
        char const* name, nvinfer1::PluginFieldCollection const* fields) noexcept override;
    nvinfer1::IPluginV2* deserializePlugin(char const* name, void const* serialData,
                                           std::size_t serialLength) noexcept override;
    void setPluginNamespace(char const* pluginNamespace) noexcept override;
    char const* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

  private:
    nvinfer1::IPluginV2* make(nvinfer1::PluginFieldCollection const* fields) const;

    char const* name_;
    std::string namespace_ = kPluginNamespace;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace vim_plugins::adapters
