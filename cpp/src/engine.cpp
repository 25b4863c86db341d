//! \file engine.cpp
//! Which kind of file is opened, and what the public classes ask of what they hold.
#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "engine_impl.h"
#include "file.h"
#include "guard.h"
#include "half.h"

namespace vim_deploy {
namespace {

bool ends_with(std::string_view text, std::string_view end) noexcept {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// Engines by their name or their mark; ONNX files have no mark and are what is left, as in
// vim_deploy/artifact/file.py.
bool is_engine(std::string const& path) {
    std::string const start = first_bytes(path, 4);
    return ends_with(path, ".plan") || ends_with(path, ".engine") || start == "ftrt" ||
           start == "vtrt";
}

}  // namespace

bool ProfileRange::holds(Shape const& shape) const noexcept {
    bool inside = shape.size() == min.size();
    for (std::size_t i = 0; inside && i < shape.size(); ++i) {
        inside = shape[i] >= min[i] && shape[i] <= max[i];
    }
    return inside;
}

Engine::Engine(std::shared_ptr<Impl const> impl) : impl_(std::move(impl)) {}

Result<Engine> Engine::open(std::string const& path, EngineOptions const& options) {
    return guarded("opening the engine", [&]() -> Result<Engine> {
        auto const opened = is_engine(path) ? open_tensorrt(path, options)
                                            : open_onnx(path, options);
        if (!opened) {
            return opened.error();
        }
        return Engine(*opened);
    });
}

TensorInfo const& Engine::input() const noexcept {
    return impl_->input;
}

TensorInfo const* Engine::size() const noexcept {
    return impl_->size ? &*impl_->size : nullptr;
}

std::vector<TensorInfo> const& Engine::outputs() const noexcept {
    return impl_->outputs;
}

std::int64_t Engine::batch_for(std::int64_t count) const noexcept {
    std::int64_t fitting = 0;
    std::int64_t largest = 0;
    for (ProfileRange const& profile : impl_->profiles) {
        largest = std::max(largest, profile.max.front());
        std::int64_t const batch = std::max(profile.min.front(), count);
        if (batch <= profile.max.front() && (fitting == 0 || batch < fitting)) {
            fitting = batch;
        }
    }
    return fitting == 0 ? largest : fitting;
}

EngineRecord const* Engine::record() const noexcept {
    return impl_->record ? &*impl_->record : nullptr;
}

ExportInfo const* Engine::exported() const noexcept {
    return impl_->exported ? &*impl_->exported : nullptr;
}

std::string const& Engine::runs_with() const noexcept {
    return impl_->runs_with;
}

std::vector<std::string> const& Engine::notes() const noexcept {
    return impl_->notes;
}

Result<Session> Engine::create_session(SessionOptions const& options) const {
    return guarded("making a session", [&]() -> Result<Session> {
        auto made = impl_->make_session(impl_, options);
        if (!made) {
            return made.error();
        }
        return Session(std::move(made).value());
    });
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&& other) noexcept = default;
Session& Session::operator=(Session&& other) noexcept = default;
Session::~Session() = default;

namespace {

// A batch of float32 for an engine that takes float16; nothing where none has to be converted.
std::optional<Tensor> as_stored(TensorView const& batch, TensorInfo const& input) {
    bool const converts = input.type == DataType::kFloat16 && batch.type == DataType::kFloat32;
    std::size_t const bytes = bytes_of(batch.type, batch.shape);
    if (!converts || batch.data == nullptr || bytes == 0) {
        return std::nullopt;
    }
    return Tensor{input.name, DataType::kFloat16, batch.shape,
                  halves_of(batch.data, bytes / sizeof(float))};
}

}  // namespace

Result<std::vector<Tensor>> Session::infer(TensorView const& batch) {
    return guarded("running a batch", [&] {
        auto const stored = as_stored(batch, impl_->engine().input);
        return impl_->infer(stored ? TensorView(*stored) : batch, nullptr);
    });
}

Result<std::vector<Tensor>> Session::infer(TensorView const& batch,
                                           std::vector<PictureSize> const& sizes) {
    return guarded("running a batch", [&] {
        auto const stored = as_stored(batch, impl_->engine().input);
        return impl_->infer(stored ? TensorView(*stored) : batch, &sizes);
    });
}

Status Session::infer_on_device(TensorView const& batch, std::vector<void*> const& outputs,
                                Stream stream, void const* sizes) {
    return guarded("running a batch",
                   [&] { return impl_->infer_on_device(batch, sizes, outputs, stream); });
}

Result<std::vector<Shape>> Session::output_shapes(Shape const& input) {
    return guarded("asking for shapes", [&] { return impl_->output_shapes(input); });
}

Stream Session::stream() const noexcept {
    return impl_->stream();
}

}  // namespace vim_deploy
