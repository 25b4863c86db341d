//! \file adapters_fakes.h
//! What the fakes of the adapters' harness share: the record of launches and the fake TensorRT.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

//! The last launch of a kernel.
struct FakeLaunches {
    std::int32_t count = 0;
    std::string kernel;
    void* stream = nullptr;
    void* output = nullptr;
    //! Of the scans: u, dt, A, bc, d_skip, dt_bias, z of the first direction that runs; of the
    //! convolution: x, w, bias. In the order of the public parameter structs.
    std::vector<void const*> inputs;
    std::int32_t batch = 0;
    std::int32_t length = 0;
    std::int32_t channels = 0;
    bool reverse_only = false;
    float scale = 0.0F;
    bool has_device = true;
    bool has_clusters = true;
    std::int32_t status = 0;  //!< what the next launches return
};

//! Exported by the library under test.
extern "C" FakeLaunches* fake_launches();

//! One message of the fake TensorRT's logger.
struct FakeMessage {
    nvinfer1::ILogger::Severity severity;
    std::string text;
};

//! What the fake TensorRT shows of itself.
struct FakeTensorRt {
    std::vector<FakeMessage> messages;
    std::vector<nvinfer1::IPluginCreatorInterface*> creators;
    std::int32_t refused = 0;  //!< registrations refused as duplicates
};

//! Exported by the fake libnvinfer.so beside getPluginRegistry(), getLogger() and
//! getInferLibVersion().
extern "C" FakeTensorRt* fake_tensorrt();
