//! Device buffers with guard bands, and RAII for what the CUDA runtime hands out.
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

//! Tensors between guard bands of a known pattern; NaN where nothing was placed.
class DeviceMemory : public Memory {
  public:
    DeviceMemory() = default;
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
        return tensor;
    }
    void* blank(std::size_t bytes) override {
        void* tensor = allocate(bytes);
        require(cudaMemset(tensor, 0xFF, bytes), "poison");
        return tensor;
    }
    void fetch(void* to, const void* from, std::size_t bytes) override {
        require(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "download");
    }
    //! Whether every guard band still holds its pattern.
    bool intact() const {
        std::vector<unsigned char> bytes(kGuard);
        for (const Band& band : bands_) {
            for (const unsigned char* at : {band.base, band.base + kGuard + band.bytes}) {
                require(cudaMemcpy(bytes.data(), at, kGuard, cudaMemcpyDeviceToHost), "guards");
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
    static constexpr std::size_t kGuard = 4096;
    //! All bits set is a NaN in every type, so that reading a guard shows too.
    static constexpr unsigned char kPattern = 0xFF;

    void* allocate(std::size_t bytes) {
        unsigned char* base = nullptr;
        require(cudaMalloc(reinterpret_cast<void**>(&base), bytes + 2 * kGuard), "cudaMalloc");
        require(cudaMemset(base, kPattern, bytes + 2 * kGuard), "guard bands");
        bands_.push_back({base, bytes});
        return base + kGuard;
    }

    std::vector<Band> bands_;
};

}  // namespace vim_tests
