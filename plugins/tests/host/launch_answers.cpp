//! \file launch_answers.cpp
//! What a launch makes of CUDA's answers and of its last error, over functions that answer as they
//! are told. Compiled without VIM_PLUGINS_HOST_SHIM, so that this is the code that runs on a GPU.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "launch.cuh"

namespace {

cudaError_t answer = cudaSuccess;
cudaError_t last_error = cudaSuccess;
cudaStream_t launched_on = nullptr;
unsigned launched_cluster = 0;
int launches = 0;
//! What the fake devices are: whether they have clusters, and of which PTX their code was made.
constexpr struct {
    int clusters;
    int ptx;
} kDevices[] = {{1, 90}, {1, 80}, {0, 90}, {1, 120}};
int device_now = 0;
int asked = 0;

//! As CUDA: a failure is returned and kept, success leaves alone what is kept.
cudaError_t told() {
    last_error = answer != cudaSuccess ? answer : last_error;
    return answer;
}

cudaError_t launched(cudaStream_t stream) {
    ++launches;
    launched_on = stream;
    return told();
}

void check(bool right, int line, const char* what) {
    if (!right) {
        std::printf("FAILED line %d: %s\n", line, what);
        std::exit(1);
    }
}

#define CHECK(condition) check((condition), __LINE__, #condition)

void kernel(int) {}

const auto kStream = reinterpret_cast<cudaStream_t>(7);

cudaError_t plain() {
    return vim_plugins::launch_kernel<int>(kernel, dim3(2), dim3(32), 0, 1, kStream);
}

cudaError_t clusters() {
    return vim_plugins::launch_in_clusters<int>(kernel, 2, dim3(2), dim3(32), 0, 1, kStream);
}

}  // namespace

extern "C" {

cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t stream) {
    return launched(stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void*, void**) {
    const bool cluster =
        config->numAttrs == 1 && config->attrs[0].id == cudaLaunchAttributeClusterDimension;
    const auto& size = config->attrs[0].val.clusterDim;
    launched_cluster = cluster && size.y == 1 && size.z == 1 ? size.x : 0;
    return launched(config->stream);
}
cudaError_t cudaGetLastError() {
    const cudaError_t kept = last_error;
    last_error = cudaSuccess;
    return kept;
}
cudaError_t cudaGetDevice(int* device) {
    *device = device_now;
    return told();
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    ++asked;
    *value = kDevices[device_now].clusters;
    return told();
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    attributes->ptxVersion = kDevices[device_now].ptx;
    return told();
}

}  // extern "C"

int main() {
    for (cudaError_t (*launch)() : {plain, clusters}) {
        // What somebody else failed at before is no fault of the launch, and stays for them to see.
        launches = 0;
        last_error = cudaErrorInvalidDevicePointer;
        CHECK(launch() == cudaSuccess);
        CHECK(launches == 1 && launched_on == kStream);
        CHECK(last_error == cudaErrorInvalidDevicePointer);
        // A failure is told, and nobody finds it again later.
        answer = cudaErrorNoKernelImageForDevice;
        CHECK(launch() == cudaErrorNoKernelImageForDevice);
        CHECK(last_error == cudaSuccess);
        answer = cudaSuccess;
        CHECK(launch() == cudaSuccess);
    }
    CHECK(launched_cluster == 2);
    last_error = cudaErrorInvalidDevicePointer;
    for (const bool again : {false, true}) {
        asked = 0;
        for (device_now = 0; device_now < 3; ++device_now) {
            // Device 1 has clusters, but code made from PTX of a device that has not.
            CHECK(vim_plugins::runs_in_clusters<int>(kernel) == (device_now == 0));
        }
        CHECK(asked == (again ? 0 : 3));
    }
    CHECK(last_error == cudaErrorInvalidDevicePointer);
    // What could not be asked is asked again.
    answer = cudaErrorNoDevice;
    CHECK(!vim_plugins::runs_in_clusters<int>(kernel));
    CHECK(last_error == cudaSuccess);
    answer = cudaSuccess;
    CHECK(vim_plugins::runs_in_clusters<int>(kernel));
    std::printf("ok\n");
    return 0;
}
