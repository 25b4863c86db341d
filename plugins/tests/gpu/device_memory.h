//! Tensors on the GPU, and RAII for what the CUDA runtime hands out.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../common/problem.h"

namespace vim_tests {

//! Ends the program: after a CUDA error no later result means anything.
inline void require(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
        std::exit(3);
    }
}

class Stream {
  public:
    Stream() {
        require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    cudaStream_t get() const { return stream_; }
    void wait() const { require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

  private:
    cudaStream_t stream_ = nullptr;
};

//! A recorded sequence of launches.
class Graph {
  public:
    //! Records what `enqueue` puts on the stream; `enqueue` returns a CUDA error code.
    template <typename Enqueue>
    Graph(const Stream& stream, Enqueue&& enqueue) {
        require(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "capture");
        require(static_cast<cudaError_t>(enqueue()), "launch during capture");
        cudaGraph_t graph = nullptr;
        require(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
        require(cudaGraphInstantiate(&instance_, graph, 0), "cudaGraphInstantiate");
        cudaGraphDestroy(graph);
    }
    ~Graph() { cudaGraphExecDestroy(instance_); }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    void replay(const Stream& stream) const {
        require(cudaGraphLaunch(instance_, stream.get()), "cudaGraphLaunch");
    }

  private:
    cudaGraphExec_t instance_ = nullptr;
};

//! How tensors are laid out.
enum class Layout {
    //! Between guard bands of a known pattern, and NaN where nothing was placed: reading or writing
    //! beside a tensor shows in what comes out.
    kGuarded,
    //! Allocations of just their size, and nothing written where nothing was placed.
    //! compute-sanitizer's memcheck then sees what is accessed beside a tensor, and its initcheck
    //! what is read before a kernel wrote it; bands and NaNs would hide both from it.
    kBare,
};

//! Tensors in device memory; what was placed is there for every stream when place() returns.
class DeviceMemory : public Memory {
  public:
    explicit DeviceMemory(Layout layout = Layout::kGuarded) : layout_(layout) {}
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;
    ~DeviceMemory() override {
        for (const Band& band : bands_) {
            cudaFree(band.base);
        }
    }
    void* place(const void* data, std::size_t bytes) override {
        void* tensor = allocate(bytes);
        require(cudaMemcpy(tensor, data, bytes, cudaMemcpyHostToDevice), "upload");
        arrive();
        return tensor;
    }
    void* blank(std::size_t bytes) override {
        void* tensor = allocate(bytes);
        arrive();
        return tensor;
    }
    void fetch(void* to, const void* from, std::size_t bytes) override {
        require(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "download");
    }
    //! NaNs over a tensor, in the order of the stream; nothing where tensors are bare.
    void poison(void* tensor, std::size_t bytes, const Stream& stream) const {
        if (layout_ == Layout::kGuarded) {
            require(cudaMemsetAsync(tensor, kPattern, bytes, stream.get()), "poison");
        }
    }
    //! Whether every guard band still holds its pattern.
    bool intact() const {
        std::vector<unsigned char> bytes(guard());
        for (const Band& band : bands_) {
            for (const unsigned char* at : {band.base, band.base + guard() + band.bytes}) {
                require(cudaMemcpy(bytes.data(), at, guard(), cudaMemcpyDeviceToHost), "guards");
                for (const unsigned char byte : bytes) {
                    if (byte != kPattern) {
                        return false;
                    }
                }
            }
        }
        return true;
    }

  private:
    struct Band {
        unsigned char* base;
        std::size_t bytes;
    };
    //! All bits set is a NaN in every type, so that reading a guard shows too.
    static constexpr unsigned char kPattern = 0xFF;

    std::size_t guard() const { return layout_ == Layout::kGuarded ? 4096 : 0; }

    void* allocate(std::size_t bytes) {
        unsigned char* base = nullptr;
        require(cudaMalloc(reinterpret_cast<void**>(&base), bytes + 2 * guard()), "cudaMalloc");
        bands_.push_back({base, bytes});
        if (layout_ == Layout::kGuarded) {
            require(cudaMemset(base, kPattern, bytes + 2 * guard()), "guard bands");
        }
        return base + guard();
    }

    //! cudaMemset returns before it is done, and cudaMemcpy may; both are on the default stream,
    //! for which the streams of the checks do not wait.
    static void arrive() { require(cudaStreamSynchronize(nullptr), "waiting for the upload"); }

    Layout layout_;
    std::vector<Band> bands_;
};

}  // namespace vim_tests
