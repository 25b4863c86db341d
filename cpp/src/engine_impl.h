//! \file engine_impl.h
//! What every engine and session has, whatever runs it. `trt_engine.h` and `ort_engine.h` have the
//! two kinds; which of them a program holds is decided when it is linked (`no_tensorrt.cpp`) and
//! when a file is opened (`engine.cpp`).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vim_deploy/runtime.h"

namespace vim_deploy {

//! Shapes of the input that one optimisation profile takes.
struct ProfileRange {
    Shape min, opt, max;

    bool holds(Shape const& shape) const noexcept;
};

struct Engine::Impl {
    std::string path;
    std::optional<EngineRecord> record;
    //! What the file, or the engine's record, says of its model.
    std::optional<ExportInfo> exported;
    //! What runs it, and what is to be said of that.
    std::string runs_with;
    std::vector<std::string> notes;
    TensorInfo input;
    //! Of a detector: height and width of each picture inside its input.
    std::optional<TensorInfo> size;
    std::vector<TensorInfo> outputs;
    std::vector<ProfileRange> profiles;

    Impl() = default;
    Impl(Impl const&) = delete;
    Impl& operator=(Impl const&) = delete;
    virtual ~Impl() = default;

    //! `self` is this, as the session keeps it.
    virtual Result<std::unique_ptr<Session::Impl>> make_session(
        std::shared_ptr<Impl const> self, SessionOptions const& options) const = 0;

    //! Takes the picture input and, of a detector, the one for sizes. What is wrong with others, in
    //! words; empty when nothing is.
    std::string sort_inputs(std::vector<TensorInfo> inputs);
    //! VIM-415 for a batch of another type, or none.
    Status check_batch(TensorView const& batch) const;
    //! VIM-415 for sizes that do not belong to the batch, or are not within the input.
    Status check_sizes(TensorView const& batch, std::vector<PictureSize> const* given) const;
    //! The sizes as the engine takes them; pictures without sizes fill the input.
    void write_sizes(void* to, std::int64_t batch, std::vector<PictureSize> const* given) const;
};

struct Session::Impl {
    Impl() = default;
    Impl(Impl const&) = delete;
    Impl& operator=(Impl const&) = delete;
    virtual ~Impl() = default;

    virtual Engine::Impl const& engine() const noexcept = 0;
    virtual Result<std::vector<Tensor>> infer(TensorView const& batch,
                                              std::vector<PictureSize> const* given) = 0;
    virtual Status infer_on_device(TensorView const& batch, void const* sizes_there,
                                   std::vector<void*> const& results, Stream on) = 0;
    virtual Result<std::vector<Shape>> output_shapes(Shape const& input) = 0;
    virtual Stream stream() const noexcept = 0;
};

//! Name of the input for the sizes of pictures (vim_deploy/artifact/metadata.py, SIZE_INPUT).
constexpr char const* kSizeInput = "size";
//! The shape of that input for a batch of this shape.
Shape shape_of_sizes(Shape const& batch);

//! The shape of the input that a preparation makes, with a free batch.
Shape prepared_shape(ExportInfo const& exported);

using OpenedEngine = Result<std::shared_ptr<Engine::Impl const>>;

//! Opens an engine of TensorRT; VIM-301 in a program that was built without TensorRT.
OpenedEngine open_tensorrt(std::string const& path, EngineOptions const& options);

//! Opens an ONNX file with ONNX Runtime.
OpenedEngine open_onnx(std::string const& path, EngineOptions const& options);

}  // namespace vim_deploy
