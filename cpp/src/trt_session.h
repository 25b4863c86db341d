//! \file trt_session.h
//! A session of TensorRT.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "cuda_raii.h"
#include "guard.h"
#include "trt_engine.h"

namespace vim_deploy {

//! A pair of buffers of one tensor, as large as its largest shape.
struct Buffers {
    PinnedMemory host;
    DeviceMemory device;
    std::size_t bytes = 0;

    Status allocate(std::size_t size) {
        bytes = size;
        VIM_DEPLOY_TRY(checked(cudaMalloc(device.out(), size), "allocating a buffer"));
        return checked(cudaMallocHost(host.out(), size), "allocating page-locked memory");
    }
};

//! An execution context in one profile. One with a graph serves one shape only: TensorRT asks for a
//! context of its own for each captured graph.
struct Slot {
    std::unique_ptr<nvinfer1::IExecutionContext> context;
    std::size_t profile = 0;
    Shape shape;
    std::vector<Shape> outputs;
    OwnedGraphExec graph;
    std::uint64_t last_use = 0;
};

struct TensorRtSession : Session::Impl {
    std::shared_ptr<TensorRtEngine const> owner;
    SessionOptions options;
    OwnedStream own_stream;
    OwnedEvent finished;  // the last call on a stream of the caller
    DeviceMemory scratch;
    std::int64_t scratch_bytes = 0;
    Buffers input;
    Buffers sizes;  // of a detector
    std::vector<Buffers> outputs;
    std::vector<Slot> by_profile;
    std::vector<Slot> by_shape;
    std::uint64_t calls = 0;

    TensorRtSession(std::shared_ptr<TensorRtEngine const> engine, SessionOptions const& settings)
        : owner(std::move(engine)), options(settings) {}

    ~TensorRtSession() override {
        DeviceScope const scope(owner->device);
        // What still runs uses the buffers.
        drain();
        std::lock_guard<std::mutex> const lock(owner->context_mutex);
        by_shape.clear();
        by_profile.clear();
    }

    Status prepare();
    Result<Slot> make_slot(std::size_t profile);
    Status set_shape(Slot& slot, Shape const& shape) const;
    Result<std::size_t> choose_profile(Shape const& shape) const;
    Result<Slot*> slot_for(Shape const& shape, bool with_graph);
    Status bind(Slot& slot, void const* batch, void const* sizes,
                std::vector<void*> const& results) const;
    Status send(void const* from, Buffers const& to, std::size_t bytes) const;
    Status enqueue(Slot& slot, Stream on) const;
    Status capture(Slot& slot) const;
    Status run(Slot& slot) const;
    Status copy_back(Slot const& slot) const;
    void drain() const noexcept;

    Engine::Impl const& engine() const noexcept override { return *owner; }
    Result<std::vector<Tensor>> infer(TensorView const& batch,
                                      std::vector<PictureSize> const* given) override;
    Status infer_on_device(TensorView const& batch, void const* sizes_there,
                           std::vector<void*> const& results, Stream on) override;
    Result<std::vector<Shape>> output_shapes(Shape const& input) override;
    Stream stream() const noexcept override { return own_stream.get(); }
};

}  // namespace vim_deploy
