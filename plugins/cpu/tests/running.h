//! How the sweep runs a kernel: by every instruction set that runs here, with pieces that meet.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "together.h"

namespace vim_tests {

namespace cpu = vim_plugins::cpu;

//! One run, with a workspace of exactly the size asked for, which starts as NaN.
template <typename Params>
void run_meeting(const Params& params, const cpu::Kernels& kernels, std::int32_t threads,
                 std::uint32_t seed) {
    Together together;
    together.threads = threads;
    together.order.seed(seed);
    const std::size_t bytes = cpu::workspace_bytes(params, threads);
    const std::unique_ptr<void, void (*)(void*)> workspace(
        std::aligned_alloc(cpu::kWorkspaceAlignment, bytes), std::free);
    std::memset(workspace.get(), 0xFF, bytes);
    cpu::run_with(meeting_kernels(kernels), params, workspace.get(), executor_of(together));
}

inline std::vector<const cpu::Kernels*> all_kernels() {
    std::vector<const cpu::Kernels*> found;
    for (const char* name : {"avx512", "avx2", "sse2", "neon", "scalar"}) {
        if (const cpu::Kernels* kernels = cpu::kernels_named(name)) {
            found.push_back(kernels);
        }
    }
    return found;
}

}  // namespace vim_tests
