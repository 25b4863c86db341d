//! \file fake_cuda_state.cpp
#include "fake_cuda_state.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace fake_cuda {
namespace {

thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

State::State() {
    char const* text = std::getenv("FAKE_CUDA_FAIL");
    if (text != nullptr) {
        fail_name = std::string(text, std::strcspn(text, ":"));
        fail_at = std::atoi(text + fail_name.size() + 1);
    }
}

State& state() {
    static auto* instance = new State;
    return *instance;
}

cudaError_t failed(cudaError_t status) {
    last_error = status;
    return status;
}

cudaError_t take_last_error() {
    return std::exchange(last_error, cudaSuccess);
}

cudaError_t begin(char const* name, bool safe_in_capture) {
    State& all = state();
    std::lock_guard<std::mutex> const lock(all.mutex);
    ++all.calls[name];
    if (all.fail_name == name && all.fail_at > 0 && --all.fail_at == 0) {
        return failed(all.fail_status);
    }
    for (cudaStream_t stream : all.streams) {
        std::lock_guard<std::mutex> const stream_lock(stream->mutex);
        bool const mine = stream->capturer == std::this_thread::get_id();
        bool const everyone = stream->mode == cudaStreamCaptureModeGlobal;
        if (!safe_in_capture && stream->graph != nullptr && (mine || everyone)) {
            return failed(cudaErrorStreamCaptureUnsupported);
        }
    }
    return cudaSuccess;
}

void count(char const* kind, int change) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    state().live[kind] += change;
}

bool run_one(cudaStream_t stream) {
    Work work;
    {
        std::lock_guard<std::mutex> const lock(stream->mutex);
        if (stream->work.empty()) {
            return false;
        }
        work = std::move(stream->work.front());
        stream->work.pop_front();
    }
    work();
    return true;
}

void run_until(cudaStream_t stream, std::shared_ptr<std::atomic<bool>> const& done) {
    while (done != nullptr && !*done && run_one(stream)) {
    }
}

namespace {

[[gnu::destructor]] void check_leftovers() {
    State& all = state();
    all.live["allocation"] = static_cast<int>(all.allocations.size());
    bool left = false;
    for (auto const& [kind, number] : all.live) {
        if (number != 0) {
            std::fprintf(stderr, "fake CUDA: %d %s(s) left over\n", number, kind.c_str());
            left = true;
        }
    }
    if (all.faulty || left) {
        std::fflush(nullptr);
        ::_exit(all.faulty ? 97 : 98);
    }
}

}  // namespace
}  // namespace fake_cuda

using fake_cuda::state;

void fake_cuda_fail(char const* name, int nth, cudaError_t status) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    state().fail_name = name;
    state().fail_at = nth;
    state().fail_status = status;
}

int fake_cuda_calls(char const* name) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    return state().calls[name];
}

void fake_cuda_enqueue(cudaStream_t stream, Work work) {
    std::lock_guard<std::mutex> const lock(stream->mutex);
    if (stream->graph != nullptr) {
        stream->graph->work.push_back(std::move(work));
    } else {
        stream->work.push_back(std::move(work));
    }
}

bool fake_cuda_is_capturing(cudaStream_t stream) {
    std::lock_guard<std::mutex> const lock(stream->mutex);
    return stream->graph != nullptr;
}

bool fake_cuda_is_device(void const* pointer, std::size_t bytes) {
    auto const* first = static_cast<char const*>(pointer);
    std::lock_guard<std::mutex> const lock(state().mutex);
    auto found = state().allocations.upper_bound(first);
    if (found == state().allocations.begin()) {
        return false;
    }
    --found;
    return found->second.device && first + bytes <= found->first + found->second.bytes;
}

void fake_fault(char const* what) {
    std::fprintf(stderr, "fake: %s\n", what);
    state().faulty = true;
}
