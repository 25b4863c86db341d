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
int launches = 0;

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
    return launched(config->stream);
}
cudaError_t cudaGetLastError() {
    const cudaError_t kept = last_error;
    last_error = cudaSuccess;
    return kept;
}
cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return told();
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = 1;
    return told();
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    attributes->ptxVersion = 90;
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
    last_error = cudaErrorInvalidDevicePointer;
    CHECK(vim_plugins::runs_in_clusters<int>(kernel));
    CHECK(last_error == cudaErrorInvalidDevicePointer);
    answer = cudaErrorNoDevice;
    CHECK(!vim_plugins::runs_in_clusters<int>(kernel));
    CHECK(last_error == cudaSuccess);
    std::printf("ok\n");
    return 0;
}
