//! \file session.cpp
//! Running an engine: copies, enqueueing and CUDA graphs.
#include "session_impl.h"

#include <algorithm>
#include <cstring>

#include "guard.h"
#include "logger.h"

namespace vim_deploy {

void Session::Impl::drain() const noexcept {
    if (stream.get() != nullptr) {
        static_cast<void>(cudaStreamSynchronize(stream.get()));
    }
    if (finished.get() != nullptr) {
        static_cast<void>(cudaEventSynchronize(finished.get()));
    }
}

Status Session::Impl::check_batch(TensorView const& batch) const {
    if (batch.type != owner->input.type || batch.data == nullptr) {
        return Error{"VIM-415", "the batch does not fit the input " + owner->input.name,
                     batch.data == nullptr ? std::string("it is a null pointer")
                                           : std::string("it holds ") + name_of(batch.type) +
                                                 ", the engine takes " + name_of(owner->input.type),
                     "prepare it as the engine's record says"};
    }
    return Done{};
}

namespace {

// Height and width of the pictures that fill an input.
PictureSize full_size(TensorInfo const& input) {
    std::size_t const first = input.type == DataType::kUint8 ? 1 : 2;  // bytes have channels last
    return {input.shape[first], input.shape[first + 1]};
}

}  // namespace

Status Session::Impl::check_sizes(TensorView const& batch,
                                  std::vector<PictureSize> const* given) const {
    if (given == nullptr) {
        return Done{};
    }
    if (!owner->size) {
        return Error{"VIM-415", "the engine takes no sizes of pictures",
                     "its only input is " + owner->input.name, "give the batch alone"};
    }
    PictureSize const full = full_size(owner->input);
    if (batch.shape.empty() || static_cast<std::int64_t>(given->size()) != batch.shape[0]) {
        return Error{"VIM-415", "there is not one size for each picture",
                     std::to_string(given->size()) + " sizes for the batch " + text_of(batch.shape),
                     "give height and width of each picture within the input"};
    }
    for (PictureSize const& size : *given) {
        if (size.height < 0 || size.width < 0 || size.height > full.height ||
            size.width > full.width) {
            return Error{"VIM-415", "a size is not within the input",
                         text_of({size.height, size.width}) + ", the input has " +
                             text_of({full.height, full.width}),
                         "give height and width of each picture within the input"};
        }
    }
    return Done{};
}

// Into page-locked memory, as the engine wants them; pictures without sizes fill the input.
void Session::Impl::write_sizes(std::int64_t batch, std::vector<PictureSize> const* given) const {
    PictureSize const full = full_size(owner->input);
    for (std::int64_t i = 0; i < batch; ++i) {
        PictureSize const& size = given == nullptr ? full : (*given)[static_cast<std::size_t>(i)];
        if (owner->size->type == DataType::kInt64) {
            auto* out = static_cast<std::int64_t*>(sizes.host.get()) + 2 * i;
            out[0] = size.height;
            out[1] = size.width;
        } else {
            auto* out = static_cast<std::int32_t*>(sizes.host.get()) + 2 * i;
            out[0] = static_cast<std::int32_t>(size.height);
            out[1] = static_cast<std::int32_t>(size.width);
        }
    }
}

Status Session::Impl::bind(Slot& slot, void const* batch, void const* picture_sizes,
                           std::vector<void*> const& results) const {
    LogCapture const log;
    // TensorRT's one setter takes inputs as well, which it does not write.
    bool good = slot.context->setTensorAddress(owner->input.name.c_str(), const_cast<void*>(batch));
    if (owner->size) {
        good = good && slot.context->setTensorAddress(kSizeInput, const_cast<void*>(picture_sizes));
    }
    for (std::size_t k = 0; k < results.size(); ++k) {
        auto const* name = owner->outputs[k].name.c_str();
        good = good && slot.context->setTensorAddress(name, results[k]);
    }
    if (!good) {
        return Error{"VIM-415", "TensorRT does not take the address of a tensor",
                     log.text("it gave no reason"), "give aligned device memory"};
    }
    return Done{};
}

Status Session::Impl::enqueue(Slot& slot, Stream on) const {
    LogCapture const log;
    if (!slot.context->enqueueV3(on)) {
        static_cast<void>(cudaGetLastError());
        return Error{"VIM-904", "TensorRT did not run the engine", log.text("it gave no reason"),
                     "check that the engine and the plugin library are made for this GPU"};
    }
    return Done{};
}

// TensorRT does work of its own at the first enqueue of a shape, which must not be captured. The
// thread-local mode leaves other threads free to allocate meanwhile.
Status Session::Impl::capture(Slot& slot) const {
    VIM_DEPLOY_TRY(enqueue(slot, stream.get()));
    VIM_DEPLOY_TRY(checked(cudaStreamSynchronize(stream.get()), "the first run of a shape"));
    VIM_DEPLOY_TRY(checked(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
                           "starting a capture"));
    auto const enqueued = enqueue(slot, stream.get());
    OwnedGraph graph;
    // A capture must be ended whatever happened in it.
    cudaError_t const ended = cudaStreamEndCapture(stream.get(), graph.out());
    if (!enqueued.ok() || ended != cudaSuccess) {
        Error error = enqueued.ok() ? cuda_error(ended, "ending a capture") : enqueued.error();
        static_cast<void>(cudaGetLastError());
        error.message = "the engine cannot be captured as a CUDA graph: " + error.message;
        error.fix = "open the session without SessionOptions::cuda_graph";
        return error;
    }
    return checked(cudaGraphInstantiateWithFlags(slot.graph.out(), graph.get(), 0),
                   "making a CUDA graph");
}

Status Session::Impl::run(Slot& slot) const {
    if (!options.cuda_graph) {
        return enqueue(slot, stream.get());
    }
    if (slot.graph.get() == nullptr) {
        VIM_DEPLOY_TRY(capture(slot));
    }
    return checked(cudaGraphLaunch(slot.graph.get(), stream.get()), "launching a CUDA graph");
}

Status Session::Impl::copy_back(Slot const& slot) const {
    for (std::size_t k = 0; k < outputs.size(); ++k) {
        auto const bytes = bytes_of(owner->outputs[k].type, slot.outputs[k]);
        VIM_DEPLOY_TRY(checked(cudaMemcpyAsync(outputs[k].host.get(), outputs[k].device.get(),
                                               bytes, cudaMemcpyDeviceToHost, stream.get()),
                               "copying an output"));
    }
    return checked(cudaStreamSynchronize(stream.get()), "running the engine");
}

Status Session::Impl::send(void const* from, Buffers const& to, std::size_t bytes) const {
    return checked(
        cudaMemcpyAsync(to.device.get(), from, bytes, cudaMemcpyHostToDevice, stream.get()),
        "copying the batch");
}

Result<std::vector<Tensor>> Session::Impl::infer(TensorView const& batch,
                                                 std::vector<PictureSize> const* given) {
    DeviceScope const scope(owner->device);
    VIM_DEPLOY_TRY(scope.status());
    VIM_DEPLOY_TRY(check_batch(batch));
    VIM_DEPLOY_TRY(check_sizes(batch, given));
    auto const found = slot_for(batch.shape, options.cuda_graph);
    if (!found) {
        return found.error();
    }
    Slot& slot = **found;
    std::vector<void*> addresses;
    for (Buffers const& output : outputs) {
        addresses.push_back(output.device.get());
    }
    VIM_DEPLOY_TRY(bind(slot, input.device.get(), sizes.device.get(), addresses));
    auto const bytes = bytes_of(batch.type, batch.shape);
    std::memcpy(input.host.get(), batch.data, bytes);
    if (owner->size) {
        write_sizes(batch.shape[0], given);
    }
    auto status = checked(cudaStreamWaitEvent(stream.get(), finished.get(), 0), "waiting");
    if (status.ok()) {
        status = send(input.host.get(), input, bytes);
    }
    if (status.ok() && owner->size) {
        status =
            send(sizes.host.get(), sizes, bytes_of(owner->size->type, shape_of_sizes(batch.shape)));
    }
    if (status.ok()) {
        status = run(slot);
    }
    if (status.ok()) {
        status = copy_back(slot);
    }
    if (!status.ok()) {
        // The buffers are used again by the next call: nothing may be under way.
        drain();
        return status.error();
    }
    std::vector<Tensor> results;
    for (std::size_t k = 0; k < outputs.size(); ++k) {
        TensorInfo const& info = owner->outputs[k];
        auto const* first = static_cast<std::byte const*>(outputs[k].host.get());
        auto const count = bytes_of(info.type, slot.outputs[k]);
        results.push_back({info.name, info.type, slot.outputs[k], {first, first + count}});
    }
    return results;
}

Status Session::Impl::infer_on_device(TensorView const& batch, void const* sizes_there,
                                      std::vector<void*> const& results, Stream on) {
    DeviceScope const scope(owner->device);
    VIM_DEPLOY_TRY(scope.status());
    VIM_DEPLOY_TRY(check_batch(batch));
    if (owner->size.has_value() != (sizes_there != nullptr)) {
        return Error{"VIM-415",
                     owner->size ? "the engine takes the sizes of pictures, too"
                                 : "the engine takes no sizes of pictures",
                     "", "give sizes to a detector's engine and to no other"};
    }
    if (results.size() != outputs.size() ||
        std::find(results.begin(), results.end(), nullptr) != results.end()) {
        return Error{"VIM-415", "the outputs do not fit the engine",
                     "it has " + std::to_string(outputs.size()) + ", given were " +
                         std::to_string(results.size()) + ", none may be null",
                     "give one device pointer for each output"};
    }
    auto const slot = slot_for(batch.shape, false);
    if (!slot) {
        return slot.error();
    }
    VIM_DEPLOY_TRY(bind(**slot, batch.data, sizes_there, results));
    // The working memory is shared by all calls of this session.
    VIM_DEPLOY_TRY(checked(cudaStreamWaitEvent(on, finished.get(), 0), "waiting"));
    VIM_DEPLOY_TRY(enqueue(**slot, on));
    return checked(cudaEventRecord(finished.get(), on), "recording an event");
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&& other) noexcept = default;
Session& Session::operator=(Session&& other) noexcept = default;
Session::~Session() = default;

Result<Session> Engine::create_session(SessionOptions const& options) const {
    return guarded("making a session", [&]() -> Result<Session> {
        DeviceScope const scope(impl_->device);
        VIM_DEPLOY_TRY(scope.status());
        auto impl = std::make_unique<Session::Impl>(impl_, options);
        VIM_DEPLOY_TRY(impl->prepare());
        return Session(std::move(impl));
    });
}

Result<std::vector<Tensor>> Session::infer(TensorView const& batch) {
    return guarded("running a batch", [&] { return impl_->infer(batch, nullptr); });
}

Result<std::vector<Tensor>> Session::infer(TensorView const& batch,
                                           std::vector<PictureSize> const& sizes) {
    return guarded("running a batch", [&] { return impl_->infer(batch, &sizes); });
}

Status Session::infer_on_device(TensorView const& batch, std::vector<void*> const& outputs,
                                Stream stream, void const* sizes) {
    return guarded("running a batch",
                   [&] { return impl_->infer_on_device(batch, sizes, outputs, stream); });
}

Result<std::vector<Shape>> Session::output_shapes(Shape const& input) {
    return guarded("asking for shapes", [&]() -> Result<std::vector<Shape>> {
        auto const slot = impl_->slot_for(input, false);
        if (!slot) {
            return slot.error();
        }
        return (*slot)->outputs;
    });
}

Stream Session::stream() const noexcept {
    return impl_->stream.get();
}

}  // namespace vim_deploy
