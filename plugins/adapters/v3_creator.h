//! \file v3_creator.h
//! Creators of the IPluginV3 adapters.
#pragma once

#include <NvInferRuntime.h>

#include <vector>

#include "op_model.h"

namespace vim_plugins::adapters {

//! Makes the plugins of one op, from a network's attributes or from a plan's.
template <typename Params>
class V3Creator : public nvinfer1::IPluginCreatorV3One {
  public:
    V3Creator();

    nvinfer1::IPluginV3* createPlugin(char const* name,
                                      nvinfer1::PluginFieldCollection const* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override {
        return &collection_;
    }
    char const* getPluginName() const noexcept override { return name_; }
    char const* getPluginVersion() const noexcept override { return kPluginVersion; }
    char const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

  private:
    char const* name_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace vim_plugins::adapters
