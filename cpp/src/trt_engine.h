//! \file trt_engine.h
//! An engine of TensorRT, and TensorRT's shapes and types as ours.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine_impl.h"

#if NV_TENSORRT_MAJOR < 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR < 6)
#error "TensorRT 8.6 or later is needed"
#endif

//! Whether the contexts of a session can share one buffer through functions that TensorRT 11 has
//! too; otherwise each context takes its own.
#define VIM_DEPLOY_SHARED_SCRATCH \
    (NV_TENSORRT_MAJOR > 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 3))

namespace vim_deploy {

struct TensorRtEngine : Engine::Impl {
    int device = 0;
    // The engine must go before the runtime that made it.
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    //! Contexts are made and given back by one thread at a time.
    mutable std::mutex context_mutex;

    TensorRtEngine() = default;
    ~TensorRtEngine() override;

    Result<std::unique_ptr<Session::Impl>> make_session(
        std::shared_ptr<Engine::Impl const> self, SessionOptions const& options) const override;

    Status load(std::vector<char> const& plan, EngineOptions const& options, bool has_plugin);
    Status read_tensors();
    Status read_profiles();
    Status check_against_record() const;
};

Shape shape_of(nvinfer1::Dims const& dims);
nvinfer1::Dims dims_of(Shape const& shape);
//! Nothing for types that this library does not pass on.
std::optional<DataType> type_of(nvinfer1::DataType type) noexcept;

}  // namespace vim_deploy
