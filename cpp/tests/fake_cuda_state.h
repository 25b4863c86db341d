//! \file fake_cuda_state.h
//! What the fake CUDA runtime knows: allocations, calls, streams and their work.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fakes.h"

using Work = std::function<void()>;

struct CUgraph_st {
    std::vector<Work> work;
};

struct CUgraphExec_st {
    std::vector<Work> work;
};

struct CUstream_st {
    std::mutex mutex;
    std::deque<Work> work;
    std::unique_ptr<CUgraph_st> graph;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    std::thread::id capturer;
};

struct CUevent_st {
    cudaStream_t stream = nullptr;
    std::shared_ptr<std::atomic<bool>> done;
};

namespace fake_cuda {

struct Allocation {
    std::size_t bytes;
    bool device;
};

struct State {
    std::mutex mutex;
    std::map<char const*, Allocation> allocations;
    std::map<std::string, int> calls;
    std::map<std::string, int> live;
    std::vector<cudaStream_t> streams;
    std::string fail_name;
    int fail_at = 0;
    cudaError_t fail_status = cudaErrorMemoryAllocation;
    std::atomic<bool> faulty{false};

    State();
};

State& state();

//! Makes `status` what cudaGetLastError gives, and returns it.
cudaError_t failed(cudaError_t status);
//! The error of the last failed call of this thread, which is forgotten.
cudaError_t take_last_error();
//! Counts a call; an error when this one is to fail, or is not allowed during a capture.
cudaError_t begin(char const* name, bool safe_in_capture = true);
//! Counts objects that are alive.
void count(char const* kind, int change);
//! Runs the front of a stream's work; false when there is none.
bool run_one(cudaStream_t stream);
//! Runs a stream's work until `done`.
void run_until(cudaStream_t stream, std::shared_ptr<std::atomic<bool>> const& done);

}  // namespace fake_cuda
