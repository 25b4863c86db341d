//! \file engine_impl.h
//! What an engine holds, and TensorRT's shapes and types as ours.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "vim_deploy/runtime.h"

#if NV_TENSORRT_MAJOR < 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR < 6)
#error "TensorRT 8.6 or later is needed"
#endif

//! Whether the contexts of a session can share one buffer through functions that TensorRT 11 has
//! too; otherwise each context takes its own.
#define VIM_DEPLOY_SHARED_SCRATCH \
    (NV_TENSORRT_MAJOR > 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 3))

namespace vim_deploy {

//! Shapes of the input that one optimisation profile takes.
struct ProfileRange {
    Shape min, opt, max;

    bool holds(Shape const& shape) const noexcept;
};

struct Engine::Impl {
    std::string path;
    int device = 0;
    std::optional<EngineRecord> record;
    // The engine must go before the runtime that made it.
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    TensorInfo input;
    //! Of a detector: height and width of each picture inside its input.
    std::optional<TensorInfo> size;
    std::vector<TensorInfo> outputs;
    std::vector<ProfileRange> profiles;
    //! Contexts are made and given back by one thread at a time.
    mutable std::mutex context_mutex;

    Impl() = default;
    Impl(Impl const&) = delete;
    Impl& operator=(Impl const&) = delete;
    ~Impl();

    Status load(std::vector<char> const& plan, EngineOptions const& options, bool has_plugin);
    Status read_tensors();
    Status sort_inputs(std::vector<TensorInfo> inputs);
    Status read_profiles();
    Status check_against_record() const;
};

//! Name of the input for the sizes of pictures (vim_deploy/artifact/metadata.py, SIZE_INPUT).
constexpr char const* kSizeInput = "size";
//! The shape of that input for a batch of this shape.
Shape shape_of_sizes(Shape const& batch);

Shape shape_of(nvinfer1::Dims const& dims);
nvinfer1::Dims dims_of(Shape const& shape);
//! Nothing for types that this library does not pass on.
std::optional<DataType> type_of(nvinfer1::DataType type) noexcept;

}  // namespace vim_deploy
