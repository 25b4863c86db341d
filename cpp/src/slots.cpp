//! \file slots.cpp
//! Execution contexts, their shapes and buffers.
#include <algorithm>
#include <cmath>

#include "logger.h"
#include "trt_session.h"

namespace vim_deploy {

Status TensorRtSession::prepare() {
    if (options.cuda_graph && options.max_graphs == 0) {
        return Error{"VIM-202", "max_graphs is 0, but cuda_graph is set", "",
                     "keep at least one graph"};
    }
#if NV_TENSORRT_MAJOR < 10
    if (options.cuda_graph) {
        return Error{"VIM-309", "CUDA graphs need TensorRT 10",
                     "a captured shape needs a context of its own, and TensorRT 8.6 gives each "
                     "profile to one context only",
                     "open the session without SessionOptions::cuda_graph"};
    }
#endif
    VIM_DEPLOY_TRY(
        checked(cudaStreamCreateWithFlags(own_stream.out(), cudaStreamNonBlocking), "making a stream"));
    VIM_DEPLOY_TRY(checked(cudaEventCreateWithFlags(finished.out(), cudaEventDisableTiming),
                           "making an event"));
#if VIM_DEPLOY_SHARED_SCRATCH
    scratch_bytes = owner->engine->getDeviceMemorySizeV2();
    if (scratch_bytes > 0) {
        VIM_DEPLOY_TRY(checked(cudaMalloc(scratch.out(), static_cast<std::size_t>(scratch_bytes)),
                               "allocating the engine's working memory"));
    }
#endif
    std::size_t input_bytes = 0;
    std::vector<std::size_t> output_bytes(owner->outputs.size(), 0);
    for (std::size_t i = 0; i < owner->profiles.size(); ++i) {
        auto slot = make_slot(i);
        if (!slot) {
            return slot.error();
        }
        Shape const& largest = owner->profiles[i].max;
        VIM_DEPLOY_TRY(set_shape(*slot, largest));
        input_bytes = std::max(input_bytes, bytes_of(owner->input.type, largest));
        for (std::size_t k = 0; k < output_bytes.size(); ++k) {
            auto const bytes = bytes_of(owner->outputs[k].type, slot->outputs[k]);
            output_bytes[k] = std::max(output_bytes[k], bytes);
        }
        by_profile.push_back(std::move(slot).value());
    }
    VIM_DEPLOY_TRY(input.allocate(input_bytes));
    if (owner->size) {
        std::size_t bytes = 0;
        for (ProfileRange const& profile : owner->profiles) {
            bytes = std::max(bytes, bytes_of(owner->size->type, shape_of_sizes(profile.max)));
        }
        VIM_DEPLOY_TRY(sizes.allocate(bytes));
    }
    outputs.resize(output_bytes.size());
    for (std::size_t k = 0; k < outputs.size(); ++k) {
        VIM_DEPLOY_TRY(outputs[k].allocate(output_bytes[k]));
    }
    return Done{};
}

Result<Slot> TensorRtSession::make_slot(std::size_t profile) {
    LogCapture const log;
    std::lock_guard<std::mutex> const lock(owner->context_mutex);
    Slot slot;
    slot.profile = profile;
#if VIM_DEPLOY_SHARED_SCRATCH
    slot.context.reset(owner->engine->createExecutionContext(
        nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
    if (slot.context != nullptr) {
        slot.context->setDeviceMemoryV2(scratch.get(), scratch_bytes);
    }
#else
    slot.context.reset(owner->engine->createExecutionContext());
#endif
    auto const number = static_cast<std::int32_t>(profile);
    if (slot.context == nullptr ||
        !slot.context->setOptimizationProfileAsync(number, own_stream.get())) {
        static_cast<void>(cudaGetLastError());
        return Error{"VIM-906",
                     "TensorRT makes no execution context for profile " + std::to_string(number),
                     log.text("it gave no reason; usually GPU memory ran out"),
                     "free GPU memory, use fewer sessions, or build with a smaller --max-batch"};
    }
    VIM_DEPLOY_TRY(checked(cudaStreamSynchronize(own_stream.get()), "choosing the profile"));
    return slot;
}

Status TensorRtSession::set_shape(Slot& slot, Shape const& shape) const {
    if (slot.shape == shape) {
        return Done{};
    }
    LogCapture const log;
    slot.shape.clear();
    bool good = slot.context->setInputShape(owner->input.name.c_str(), dims_of(shape));
    if (owner->size) {
        good = good && slot.context->setInputShape(kSizeInput, dims_of(shape_of_sizes(shape)));
    }
    if (!good) {
        return Error{"VIM-905", "TensorRT does not take the shape " + text_of(shape),
                     log.text("it gave no reason"), "use a shape of the engine's profiles"};
    }
    std::vector<Shape> found;
    for (TensorInfo const& output : owner->outputs) {
        found.push_back(shape_of(slot.context->getTensorShape(output.name.c_str())));
        if (bytes_of(output.type, found.back()) == 0) {
            return Error{"VIM-413", owner->path + " is not an engine that this library runs",
                         "the shape of " + output.name + " depends on the input's values",
                         "use an engine made by vim-deploy build-engine"};
        }
    }
    slot.outputs = std::move(found);
    slot.shape = shape;
    return Done{};
}

Result<std::size_t> TensorRtSession::choose_profile(Shape const& shape) const {
    auto const& profiles = owner->profiles;
    std::size_t best = profiles.size();
    double distance = 0;
    for (std::size_t i = 0; i < profiles.size(); ++i) {
        if (!profiles[i].holds(shape)) {
            continue;
        }
        auto const away =
            std::fabs(static_cast<double>(bytes_of(owner->input.type, shape)) -
                      static_cast<double>(bytes_of(owner->input.type, profiles[i].opt)));
        if (best == profiles.size() || away < distance) {
            best = i;
            distance = away;
        }
    }
    if (best < profiles.size()) {
        return best;
    }
    std::string taken;
    for (ProfileRange const& profile : profiles) {
        taken += (taken.empty() ? "it takes " : "; ") + text_of(profile.min) + " to " +
                 text_of(profile.max);
    }
    return Error{"VIM-905", "the engine does not take a batch of shape " + text_of(shape), taken,
                 "split the batch, or build the engine with other --min-batch and --max-batch"};
}

Result<Slot*> TensorRtSession::slot_for(Shape const& shape, bool with_graph) {
    auto const profile = choose_profile(shape);
    if (!profile) {
        return profile.error();
    }
    if (!with_graph) {
        Slot& slot = by_profile[*profile];
        VIM_DEPLOY_TRY(set_shape(slot, shape));
        return &slot;
    }
    auto const same = std::find_if(by_shape.begin(), by_shape.end(),
                                   [&shape](Slot const& slot) { return slot.shape == shape; });
    if (same != by_shape.end()) {
        same->last_use = ++calls;
        return &*same;
    }
    if (by_shape.size() >= options.max_graphs) {
        auto const oldest =
            std::min_element(by_shape.begin(), by_shape.end(),
                             [](Slot const& a, Slot const& b) { return a.last_use < b.last_use; });
        std::lock_guard<std::mutex> const lock(owner->context_mutex);
        oldest->graph = OwnedGraphExec();  // before the context it was captured from
        by_shape.erase(oldest);
    }
    auto slot = make_slot(*profile);
    if (!slot) {
        return slot.error();
    }
    VIM_DEPLOY_TRY(set_shape(*slot, shape));
    slot->last_use = ++calls;
    by_shape.push_back(std::move(slot).value());
    return &by_shape.back();
}

}  // namespace vim_deploy
