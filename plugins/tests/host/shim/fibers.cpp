//! See fibers.h.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define VIM_SHIM_ASAN 1
#else
#define VIM_SHIM_ASAN 0
#endif

namespace vim_shim {
namespace {

constexpr unsigned kWarp = 32;
constexpr std::size_t kStackBytes = std::size_t{256} << 10;

enum class Wait { kNone, kWarp, kBlock, kDone };

struct Fiber {
    Context context;
    std::unique_ptr<unsigned char[]> stack;
    void* fake_stack = nullptr;
    Wait wait = Wait::kNone;
    uint3 index{};
    unsigned warp = 0;
    unsigned lane = 0;
    unsigned shuffles = 0;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<unsigned> order;
    //! Two rounds of values in flight: a lane may run one shuffle ahead of its slowest neighbour.
    std::vector<float> mailbox[2];
    std::vector<unsigned> warp_alive, warp_waiting;
    unsigned alive = 0, block_waiting = 0;
    Context scheduler;
    void* scheduler_fake_stack = nullptr;
    const void* scheduler_stack = nullptr;
    std::size_t scheduler_stack_bytes = 0;
    Fiber* current = nullptr;
    uint3 index{};
    void* shared = nullptr;
    std::size_t shared_bytes = 0;
    void (*body)(const void*) = nullptr;
    const void* argument = nullptr;
    Schedule schedule = Schedule::kAscending;
    std::mt19937 random{1};
};

Block& block() {
    static Block instance;
    return instance;
}

void enter_fiber(Fiber& fiber) {
    Block& b = block();
    b.current = &fiber;
#if VIM_SHIM_ASAN
    __sanitizer_start_switch_fiber(&b.scheduler_fake_stack, fiber.stack.get(), kStackBytes);
#endif
    b.scheduler.switch_to(fiber.context);
#if VIM_SHIM_ASAN
    __sanitizer_finish_switch_fiber(b.scheduler_fake_stack, nullptr, nullptr);
#endif
}

void leave_fiber(bool for_good) {
    Block& b = block();
    Fiber& fiber = *b.current;
#if VIM_SHIM_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.fake_stack, b.scheduler_stack,
                                   b.scheduler_stack_bytes);
#endif
    (void)for_good;
    fiber.context.switch_to(b.scheduler);
#if VIM_SHIM_ASAN
    __sanitizer_finish_switch_fiber(fiber.fake_stack, &b.scheduler_stack, &b.scheduler_stack_bytes);
#endif
}

void fiber_main() {
    Block& b = block();
#if VIM_SHIM_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &b.scheduler_stack, &b.scheduler_stack_bytes);
#endif
    b.body(b.argument);
    b.current->wait = Wait::kDone;
    leave_fiber(true);
}

void prepare(unsigned threads) {
    Block& b = block();
    b.fibers.resize(threads);
    b.order.resize(threads);
    const unsigned warps = (threads + kWarp - 1) / kWarp;
    b.warp_alive.assign(warps, 0);
    b.warp_waiting.assign(warps, 0);
    b.mailbox[0].assign(threads, std::numeric_limits<float>::quiet_NaN());
    b.mailbox[1] = b.mailbox[0];
    b.alive = threads;
    b.block_waiting = 0;
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& fiber = b.fibers[i];
        if (!fiber.stack) {
            fiber.stack.reset(new unsigned char[kStackBytes]);
        }
        fiber.fake_stack = nullptr;
        fiber.wait = Wait::kNone;
        fiber.index = {i, 0, 0};
        fiber.warp = i / kWarp;
        fiber.lane = i % kWarp;
        fiber.shuffles = 0;
        fiber.context.start(fiber.stack.get(), kStackBytes, fiber_main);
        ++b.warp_alive[fiber.warp];
        b.order[i] = b.schedule == Schedule::kDescending ? threads - 1 - i : i;
    }
    if (b.schedule == Schedule::kShuffled) {
        std::shuffle(b.order.begin(), b.order.end(), b.random);
    }
}

//! Opens a warp's barrier when all its living fibers have reached it.
bool open_warp(unsigned warp) {
    Block& b = block();
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

//! Opens every barrier that everyone still alive has reached; true when there was one.
bool open_barriers() {
    Block& b = block();
    bool opened = false;
    for (unsigned warp = 0; warp < b.warp_alive.size(); ++warp) {
        opened |= open_warp(warp);
    }
    if (b.block_waiting > 0 && b.block_waiting == b.alive) {
        for (Fiber& fiber : b.fibers) {
            if (fiber.wait == Wait::kBlock) {
                fiber.wait = Wait::kNone;
            }
        }
        b.block_waiting = 0;
        opened = true;
    }
    return opened;
}

//! Lets one fiber run to its next barrier and counts it there.
void step(Fiber& fiber) {
    Block& b = block();
    enter_fiber(fiber);
    switch (fiber.wait) {
        case Wait::kWarp:
            ++b.warp_waiting[fiber.warp];
            break;
        case Wait::kBlock:
            ++b.block_waiting;
            break;
        default:
            --b.warp_alive[fiber.warp];
            --b.alive;
    }
}

//! Lets the runnable fibers of one warp step once; true when there was one.
bool step_warp(unsigned warp) {
    Block& b = block();
    bool ran = false;
    for (unsigned at = 0; at < b.order.size(); ++at) {
        Fiber& fiber = b.fibers[b.order[at]];
        if (fiber.warp == warp && fiber.wait == Wait::kNone) {
            step(fiber);
            ran = true;
        }
    }
    return ran;
}

//! One block to its end; false when its threads wait for each other for ever. Ascending: all warps
//! advance together. Otherwise each warp runs as far as it can before the next one starts, so that
//! anything a warp may do ahead of its neighbours is done.
bool run_block() {
    Block& b = block();
    const auto warps = static_cast<unsigned>(b.warp_alive.size());
    while (b.alive > 0) {
        bool ran = false;
        for (unsigned i = 0; i < warps; ++i) {
            const unsigned warp = b.schedule == Schedule::kDescending ? warps - 1 - i : i;
            while (step_warp(warp)) {
                ran = true;
                if (b.schedule == Schedule::kAscending || !open_warp(warp)) {
                    break;
                }
            }
        }
        if (!open_barriers() && !ran) {
            return false;
        }
    }
    return true;
}

}  // namespace

void set_schedule(Schedule schedule) {
    block().schedule = schedule;
}

const uint3& thread_index() {
    return block().current->index;
}

const uint3& block_index() {
    return block().index;
}

void block_barrier() {
    block().current->wait = Wait::kBlock;
    leave_fiber(false);
}

void warp_barrier() {
    block().current->wait = Wait::kWarp;
    leave_fiber(false);
}

float shuffle(float value, int offset) {
    Block& b = block();
    Fiber& fiber = *b.current;
    std::vector<float>& mailbox = b.mailbox[fiber.shuffles++ % 2];
    mailbox[fiber.index.x] = value;
    warp_barrier();
    const int source = static_cast<int>(fiber.lane) + offset;
    if (source < 0 || source >= static_cast<int>(kWarp)) {
        return value;
    }
    return mailbox[fiber.warp * kWarp + static_cast<unsigned>(source)];
}

void* dynamic_shared(std::size_t bytes) {
    Block& b = block();
    if (bytes > b.shared_bytes) {
        std::fprintf(stderr, "shim: kernel uses %zu bytes of shared memory, launched with %zu\n",
                     bytes, b.shared_bytes);
        std::abort();
    }
    return b.shared;
}

cudaError_t run_threads(dim3 grid, dim3 thread_block, std::size_t shared_bytes,
                        void (*body)(const void*), const void* argument) {
    if (grid.x == 0 || thread_block.x == 0 || thread_block.x > 1024 || grid.y != 1 || grid.z != 1 ||
        thread_block.y != 1 || thread_block.z != 1 || shared_bytes > (std::size_t{48} << 10)) {
        return cudaErrorInvalidValue;
    }
    Block& b = block();
    b.body = body;
    b.argument = argument;
    b.shared_bytes = shared_bytes;
    for (unsigned i = 0; i < grid.x; ++i) {
        // A buffer of its own per block: nothing survives from the block before.
        const std::unique_ptr<void, void (*)(void*)> shared(
            std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16 + (shared_bytes == 0 ? 16 : 0)),
            std::free);
        std::memset(shared.get(), 0xFF, shared_bytes);
        b.shared = shared.get();
        b.index = {i, 0, 0};
        prepare(thread_block.x);
        if (!run_block()) {
            std::fprintf(stderr, "shim: block %u: its threads wait for each other for ever\n", i);
            b.fibers.clear();
            return cudaErrorLaunchFailure;
        }
    }
    return cudaSuccess;
}

}  // namespace vim_shim
