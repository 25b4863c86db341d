//! \file fake_cuda.cpp
//! A libcudart of our own: the functions that the runtime library calls, on the host.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "fake_cuda_state.h"

using namespace fake_cuda;

namespace {

thread_local int current_device = 0;

int number_from(char const* variable, int otherwise) {
    char const* text = std::getenv(variable);
    return text == nullptr ? otherwise : std::atoi(text);
}

cudaError_t allocate(char const* name, void** pointer, std::size_t bytes, bool device) {
    cudaError_t const status = begin(name, false);
    if (status != cudaSuccess || bytes == 0) {
        return status;
    }
    *pointer = std::malloc(bytes);
    // What is read before it is written gives nonsense.
    std::memset(*pointer, 0xA5, bytes);
    std::lock_guard<std::mutex> const lock(state().mutex);
    state().allocations[static_cast<char const*>(*pointer)] = {bytes, device};
    return cudaSuccess;
}

cudaError_t release(char const* name, void* pointer, bool device) {
    cudaError_t const status = begin(name, false);
    std::lock_guard<std::mutex> const lock(state().mutex);
    auto const found = state().allocations.find(static_cast<char const*>(pointer));
    if (found == state().allocations.end() || found->second.device != device) {
        fake_fault("memory is given back that was not taken");
        return cudaErrorInvalidValue;
    }
    state().allocations.erase(found);
    std::free(pointer);
    return status;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* number) {
    *number = number_from("FAKE_CUDA_DEVICES", 2);
    return *number == 0 ? failed(cudaErrorNoDevice) : begin("cudaGetDeviceCount");
}

cudaError_t cudaGetDevice(int* device) {
    *device = current_device;
    return begin("cudaGetDevice");
}

cudaError_t cudaSetDevice(int device) {
    current_device = device;
    return begin("cudaSetDevice");
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    int const capability = number_from("FAKE_CUDA_CAPABILITY", 86);
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? capability / 10 : capability % 10;
    return begin("cudaDeviceGetAttribute");
}

cudaError_t cudaGetLastError() {
    return take_last_error();
}

char const* cudaGetErrorName(cudaError_t status) {
    return status == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorFake";
}

char const* cudaGetErrorString(cudaError_t) {
    return "as the check asked for";
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
    return allocate("cudaMalloc", pointer, bytes, true);
}

cudaError_t cudaFree(void* pointer) {
    return release("cudaFree", pointer, true);
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
    return allocate("cudaMallocHost", pointer, bytes, false);
}

cudaError_t cudaFreeHost(void* pointer) {
    return release("cudaFreeHost", pointer, false);
}

cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    cudaError_t const status = begin("cudaMemcpyAsync");
    void const* device = kind == cudaMemcpyHostToDevice ? to : from;
    void const* host = kind == cudaMemcpyHostToDevice ? from : to;
    if (!fake_cuda_is_device(device, bytes) || fake_cuda_is_device(host, 1)) {
        fake_fault("a copy leaves its buffer or goes the wrong way");
        return cudaErrorInvalidValue;
    }
    if (status == cudaSuccess) {
        fake_cuda_enqueue(stream, [=] { std::memcpy(to, from, bytes); });
    }
    return status;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    cudaError_t const status = begin("cudaStreamCreateWithFlags");
    if (status == cudaSuccess) {
        *stream = new CUstream_st;
        count("stream", 1);
        std::lock_guard<std::mutex> const lock(state().mutex);
        state().streams.push_back(*stream);
    }
    return status;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    while (run_one(stream)) {
    }
    {
        std::lock_guard<std::mutex> const lock(state().mutex);
        auto& all = state().streams;
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (all[i] == stream) {
                all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
            }
        }
    }
    count("stream", -1);
    delete stream;
    return begin("cudaStreamDestroy");
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    cudaError_t const status = begin("cudaStreamSynchronize", false);
    if (status == cudaErrorStreamCaptureUnsupported) {
        return status;
    }
    while (run_one(stream)) {
    }
    return status;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    cudaError_t const status = begin("cudaStreamWaitEvent");
    if (status == cudaSuccess && event->done != nullptr) {
        fake_cuda_enqueue(stream,
                          [other = event->stream, done = event->done] { run_until(other, done); });
    }
    return status;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    cudaError_t const status = begin("cudaStreamBeginCapture");
    if (status == cudaSuccess) {
        std::lock_guard<std::mutex> const lock(stream->mutex);
        stream->graph = std::make_unique<CUgraph_st>();
        stream->mode = mode;
        stream->capturer = std::this_thread::get_id();
    }
    if (status == cudaSuccess && mode == cudaStreamCaptureModeGlobal) {
        // Long enough for other threads to meet what it forbids them.
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return status;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    cudaError_t const status = begin("cudaStreamEndCapture");
    std::unique_ptr<CUgraph_st> captured;
    {
        std::lock_guard<std::mutex> const lock(stream->mutex);
        captured = std::move(stream->graph);
    }
    if (status == cudaSuccess) {
        *graph = captured.release();
        count("graph", 1);
    }
    return status;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long) {
    cudaError_t const status = begin("cudaGraphInstantiateWithFlags", false);
    if (status == cudaSuccess) {
        *exec = new CUgraphExec_st{graph->work};
        count("graph exec", 1);
    }
    return status;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    cudaError_t const status = begin("cudaGraphLaunch");
    if (status == cudaSuccess) {
        for (Work const& work : exec->work) {
            fake_cuda_enqueue(stream, work);
        }
    }
    return status;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    count("graph", -1);
    delete graph;
    return begin("cudaGraphDestroy");
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    count("graph exec", -1);
    delete exec;
    return begin("cudaGraphExecDestroy");
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    cudaError_t const status = begin("cudaEventCreateWithFlags");
    if (status == cudaSuccess) {
        *event = new CUevent_st;
        count("event", 1);
    }
    return status;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    count("event", -1);
    delete event;
    return begin("cudaEventDestroy");
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    cudaError_t const status = begin("cudaEventRecord");
    if (status == cudaSuccess) {
        event->stream = stream;
        event->done = std::make_shared<std::atomic<bool>>(false);
        fake_cuda_enqueue(stream, [done = event->done] { *done = true; });
    }
    return status;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    cudaError_t const status = begin("cudaEventSynchronize", false);
    if (event->done != nullptr) {
        run_until(event->stream, event->done);
    }
    return status;
}

}  // extern "C"
