//! \file fakes.h
//! What the fake CUDA runtime, the fake TensorRT and the checks share.
//!
//! The fake CUDA keeps device memory on the host and runs a stream's work only when something waits
//! for it, so that a missing wait shows. It knows every allocation and its bounds, refuses what
//! CUDA refuses while a stream is captured, and ends the process with exit code 98 when something
//! is left over at its end, 97 when something was used wrongly.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>

//! The `nth` call of the CUDA function `name` from now on fails with `status`, counted from 1;
//! 0: none. Also set by the environment: FAKE_CUDA_FAIL=cudaMalloc:2.
void fake_cuda_fail(char const* name, int nth, cudaError_t status);
//! Calls of a function so far.
int fake_cuda_calls(char const* name);
//! Puts work on a stream, into its graph while it is captured.
void fake_cuda_enqueue(cudaStream_t stream, std::function<void()> work);
bool fake_cuda_is_capturing(cudaStream_t stream);
//! Whether the bytes lie in one allocation of the device.
bool fake_cuda_is_device(void const* pointer, std::size_t bytes);
//! Says what is wrong; the process will end with exit code 97.
void fake_fault(char const* what);

//! Called by the fake plugin library.
extern "C" void fake_register_plugins();
//! The profile of the last run.
std::int32_t fake_last_profile();
//! Runs of engines so far, those of replayed graphs included.
std::int64_t fake_runs();

//! What the fake engine computes: a sum of the batch item's elements with small whole weights.
inline float fake_weight(std::size_t element, std::size_t output) {
    return static_cast<float>(static_cast<int>((element * 5 + output * 3) % 11) - 5);
}
