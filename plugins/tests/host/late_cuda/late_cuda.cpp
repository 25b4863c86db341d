//! See cuda_runtime.h beside it. The kernels are those of the CPU shim; what calls them is compiled
//! with `launch` renamed, so that a launch waits on its stream like everything else.
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "vim_plugins/ops.h"

using Work = std::function<void()>;

struct LateGraph {
    std::vector<Work> nodes;
};

struct CUstream_st {
    std::vector<Work> waiting;
    LateGraph* captured = nullptr;
};

namespace {

CUstream_st& default_stream() {
    static CUstream_st stream;
    return stream;
}

std::set<CUstream_st*>& streams() {
    static std::set<CUstream_st*> all;
    return all;
}

CUstream_st& of(cudaStream_t stream) {
    return stream == nullptr ? default_stream() : *stream;
}

cudaError_t enqueue(cudaStream_t stream, Work work) {
    CUstream_st& to = of(stream);
    (to.captured != nullptr ? to.captured->nodes : to.waiting).push_back(std::move(work));
    return cudaSuccess;
}

void finish(CUstream_st& stream) {
    std::vector<Work> waiting;
    waiting.swap(stream.waiting);
    for (const Work& work : waiting) {
        work();
    }
}

}  // namespace

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {"no GPU", 0, 0};
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
    *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(*pointer, 0xFF, bytes);
    return cudaSuccess;
}

//! As CUDA's, it waits for all work: none of it may still use the memory.
cudaError_t cudaFree(void* pointer) {
    finish(default_stream());
    for (CUstream_st* stream : streams()) {
        finish(*stream);
    }
    std::free(pointer);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (kind == cudaMemcpyDeviceToHost) {
        finish(default_stream());
        std::memcpy(to, from, bytes);
        return cudaSuccess;
    }
    // Pageable memory is read before the call returns, and may arrive later.
    const auto* first = static_cast<const unsigned char*>(from);
    return enqueue(nullptr, [to, data = std::vector<unsigned char>(first, first + bytes)] {
        std::memcpy(to, data.data(), data.size());
    });
}

cudaError_t cudaMemset(void* at, int value, std::size_t bytes) {
    return cudaMemsetAsync(at, value, bytes, nullptr);
}

cudaError_t cudaMemsetAsync(void* at, int value, std::size_t bytes, cudaStream_t stream) {
    return enqueue(stream, [=] { std::memset(at, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new CUstream_st;
    streams().insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    finish(*stream);
    streams().erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    finish(of(stream));
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    stream->captured = new LateGraph;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = stream->captured;
    stream->captured = nullptr;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph, unsigned long long) {
    *instance = new LateGraph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream) {
    for (const Work& node : instance->nodes) {
        enqueue(stream, node);
    }
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) {
    delete instance;
    return cudaSuccess;
}

namespace vim_plugins {

#define VIM_PLUGINS_LATE(Name, c_name)                                                  \
    cudaError_t late_launch(const Name##Params& params, Tactic tactic, void* workspace, \
                            cudaStream_t stream) noexcept;                              \
    cudaError_t late_launch(const Name##Params& params, Tactic tactic, void* workspace, \
                            cudaStream_t stream) noexcept {                             \
        return enqueue(stream, [=] {                                                    \
            if (launch(params, tactic, workspace, nullptr) != cudaSuccess) {            \
                std::fprintf(stderr, "a launch was refused\n");                         \
                std::exit(4);                                                           \
            }                                                                           \
        });                                                                             \
    }
VIM_PLUGINS_OPS(VIM_PLUGINS_LATE)
#undef VIM_PLUGINS_LATE

}  // namespace vim_plugins
