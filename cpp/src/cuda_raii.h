//! \file cuda_raii.h
//! Owners of what CUDA hands out, and its errors.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <utility>

#include "vim_deploy/result.h"

namespace vim_deploy {

//! The error of a CUDA call; also takes it off CUDA's record, so that the next call does not meet
//! it again.
inline Error cuda_error(cudaError_t status, std::string const& what) {
    static_cast<void>(cudaGetLastError());
    bool const memory = status == cudaErrorMemoryAllocation;
    return {memory ? "VIM-906" : "VIM-904",
            (memory ? "not enough GPU memory: " : "CUDA refused a call: ") + what,
            std::string(cudaGetErrorName(status)) + " (" +
                std::to_string(static_cast<int>(status)) + "): " + cudaGetErrorString(status),
            memory ? "use a smaller batch, fewer sessions, or an engine with a smaller --max-batch"
                   : "check that the engine and the plugin library are made for this GPU"};
}

inline Status checked(cudaError_t status, char const* what) {
    if (status != cudaSuccess) {
        return cuda_error(status, what);
    }
    return Done{};
}

//! A handle that is released once. `Release` is a CUDA function of one argument.
template <typename Handle, cudaError_t (*Release)(Handle)>
class Owned {
  public:
    Owned() = default;
    explicit Owned(Handle handle) noexcept : handle_(handle) {}
    Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Owned& operator=(Owned&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Owned() {
        if (handle_ != nullptr) {
            // Nothing can be done about a failure while tearing down.
            static_cast<void>(Release(handle_));
        }
    }

    Handle get() const noexcept { return handle_; }
    //! Where a CUDA function writes a new handle.
    Handle* out() noexcept { return &handle_; }

  private:
    Handle handle_ = nullptr;
};

using OwnedStream = Owned<cudaStream_t, cudaStreamDestroy>;
using OwnedEvent = Owned<cudaEvent_t, cudaEventDestroy>;
using OwnedGraph = Owned<cudaGraph_t, cudaGraphDestroy>;
using OwnedGraphExec = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;
using DeviceMemory = Owned<void*, cudaFree>;
//! Page-locked host memory: copies to and from the device are asynchronous and fast.
using PinnedMemory = Owned<void*, cudaFreeHost>;

//! Makes a device current, and the one before it again at the end.
class DeviceScope {
  public:
    explicit DeviceScope(int device) {
        status_ = cudaGetDevice(&before_);
        if (status_ == cudaSuccess && before_ != device) {
            status_ = cudaSetDevice(device);
            changed_ = status_ == cudaSuccess;
        }
    }
    DeviceScope(DeviceScope const&) = delete;
    DeviceScope& operator=(DeviceScope const&) = delete;
    ~DeviceScope() {
        if (changed_) {
            static_cast<void>(cudaSetDevice(before_));
        }
    }

    Status status() const { return checked(status_, "choosing the device"); }

  private:
    int before_ = 0;
    bool changed_ = false;
    cudaError_t status_ = cudaSuccess;
};

}  // namespace vim_deploy
