//! \file ort_calls.h
//! Calls of ONNX Runtime's C API: a status becomes an error, and what is lent is given back.
#pragma once

#include <memory>
#include <string>

#include "ort_api.h"
#include "vim_deploy/result.h"

namespace vim_deploy {

namespace ort = vim_plugins::ort;

//! ONNX Runtime's words when a call failed; empty when it did not.
inline std::string words_of(OrtApi const* api, OrtStatus* status) {
    if (status == nullptr) {
        return "";
    }
    std::string words = ort::GetErrorMessage(api)(status);
    ort::ReleaseStatus(api)(status);
    return words.empty() ? "it gave no reason" : words;
}

//! Gives a handle back through the entry that releases its kind.
template <auto Release>
struct OrtReleaser {
    OrtApi const* api = nullptr;

    template <typename Handle>
    void operator()(Handle* handle) const noexcept {
        Release(api)(handle);
    }
};

using OwnedOptions = std::unique_ptr<OrtSessionOptions, OrtReleaser<ort::ReleaseSessionOptions>>;
using OwnedSession = std::unique_ptr<OrtSession, OrtReleaser<ort::ReleaseSession>>;
using OwnedValue = std::unique_ptr<OrtValue, OrtReleaser<ort::ReleaseValue>>;
using OwnedMemoryInfo = std::unique_ptr<OrtMemoryInfo, OrtReleaser<ort::ReleaseMemoryInfo>>;
using OwnedShape = std::unique_ptr<OrtTensorTypeAndShapeInfo,  //
                                   OrtReleaser<ort::ReleaseTensorTypeAndShapeInfo>>;

}  // namespace vim_deploy
