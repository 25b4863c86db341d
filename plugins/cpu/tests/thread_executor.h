//! An executor of std::threads, for tests and benchmarks.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "../kernels/kernels.h"

namespace vim_tests {

//! Runs the pieces on `pool`'s number of threads, the calling one among them. together.h has one that
//! looks for races.
inline void run_on_threads(void* pool, std::size_t count, void (*body)(void*, std::size_t),
                           void* data) {
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
        for (std::size_t i = next++; i < count; i = next++) {
            body(data, i);
        }
    };
    const std::int32_t threads = *static_cast<std::int32_t*>(pool);
    std::vector<std::thread> others;
    for (std::int32_t i = 1; i < threads; ++i) {
        others.emplace_back(work);
    }
    work();
    for (std::thread& other : others) {
        other.join();
    }
}

//! `threads` lives as long as the executor.
inline vim_plugins::cpu::Executor thread_executor(std::int32_t& threads) {
    return {&threads, run_on_threads, threads};
}

}  // namespace vim_tests
