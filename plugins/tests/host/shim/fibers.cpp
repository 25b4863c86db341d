//! See fibers.h.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "cluster_state.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define VIM_SHIM_ASAN 1
#else
#define VIM_SHIM_ASAN 0
#endif

namespace vim_shim {
namespace {

void enter_fiber(Fiber& fiber) {
    Cluster& c = cluster();
    c.current = &fiber;
#if VIM_SHIM_ASAN
    __sanitizer_start_switch_fiber(&c.scheduler_fake_stack, fiber.stack.get(), kStackBytes);
#endif
    c.scheduler.switch_to(fiber.context);
#if VIM_SHIM_ASAN
    __sanitizer_finish_switch_fiber(c.scheduler_fake_stack, nullptr, nullptr);
#endif
}

void leave_fiber(bool for_good) {
    Cluster& c = cluster();
    Fiber& fiber = *c.current;
#if VIM_SHIM_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.fake_stack, c.scheduler_stack,
                                   c.scheduler_stack_bytes);
#endif
    (void)for_good;
    fiber.context.switch_to(c.scheduler);
#if VIM_SHIM_ASAN
    __sanitizer_finish_switch_fiber(fiber.fake_stack, &c.scheduler_stack, &c.scheduler_stack_bytes);
#endif
}

void fiber_main() {
    Cluster& c = cluster();
#if VIM_SHIM_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &c.scheduler_stack, &c.scheduler_stack_bytes);
#endif
    c.body(c.argument);
    if (c.current->arrived) {
        fault("ends between its arrival at the cluster's barrier and its wait there");
    }
    c.current->wait = Wait::kDone;
    leave_fiber(true);
}

void prepare(Block& b, unsigned rank, unsigned index, unsigned threads) {
    const Cluster& c = cluster();
    b.rank = rank;
    b.index = {index, 0, 0};
    // A buffer of its own per block: nothing survives from the block before.
    b.shared.reset(
        std::aligned_alloc(16, (c.shared_bytes + 15) / 16 * 16 + (c.shared_bytes == 0 ? 16 : 0)));
    std::memset(b.shared.get(), 0xFF, c.shared_bytes);
    b.fibers.resize(threads);
    b.order.resize(threads);
    const unsigned warps = (threads + kWarp - 1) / kWarp;
    b.warp_alive.assign(warps, 0);
    b.warp_waiting.assign(warps, 0);
    b.mailbox[0].assign(threads, std::numeric_limits<float>::quiet_NaN());
    b.mailbox[1] = b.mailbox[0];
    b.alive = threads;
    b.waiting = 0;
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& fiber = b.fibers[i];
        if (!fiber.stack) {
            fiber.stack.reset(new unsigned char[kStackBytes]);
        }
        fiber.fake_stack = nullptr;
        fiber.wait = Wait::kNone;
        fiber.block = &b;
        fiber.index = {i, 0, 0};
        fiber.warp = i / kWarp;
        fiber.lane = i % kWarp;
        fiber.shuffles = 0;
        fiber.arrived = false;
        fiber.context.start(fiber.stack.get(), kStackBytes, fiber_main);
        ++b.warp_alive[fiber.warp];
        b.order[i] = c.schedule == Schedule::kDescending ? threads - 1 - i : i;
    }
    if (c.schedule == Schedule::kShuffled) {
        std::shuffle(b.order.begin(), b.order.end(), cluster().random);
    }
}

//! Opens a warp's barrier when all its living fibers have reached it.
bool open_warp(Block& b, unsigned warp) {
    if (b.warp_waiting[warp] == 0 || b.warp_waiting[warp] != b.warp_alive[warp]) {
        return false;
    }
    for (Fiber& fiber : b.fibers) {
        if (fiber.warp == warp && fiber.wait == Wait::kWarp) {
            fiber.wait = Wait::kNone;
        }
    }
    b.warp_waiting[warp] = 0;
    return true;
}

//! Opens every barrier within a block that all its living fibers have reached; true when there was
//! one.
bool open_block(Block& b) {
    bool opened = false;
    for (unsigned warp = 0; warp < b.warp_alive.size(); ++warp) {
        opened |= open_warp(b, warp);
    }
    if (b.waiting > 0 && b.waiting == b.alive) {
        for (Fiber& fiber : b.fibers) {
            if (fiber.wait == Wait::kBlock) {
                fiber.wait = Wait::kNone;
            }
        }
        b.waiting = 0;
        opened = true;
    }
    return opened;
}

unsigned alive_in_cluster() {
    unsigned alive = 0;
    for (const Block& b : cluster().blocks) {
        alive += b.alive;
    }
    return alive;
}

//! Opens the cluster's barrier when every living fiber has arrived at it.
bool open_cluster() {
    Cluster& c = cluster();
    if (c.arrived == 0 || c.arrived != alive_in_cluster()) {
        return false;
    }
    c.arrived = 0;
    ++c.phase;
    for (Block& b : c.blocks) {
        for (Fiber& fiber : b.fibers) {
            if (fiber.wait == Wait::kCluster) {
                fiber.wait = Wait::kNone;
            }
        }
    }
    return true;
}

//! Lets one fiber run to its next barrier and counts it there.
void step(Fiber& fiber) {
    Block& b = *fiber.block;
    enter_fiber(fiber);
    switch (fiber.wait) {
        case Wait::kWarp:
            ++b.warp_waiting[fiber.warp];
            break;
        case Wait::kBlock:
            ++b.waiting;
            break;
        case Wait::kDone:
            --b.warp_alive[fiber.warp];
            --b.alive;
            break;
        default:
            break;
    }
}

//! Lets the runnable fibers of one warp step once; true when there was one.
bool step_warp(Block& b, unsigned warp) {
    bool ran = false;
    for (const unsigned at : b.order) {
        Fiber& fiber = b.fibers[at];
        if (fiber.warp == warp && fiber.wait == Wait::kNone) {
            step(fiber);
            ran = true;
        }
    }
    return ran;
}

//! Lets every warp of a block advance; true when one did. Ascending: all warps advance together.
//! Otherwise each runs as far as it can before the next one starts, so that anything a warp may do
//! ahead of its neighbours is done.
bool step_block(Block& b) {
    const Schedule schedule = cluster().schedule;
    const auto warps = static_cast<unsigned>(b.warp_alive.size());
    bool ran = false;
    for (unsigned i = 0; i < warps; ++i) {
        const unsigned warp = schedule == Schedule::kDescending ? warps - 1 - i : i;
        while (step_warp(b, warp)) {
            ran = true;
            if (schedule == Schedule::kAscending || !open_warp(b, warp)) {
                break;
            }
        }
    }
    return ran;
}

//! The blocks of a cluster to their ends; false when threads wait for each other for ever. In what
//! order blocks advance and how far is as with warps.
bool run_cluster() {
    Cluster& c = cluster();
    const std::size_t count = c.blocks.size();
    while (alive_in_cluster() > 0) {
        bool advanced = false;
        for (std::size_t i = 0; i < count; ++i) {
            Block& b = c.blocks[c.schedule == Schedule::kDescending ? count - 1 - i : i];
            bool again = true;
            while (again) {
                const bool ran = step_block(b);
                const bool opened = open_block(b);
                advanced = advanced || ran || opened;
                again = c.schedule != Schedule::kAscending && (ran || opened);
            }
        }
        if (!open_cluster() && !advanced) {
            return false;
        }
    }
    return true;
}

}  // namespace

void set_schedule(Schedule schedule) {
    cluster().schedule = schedule;
}

const uint3& thread_index() {
    return cluster().current->index;
}

const uint3& block_index() {
    return cluster().current->block->index;
}

unsigned cluster_rank() {
    return cluster().current->block->rank;
}

void block_barrier() {
    cluster().current->wait = Wait::kBlock;
    leave_fiber(false);
}

void warp_barrier() {
    cluster().current->wait = Wait::kWarp;
    leave_fiber(false);
}

void cluster_arrive() {
    Cluster& c = cluster();
    if (c.current->arrived) {
        fault("arrives at the cluster's barrier again without having waited there");
    }
    c.current->arrived = true;
    c.current->cluster_phase = c.phase;
    ++c.arrived;
}

void cluster_wait() {
    Cluster& c = cluster();
    Fiber& fiber = *c.current;
    if (!fiber.arrived) {
        fault("waits at the cluster's barrier without having arrived there");
    }
    if (c.phase == fiber.cluster_phase) {
        fiber.wait = Wait::kCluster;
        leave_fiber(false);
    }
    fiber.arrived = false;
}

void* remote_shared(void* own, unsigned rank) {
    Cluster& c = cluster();
    const Block& from = *c.current->block;
    if (rank >= c.blocks.size()) {
        fault("reaches for a block that is not in its cluster");
    }
    const auto offset = static_cast<std::size_t>(static_cast<unsigned char*>(own) -
                                                 static_cast<unsigned char*>(from.shared.get()));
    if (offset >= c.shared_bytes) {
        fault("maps an address that is not in its shared memory");
    }
    const Block& to = c.blocks[rank];
    if (&to != &from && c.phase == 0) {
        fault("reaches for a block that no barrier has shown to have started");
    }
    if (to.alive == 0) {
        fault("reaches for a block that has ended");
    }
    return static_cast<unsigned char*>(to.shared.get()) + offset;
}

float shuffle(float value, int offset) {
    Fiber& fiber = *cluster().current;
    std::vector<float>& mailbox = fiber.block->mailbox[fiber.shuffles++ % 2];
    mailbox[fiber.index.x] = value;
    warp_barrier();
    const int source = static_cast<int>(fiber.lane) + offset;
    if (source < 0 || source >= static_cast<int>(kWarp)) {
        return value;
    }
    return mailbox[fiber.warp * kWarp + static_cast<unsigned>(source)];
}

void* dynamic_shared(std::size_t bytes) {
    const Cluster& c = cluster();
    if (bytes > c.shared_bytes) {
        std::fprintf(stderr, "shim: kernel uses %zu bytes of shared memory, launched with %zu\n",
                     bytes, c.shared_bytes);
        std::abort();
    }
    return c.current->block->shared.get();
}

}  // namespace vim_shim

namespace {

int has_clusters = 1;

}  // namespace

extern "C" int vim_shim_clusters() {
    return has_clusters;
}

extern "C" void vim_shim_set_clusters(int present) {
    has_clusters = present;
}

namespace vim_shim {

cudaError_t run_threads(dim3 grid, dim3 thread_block, std::size_t shared_bytes,
                        unsigned cluster_blocks, void (*body)(const void*), const void* argument) {
    if (grid.x == 0 || thread_block.x == 0 || thread_block.x > 1024 || grid.y != 1 || grid.z != 1 ||
        thread_block.y != 1 || thread_block.z != 1 || shared_bytes > (std::size_t{48} << 10) ||
        cluster_blocks == 0 || cluster_blocks > 8 || grid.x % cluster_blocks != 0) {
        return cudaErrorInvalidValue;
    }
    Cluster& c = cluster();
    c.body = body;
    c.argument = argument;
    c.shared_bytes = shared_bytes;
    c.blocks.resize(cluster_blocks);
    for (unsigned first = 0; first < grid.x; first += cluster_blocks) {
        c.arrived = 0;
        c.phase = 0;
        for (unsigned rank = 0; rank < cluster_blocks; ++rank) {
            prepare(c.blocks[rank], rank, first + rank, thread_block.x);
        }
        if (!run_cluster()) {
            std::fprintf(stderr, "shim: block %u: threads wait for each other for ever\n", first);
            c.blocks.clear();
            return cudaErrorLaunchFailure;
        }
    }
    return cudaSuccess;
}

}  // namespace vim_shim
