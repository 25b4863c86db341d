//! What the shim knows of the threads and blocks that run together. See fibers.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "context.h"

namespace vim_shim {

inline constexpr unsigned kWarp = 32;
inline constexpr std::size_t kStackBytes = std::size_t{256} << 10;

enum class Wait { kNone, kWarp, kBlock, kCluster, kDone };

struct Block;

struct Fiber {
    Context context;
    std::unique_ptr<unsigned char[]> stack;
    void* fake_stack = nullptr;
    Wait wait = Wait::kNone;
    Block* block = nullptr;
    uint3 index{};
    unsigned warp = 0;
    unsigned lane = 0;
    unsigned shuffles = 0;
    bool arrived = false;             //!< at the cluster's barrier, and has not waited there yet
    std::uint64_t cluster_phase = 0;  //!< the barrier it arrived at
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<unsigned> order;
    //! Two rounds of values in flight: a lane may run one shuffle ahead of its slowest neighbour.
    std::vector<float> mailbox[2];
    std::vector<unsigned> warp_alive, warp_waiting;
    unsigned alive = 0, waiting = 0;
    uint3 index{};
    unsigned rank = 0;  //!< in its cluster
    std::unique_ptr<void, void (*)(void*)> shared{nullptr, std::free};
};

//! The blocks that run together, and what runs them.
struct Cluster {
    std::vector<Block> blocks;
    unsigned arrived = 0;
    std::uint64_t phase = 0;  //!< barriers of the cluster that have opened
    Context scheduler;
    void* scheduler_fake_stack = nullptr;
    const void* scheduler_stack = nullptr;
    std::size_t scheduler_stack_bytes = 0;
    Fiber* current = nullptr;
    std::size_t shared_bytes = 0;
    void (*body)(const void*) = nullptr;
    const void* argument = nullptr;
    Schedule schedule = Schedule::kAscending;
    std::mt19937 random{1};
};

inline Cluster& cluster() {
    static Cluster instance;
    return instance;
}

//! Ends the program: the kernel did what on a GPU has no defined result.
[[noreturn]] inline void fault(const char* what) {
    const Fiber& fiber = *cluster().current;
    std::fprintf(stderr, "shim: block %u, thread %u: %s\n", fiber.block->index.x, fiber.index.x,
                 what);
    std::abort();
}

}  // namespace vim_shim
