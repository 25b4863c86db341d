//! What the benchmark stands on: the device's nominal rates, filled buffers, timed graph replays.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace vim_bench {

constexpr int kWarmUp = 10;
inline void require(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
        std::exit(3);
    }
}

struct Device {
    std::string name;
    int sm_count = 0;
    double clock_hz = 0.0;
    double bytes_per_second = 0.0;
};

inline Device device() {
    cudaDeviceProp properties{};
    require(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    const auto attribute = [](cudaDeviceAttr which) {
        int value = 0;
        require(cudaDeviceGetAttribute(&value, which, 0), "cudaDeviceGetAttribute");
        return double(value);
    };
    // Two transfers a clock; the bus width is in bits, the clocks in kHz.
    return {properties.name, properties.multiProcessorCount, 1e3 * attribute(cudaDevAttrClockRate),
            2e3 * attribute(cudaDevAttrMemoryClockRate) *
                attribute(cudaDevAttrGlobalMemoryBusWidth) / 8.0};
}

//! splitmix64's finaliser; values of the size the model sees, so that no arithmetic is special.
static __global__ void fill_half(std::uint16_t* out, std::size_t count, float low, float high) {
    for (std::size_t i = blockIdx.x * std::size_t(blockDim.x) + threadIdx.x; i < count;
         i += std::size_t(gridDim.x) * blockDim.x) {
        std::uint64_t x = (i + 1) * 0x9E3779B97F4A7C15ULL;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
        const float unit = float((x >> 40) & 0xFFFF) / 65536.0F;
        // bf16 bits: the upper half of the float.
        out[i] = std::uint16_t(__float_as_uint(low + unit * (high - low)) >> 16);
    }
}

static __global__ void fill_float(float* out, std::size_t count, float low, float high) {
    for (std::size_t i = blockIdx.x * std::size_t(blockDim.x) + threadIdx.x; i < count;
         i += std::size_t(gridDim.x) * blockDim.x) {
        const std::uint32_t x = std::uint32_t(i) * 2654435761U;
        out[i] = low + float(x >> 8) / 16777216.0F * (high - low);
    }
}

//! Device memory that frees itself.
class Pool {
  public:
    ~Pool() {
        for (void* block : blocks_) {
            cudaFree(block);
        }
    }
    Pool() = default;
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    void* raw(std::size_t bytes) {
        void* block = nullptr;
        require(cudaMalloc(&block, std::max<std::size_t>(bytes, 16)), "cudaMalloc");
        blocks_.push_back(block);
        return block;
    }
    void* half(std::size_t count, float low, float high) {
        auto* out = static_cast<std::uint16_t*>(raw(2 * count));
        fill_half<<<1024, 256>>>(out, count, low, high);
        require(cudaGetLastError(), "fill");
        return out;
    }
    float* floats(std::size_t count, float low, float high) {
        auto* out = static_cast<float*>(raw(4 * count));
        fill_float<<<256, 256>>>(out, count, low, high);
        require(cudaGetLastError(), "fill");
        return out;
    }

  private:
    std::vector<void*> blocks_;
};

using Launch = std::function<cudaError_t(cudaStream_t)>;

//! Times in microseconds of single replays that walk through the launches in turn.
inline std::vector<double> time_replays(const std::vector<Launch>& launches, int replays) {
    cudaStream_t stream = nullptr;
    require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    std::vector<cudaGraphExec_t> graphs;
    for (const Launch& launch : launches) {
        require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
        require(launch(stream), "launch");
        cudaGraph_t graph = nullptr;
        require(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
        graphs.emplace_back();
        require(cudaGraphInstantiate(&graphs.back(), graph, 0), "cudaGraphInstantiate");
        cudaGraphDestroy(graph);
    }
    cudaEvent_t start = nullptr;
    cudaEvent_t stop = nullptr;
    require(cudaEventCreate(&start), "cudaEventCreate");
    require(cudaEventCreate(&stop), "cudaEventCreate");
    std::vector<double> times;
    for (int i = -kWarmUp; i < replays; ++i) {
        const auto turn = std::size_t(i + kWarmUp) % graphs.size();
        require(cudaEventRecord(start, stream), "cudaEventRecord");
        require(cudaGraphLaunch(graphs[turn], stream), "cudaGraphLaunch");
        require(cudaEventRecord(stop, stream), "cudaEventRecord");
        require(cudaEventSynchronize(stop), "cudaEventSynchronize");
        float milliseconds = 0.0F;
        require(cudaEventElapsedTime(&milliseconds, start, stop), "cudaEventElapsedTime");
        if (i >= 0) {
            times.push_back(1e3 * milliseconds);
        }
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    for (const cudaGraphExec_t graph : graphs) {
        cudaGraphExecDestroy(graph);
    }
    cudaStreamDestroy(stream);
    std::sort(times.begin(), times.end());
    return times;
}

}  // namespace vim_bench
