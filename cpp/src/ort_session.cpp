//! \file ort_session.cpp
//! Running an ONNX file in ONNX Runtime.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>

#include "guard.h"
#include "ort_engine.h"

namespace vim_deploy {
namespace {

// As vim_deploy/errors.py has them: words that say that memory ran out, whoever says it.
bool says_no_memory(std::string words) {
    std::transform(words.begin(), words.end(), words.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    auto const says = [&words](char const* part) { return words.find(part) != std::string::npos; };
    return says("allocate memory") || says("bad_alloc") || says("bad allocation") ||
           says("bfcarena") || says("out of memory") || says("failed to allocate") ||
           says("cannot allocate");
}

class OrtRun : public Session::Impl {
  public:
    explicit OrtRun(std::shared_ptr<OrtEngine const> owner) : owner_(std::move(owner)) {}

    Engine::Impl const& engine() const noexcept override { return *owner_; }

    Result<std::vector<Tensor>> infer(TensorView const& batch,
                                      std::vector<PictureSize> const* given) override {
        VIM_DEPLOY_TRY(owner_->check_batch(batch));
        VIM_DEPLOY_TRY(check_shape(batch.shape));
        VIM_DEPLOY_TRY(owner_->check_sizes(batch, given));
        std::vector<std::byte> sizes;
        std::vector<OwnedValue> inputs;
        VIM_DEPLOY_TRY(add(inputs, batch.type, batch.shape, const_cast<void*>(batch.data)));
        std::vector<char const*> input_names{owner_->input.name.c_str()};
        if (owner_->size) {
            Shape const shape = shape_of_sizes(batch.shape);
            sizes.resize(bytes_of(owner_->size->type, shape));
            owner_->write_sizes(sizes.data(), batch.shape[0], given);
            VIM_DEPLOY_TRY(add(inputs, owner_->size->type, shape, sizes.data()));
            input_names.push_back(kSizeInput);
        }
        return run(input_names, inputs);
    }

    Status infer_on_device(TensorView const&, void const*, std::vector<void*> const&,
                           Stream) override {
        return Error{"VIM-203", owner_->path + " does not run on a device",
                     "ONNX Runtime runs it on the CPU", "call infer, or open an engine"};
    }

    Result<std::vector<Shape>> output_shapes(Shape const& shape) override {
        VIM_DEPLOY_TRY(check_shape(shape));
        std::vector<Shape> shapes;
        for (TensorInfo const& output : owner_->outputs) {
            Shape found = output.shape;
            if (!found.empty() && found[0] == -1) {
                found[0] = shape[0];
            }
            if (bytes_of(output.type, found) == 0) {
                return Error{"VIM-415", "the shape of " + output.name + " is not known",
                             "the file says " + text_of(output.shape),
                             "run a batch, and look at what comes"};
            }
            shapes.push_back(std::move(found));
        }
        return shapes;
    }

    Stream stream() const noexcept override { return nullptr; }

  private:
    Status check_shape(Shape const& shape) const {
        ProfileRange const& range = owner_->profiles.front();
        if (range.holds(shape) && bytes_of(owner_->input.type, shape) != 0) {
            return Done{};
        }
        return Error{"VIM-415", "the file does not take a batch of shape " + text_of(shape),
                     "its input " + owner_->input.name + " is " + text_of(owner_->input.shape),
                     "prepare pictures as the file says: vim-deploy inspect MODEL.onnx"};
    }

    Error failed(std::string const& words) const {
        bool const memory = says_no_memory(words);
        return {memory ? "VIM-904" : "VIM-409",
                memory ? "out of memory: running " + owner_->path
                       : owner_->path + " fails in ONNX Runtime",
                words.substr(0, words.find('\n')),
                memory ? "use a smaller batch, or free memory"
                       : "export the model again; what the file asks of its operators cannot be "
                         "done"};
    }

    Status done(OrtStatus* status) const {
        std::string const words = words_of(api(), status);
        return words.empty() ? Status(Done{}) : Status(failed(words));
    }

    OrtApi const* api() const noexcept { return owner_->runtime->api; }

    // A tensor over the caller's memory, which ONNX Runtime reads and does not keep.
    Status add(std::vector<OwnedValue>& to, DataType type, Shape const& shape, void* data) const {
        OrtMemoryInfo* memory = nullptr;
        VIM_DEPLOY_TRY(done(ort::CreateCpuMemoryInfo(api())(ort::kArenaAllocator,
                                                            ort::kMemoryDefault, &memory)));
        OwnedMemoryInfo const owned(memory, {api()});
        OrtValue* value = nullptr;
        VIM_DEPLOY_TRY(done(ort::CreateTensorWithDataAsOrtValue(api())(
            memory, data, bytes_of(type, shape), shape.data(), shape.size(), element_of(type),
            &value)));
        to.emplace_back(value, OrtReleaser<ort::ReleaseValue>{api()});
        return Done{};
    }

    Result<std::vector<Tensor>> run(std::vector<char const*> const& input_names,
                                    std::vector<OwnedValue> const& inputs) const {
        std::vector<OrtValue const*> given;
        for (OwnedValue const& value : inputs) {
            given.push_back(value.get());
        }
        std::vector<char const*> names;
        for (TensorInfo const& output : owner_->outputs) {
            names.push_back(output.name.c_str());
        }
        std::vector<OrtValue*> results(names.size(), nullptr);
        auto const ran = done(ort::Run(api())(owner_->session.get(), nullptr, input_names.data(),
                                              given.data(), given.size(), names.data(),
                                              names.size(), results.data()));
        std::vector<OwnedValue> owned;
        for (OrtValue* value : results) {
            owned.emplace_back(value, OrtReleaser<ort::ReleaseValue>{api()});
        }
        if (!ran) {
            return ran.error();
        }
        std::vector<Tensor> tensors;
        for (std::size_t k = 0; k < owned.size(); ++k) {
            auto tensor = read(owner_->outputs[k], owned[k].get());
            if (!tensor) {
                return tensor.error();
            }
            tensors.push_back(std::move(tensor).value());
        }
        return tensors;
    }

    Result<Tensor> read(TensorInfo const& info, OrtValue* value) const {
        OrtTensorTypeAndShapeInfo* raw = nullptr;
        VIM_DEPLOY_TRY(done(ort::GetTensorTypeAndShape(api())(value, &raw)));
        OwnedShape const owned(raw, {api()});
        int element = 0;
        std::size_t axes = 0;
        VIM_DEPLOY_TRY(done(ort::GetTensorElementType(api())(raw, &element)));
        VIM_DEPLOY_TRY(done(ort::GetDimensionsCount(api())(raw, &axes)));
        Shape shape(axes);
        VIM_DEPLOY_TRY(done(ort::GetDimensions(api())(raw, shape.data(), axes)));
        if (element != element_of(info.type)) {
            return failed("the output " + info.name + " is not of the type that the file says");
        }
        Tensor tensor{info.name, info.type, shape, {}};
        // Nothing for an output without elements, such as no detections.
        tensor.bytes.resize(bytes_of(info.type, shape));
        void* data = nullptr;
        VIM_DEPLOY_TRY(done(ort::GetTensorMutableData(api())(value, &data)));
        if (!tensor.bytes.empty()) {
            std::memcpy(tensor.bytes.data(), data, tensor.bytes.size());
        }
        return tensor;
    }

    std::shared_ptr<OrtEngine const> owner_;
};

}  // namespace

Result<std::unique_ptr<Session::Impl>> OrtEngine::make_session(
    std::shared_ptr<Engine::Impl const> self, SessionOptions const& options) const {
    if (options.cuda_graph) {
        return Error{"VIM-203", "CUDA graphs are for engines, and " + path + " is an ONNX file",
                     "ONNX Runtime runs it on the CPU",
                     "open the session without SessionOptions::cuda_graph"};
    }
    return std::unique_ptr<Session::Impl>(
        std::make_unique<OrtRun>(std::static_pointer_cast<OrtEngine const>(std::move(self))));
}

}  // namespace vim_deploy
