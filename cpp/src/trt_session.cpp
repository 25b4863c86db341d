//! \file trt_session.cpp
//! Running an engine: copies, enqueueing and CUDA graphs.
#include "trt_session.h"

#include <algorithm>
#include <cstring>

#include "guard.h"
#include "logger.h"

namespace vim_deploy {

void TensorRtSession::drain() const noexcept {
    if (own_stream.get() != nullptr) {
        static_cast<void>(cudaStreamSynchronize(own_stream.get()));
    }
    if (finished.get() != nullptr) {
        static_cast<void>(cudaEventSynchronize(finished.get()));
    }
}

Status TensorRtSession::bind(Slot& slot, void const* batch, void const* picture_sizes,
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

Status TensorRtSession::enqueue(Slot& slot, Stream on) const {
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
Status TensorRtSession::capture(Slot& slot) const {
    VIM_DEPLOY_TRY(enqueue(slot, own_stream.get()));
    VIM_DEPLOY_TRY(checked(cudaStreamSynchronize(own_stream.get()), "the first run of a shape"));
    VIM_DEPLOY_TRY(checked(cudaStreamBeginCapture(own_stream.get(), cudaStreamCaptureModeThreadLocal),
                           "starting a capture"));
    auto const enqueued = enqueue(slot, own_stream.get());
    OwnedGraph graph;
    // A capture must be ended whatever happened in it.
    cudaError_t const ended = cudaStreamEndCapture(own_stream.get(), graph.out());
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

Status TensorRtSession::run(Slot& slot) const {
    if (!options.cuda_graph) {
        return enqueue(slot, own_stream.get());
    }
    if (slot.graph.get() == nullptr) {
        VIM_DEPLOY_TRY(capture(slot));
    }
    return checked(cudaGraphLaunch(slot.graph.get(), own_stream.get()), "launching a CUDA graph");
}

Status TensorRtSession::copy_back(Slot const& slot) const {
    for (std::size_t k = 0; k < outputs.size(); ++k) {
        auto const bytes = bytes_of(owner->outputs[k].type, slot.outputs[k]);
        VIM_DEPLOY_TRY(checked(cudaMemcpyAsync(outputs[k].host.get(), outputs[k].device.get(),
                                               bytes, cudaMemcpyDeviceToHost, own_stream.get()),
                               "copying an output"));
    }
    return checked(cudaStreamSynchronize(own_stream.get()), "running the engine");
}

Status TensorRtSession::send(void const* from, Buffers const& to, std::size_t bytes) const {
    return checked(
        cudaMemcpyAsync(to.device.get(), from, bytes, cudaMemcpyHostToDevice, own_stream.get()),
        "copying the batch");
}

Result<std::vector<Tensor>> TensorRtSession::infer(TensorView const& batch,
                                                 std::vector<PictureSize> const* given) {
    DeviceScope const scope(owner->device);
    VIM_DEPLOY_TRY(scope.status());
    VIM_DEPLOY_TRY(owner->check_batch(batch));
    VIM_DEPLOY_TRY(owner->check_sizes(batch, given));
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
        owner->write_sizes(sizes.host.get(), batch.shape[0], given);
    }
    auto status = checked(cudaStreamWaitEvent(own_stream.get(), finished.get(), 0), "waiting");
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

Status TensorRtSession::infer_on_device(TensorView const& batch, void const* sizes_there,
                                      std::vector<void*> const& results, Stream on) {
    DeviceScope const scope(owner->device);
    VIM_DEPLOY_TRY(scope.status());
    VIM_DEPLOY_TRY(owner->check_batch(batch));
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

Result<std::vector<Shape>> TensorRtSession::output_shapes(Shape const& shape) {
    auto const slot = slot_for(shape, false);
    if (!slot) {
        return slot.error();
    }
    return (*slot)->outputs;
}

Result<std::unique_ptr<Session::Impl>> TensorRtEngine::make_session(
    std::shared_ptr<Engine::Impl const> self, SessionOptions const& options) const {
    DeviceScope const scope(device);
    VIM_DEPLOY_TRY(scope.status());
    auto made = std::make_unique<TensorRtSession>(
        std::static_pointer_cast<TensorRtEngine const>(std::move(self)), options);
    VIM_DEPLOY_TRY(made->prepare());
    return std::unique_ptr<Session::Impl>(std::move(made));
}

}  // namespace vim_deploy
