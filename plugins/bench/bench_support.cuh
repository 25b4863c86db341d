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
    std::size_t l2_bytes = 0;
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
                attribute(cudaDevAttrGlobalMemoryBusWidth) / 8.0,
            std::size_t(properties.l2CacheSize)};
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

//! Device memory that frees itself. Small tensors share blocks, or thousands of them would each
//! wait for cudaMalloc.
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
        const std::size_t wanted =
            (std::max<std::size_t>(bytes, 1) + kAligned - 1) / kAligned * kAligned;
        if (wanted > left_) {
            left_ = std::max(wanted, kBlock);
            void* block = nullptr;
            require(cudaMalloc(&block, left_), "cudaMalloc");
            blocks_.push_back(block);
            next_ = static_cast<unsigned char*>(block);
        }
        void* const found = next_;
        next_ += wanted;
        left_ -= wanted;
        return found;
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
    static constexpr std::size_t kAligned = 256;  // as cudaMalloc gives it
    static constexpr std::size_t kBlock = std::size_t{32} << 20;

    std::vector<void*> blocks_;
    unsigned char* next_ = nullptr;
    std::size_t left_ = 0;
};

using Launch = std::function<cudaError_t(cudaStream_t)>;

//! A graph of `count` launches on one stream, which walk through the given ones in turn.
class LaunchGraph {
  public:
    LaunchGraph(const std::vector<Launch>& launches, std::size_t count, cudaStream_t stream)
        : count_(count) {
        require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
        for (std::size_t i = 0; i < count; ++i) {
            require(launches[i % launches.size()](stream), "launch");
        }
        cudaGraph_t graph = nullptr;
        require(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
        require(cudaGraphInstantiate(&instance_, graph, 0), "cudaGraphInstantiate");
        cudaGraphDestroy(graph);
    }
    ~LaunchGraph() { cudaGraphExecDestroy(instance_); }
    LaunchGraph(const LaunchGraph&) = delete;
    LaunchGraph& operator=(const LaunchGraph&) = delete;

    //! Microseconds of one replay, between two events, by the number of launches.
    double replay(cudaEvent_t start, cudaEvent_t stop, cudaStream_t stream) const {
        require(cudaEventRecord(start, stream), "cudaEventRecord");
        require(cudaGraphLaunch(instance_, stream), "cudaGraphLaunch");
        require(cudaEventRecord(stop, stream), "cudaEventRecord");
        require(cudaEventSynchronize(stop), "cudaEventSynchronize");
        float milliseconds = 0.0F;
        require(cudaEventElapsedTime(&milliseconds, start, stop), "cudaEventElapsedTime");
        return 1e3 * milliseconds / double(count_);
    }

  private:
    std::size_t count_;
    cudaGraphExec_t instance_ = nullptr;
};

//! Microseconds of a launch in each of so many replays of a graph of `count` launches, sorted.
inline std::vector<double> time_replays(const std::vector<Launch>& launches, std::size_t count,
                                        int replays) {
    cudaStream_t stream = nullptr;
    require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    cudaEvent_t start = nullptr;
    cudaEvent_t stop = nullptr;
    require(cudaEventCreate(&start), "cudaEventCreate");
    require(cudaEventCreate(&stop), "cudaEventCreate");
    std::vector<double> times;
    {
        // A kernel's first launch loads it, which does not belong into a capture; and what fails,
        // fails here by its own name.
        for (const Launch& launch : launches) {
            require(launch(stream), "launch");
        }
        require(cudaStreamSynchronize(stream), "first launches");
        const LaunchGraph graph(launches, count, stream);
        for (int i = -kWarmUp; i < replays; ++i) {
            const double time = graph.replay(start, stop, stream);
            if (i >= 0) {
                times.push_back(time);
            }
        }
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    cudaStreamDestroy(stream);
    std::sort(times.begin(), times.end());
    return times;
}

}  // namespace vim_bench
