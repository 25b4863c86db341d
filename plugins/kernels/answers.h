//! What CUDA answered to a call of ours.
#pragma once

#include <cuda_runtime_api.h>

namespace vim_plugins {

//! The answer itself. CUDA also keeps a failure for whoever asks for the last error: one of ours is
//! reported by what the caller returns, so it is taken from there, or it would fail a later call of
//! the host. One that the host left there is the host's: it is no fault of this call, and stays.
inline cudaError_t answered(cudaError_t status) {
    if (status != cudaSuccess) {
        static_cast<void>(cudaGetLastError());
    }
    return status;
}

}  // namespace vim_plugins
