//! \file calls.h
//! Calls of ONNX Runtime's C API from C++: a status becomes an exception on the way in, an
//! exception becomes a status on the way out, and what ONNX Runtime lends is given back.
#pragma once

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "ort_api.h"

namespace vim_plugins::ort {

//! \throws std::runtime_error with ONNX Runtime's words when `status` says that a call failed.
inline void check(OrtApi const* api, OrtStatus* status) {
    if (status == nullptr) {
        return;
    }
    std::string const words = GetErrorMessage(api)(status);
    ReleaseStatus(api)(status);
    throw std::runtime_error(words);
}

//! Runs `body` for a callback of ONNX Runtime, which is C: nothing may be thrown into it.
template <typename Body>
OrtStatus* guarded(OrtApi const* api, Body&& body) noexcept {
    try {
        body();
        return nullptr;
    } catch (std::invalid_argument const& error) {
        return CreateStatus(api)(kInvalidArgument, error.what());
    } catch (std::exception const& error) {
        return CreateStatus(api)(kFail, error.what());
    } catch (...) {
        return CreateStatus(api)(kFail, "vim_deploy: an unknown error");
    }
}

//! Gives a handle back through the entry that releases its kind.
template <auto Release>
struct Releaser {
    OrtApi const* api;

    template <typename Handle>
    void operator()(Handle* handle) const noexcept {
        Release(api)(handle);
    }
};

using TensorInfo = std::unique_ptr<OrtTensorTypeAndShapeInfo,  //
                                   Releaser<ReleaseTensorTypeAndShapeInfo>>;
using MemoryInfo = std::unique_ptr<OrtMemoryInfo, Releaser<ReleaseMemoryInfo>>;
using Domain = std::unique_ptr<OrtCustomOpDomain, Releaser<ReleaseCustomOpDomain>>;
using Allocator = std::unique_ptr<OrtAllocator, Releaser<ReleaseAllocator>>;

//! Memory of one of ONNX Runtime's allocators, given back to it at the end.
class Scratch {
  public:
    Scratch(OrtApi const* api, Allocator allocator, void* pointer) noexcept
        : api_(api), allocator_(std::move(allocator)), pointer_(pointer) {}
    Scratch(Scratch const&) = delete;
    Scratch& operator=(Scratch const&) = delete;
    ~Scratch() {
        OrtStatus* const status = AllocatorFree(api_)(allocator_.get(), pointer_);
        if (status != nullptr) {
            ReleaseStatus(api_)(status);  // nobody is left to tell
        }
    }

    void* get() const noexcept { return pointer_; }

  private:
    OrtApi const* api_;
    Allocator allocator_;
    void* pointer_;
};

}  // namespace vim_plugins::ort
