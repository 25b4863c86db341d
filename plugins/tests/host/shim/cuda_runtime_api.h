//! Stand-in for CUDA's host header: the few types and calls that the kernel library uses.
#pragma once

#include <cstddef>

//! Whether the device has thread block clusters; the one of the shim does unless told otherwise.
extern "C" int vim_shim_clusters();
extern "C" void vim_shim_set_clusters(int present);

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
using cudaStream_t = struct CUstream_st*;

inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

//! The H200's count, so that default tactics are those of a large GPU.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = 132;
    return cudaSuccess;
}

inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}

inline const char* cudaGetErrorName(cudaError_t) {
    return "cudaErrorOfTheShim";
}

inline const char* cudaGetErrorString(cudaError_t) {
    return "an error of the shim";
}

#define CUDART_VERSION 13000
