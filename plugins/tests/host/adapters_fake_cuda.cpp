//! \file adapters_fake_cuda.cpp
//! The CUDA functions and the kernel launches that the adapters reach, on a machine without a GPU:
//! launches are recorded, not run. Linked into the library under test.
#include <cuda_runtime_api.h>

#include "adapters_fakes.h"
#include "kernel_args.h"

namespace {

FakeLaunches launches;

}  // namespace

FakeLaunches* fake_launches() {
    return &launches;
}

extern "C" {

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return launches.has_device ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = 132;
    return cudaSuccess;
}

cudaError_t cudaGetLastError() {
    return cudaSuccess;
}

char const* cudaGetErrorName(cudaError_t) {
    return "cudaErrorFake";
}

char const* cudaGetErrorString(cudaError_t) {
    return "a fake error";
}

}  // extern "C"

namespace vim_plugins {
namespace {

cudaError_t record_scan(ScanArgs const& args, char const* kernel, cudaStream_t stream) {
    ++launches.count;
    launches.kernel = kernel;
    launches.stream = stream;
    launches.output = args.y;
    DirectionArgs const& direction = args.direction[args.forward ? 0 : 1];
    launches.inputs = {direction.u,      direction.dt,      direction.A, direction.bc,
                       direction.d_skip, direction.dt_bias, args.z};
    launches.batch = args.batch;
    launches.length = args.length;
    launches.channels = args.channels;
    launches.reverse_only = args.reverse && !args.forward;
    launches.scale = args.scale;
    return static_cast<cudaError_t>(launches.status);
}

cudaError_t record_conv(ConvArgs const& args, char const* kernel, cudaStream_t stream) {
    ++launches.count;
    launches.kernel = kernel;
    launches.stream = stream;
    launches.output = args.u2;
    launches.inputs = {args.x, args.w, args.bias};
    launches.batch = args.batch;
    launches.length = args.length;
    launches.channels = args.channels;
    return static_cast<cudaError_t>(launches.status);
}

}  // namespace

#define FAKE_LAUNCHES(type)                                                                \
    cudaError_t launch_serial_##type(const ScanArgs& args, cudaStream_t stream) {          \
        return record_scan(args, "serial_" #type, stream);                                 \
    }                                                                                      \
    cudaError_t launch_chunked_##type(const ScanArgs& args, Tactic, cudaStream_t stream) { \
        return record_scan(args, "chunked_" #type, stream);                                \
    }                                                                                      \
    cudaError_t launch_cluster_##type(const ScanArgs& args, Tactic, cudaStream_t stream) { \
        return record_scan(args, "cluster_" #type, stream);                                \
    }                                                                                      \
    cudaError_t launch_generic_##type(const ScanArgs& args, cudaStream_t stream) {         \
        return record_scan(args, "generic_" #type, stream);                                \
    }                                                                                      \
    cudaError_t launch_conv_##type(const ConvArgs& args, Tactic, cudaStream_t stream) {    \
        return record_conv(args, "conv_" #type, stream);                                   \
    }

FAKE_LAUNCHES(fp32)
FAKE_LAUNCHES(fp16)
FAKE_LAUNCHES(bf16)

bool clusters_run() {
    return launches.has_clusters;
}

}  // namespace vim_plugins
