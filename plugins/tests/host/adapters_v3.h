//! \file adapters_v3.h
//! What the checks of the IPluginV3 objects share.
#pragma once

#include "adapters_harness.h"

inline nvinfer1::IPluginCreatorV3One& creator_of(char const* op) {
    auto* creator =
        dynamic_cast<nvinfer1::IPluginCreatorV3One*>(registry().getCreator(op, "1", ""));
    if (creator == nullptr) {
        std::printf("FAILED no creator for %s\n", op);
        std::exit(1);
    }
    return *creator;
}

// A plugin with its three capabilities.
struct Plugin {
    explicit Plugin(nvinfer1::IPluginV3* object) : plugin(object) {
        if (object != nullptr) {
            core = static_cast<nvinfer1::IPluginV3OneCore*>(
                object->getCapabilityInterface(nvinfer1::PluginCapabilityType::kCORE));
            build = static_cast<nvinfer1::IPluginV3OneBuild*>(
                object->getCapabilityInterface(nvinfer1::PluginCapabilityType::kBUILD));
            runtime = static_cast<nvinfer1::IPluginV3OneRuntime*>(
                object->getCapabilityInterface(nvinfer1::PluginCapabilityType::kRUNTIME));
        }
    }
    explicit Plugin(Case const& node)
        : Plugin(creator_of(node.op).createPlugin("node", Fields(node).collection(),
                                                  nvinfer1::TensorRTPhase::kBUILD)) {}

    std::unique_ptr<nvinfer1::IPluginV3> plugin;
    nvinfer1::IPluginV3OneCore* core = nullptr;
    nvinfer1::IPluginV3OneBuild* build = nullptr;
    nvinfer1::IPluginV3OneRuntime* runtime = nullptr;
};

inline std::int32_t enqueue(Plugin const& node,
                            std::vector<nvinfer1::PluginTensorDesc> const& tensors,
                            Buffers const& buffers, void* workspace = nullptr) {
    auto const inputs = buffers.inputs();
    auto const outputs = buffers.outputs();
    return node.runtime->enqueue(tensors.data(), &tensors.back(), inputs.data(), outputs.data(),
                                 workspace, reinterpret_cast<cudaStream_t>(7));
}

//! Attributes, shapes and calls that must be refused (adapters_v3_refusals.cpp).
void check_bad_attributes();
void check_bad_shapes();
void check_bad_calls();
