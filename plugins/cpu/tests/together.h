//! Pieces that run at once, whatever the machine: for ThreadSanitizer, and for orders of all kinds.
//!
//! A few cores and short pieces let one thread do all the work before the next one starts, and the
//! counter from which a driver deals pieces out puts them in an order that a race hides behind. So
//! here every thread that holds a piece waits, before it touches anything, until all others hold one
//! or have nothing left to do. They wait by relaxed operations, which order nothing: whatever two
//! pieces of a round do to the same bytes is a race to ThreadSanitizer. Only the start and the end
//! of parallel_for order anything, as the contract says. With as many threads as pieces all pieces
//! are one round.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "../kernels/tasks.h"

namespace vim_tests {

//! Where the threads of a pool wait for each other.
class Meeting {
  public:
    //! Before the threads start: how many will come or leave.
    void open(std::size_t threads) { state_.store(threads * kThread, std::memory_order_relaxed); }

    //! Waits until all threads that have not left are here.
    void arrive() {
        const std::uint64_t before = change(kWaiting, 0);
        while (round(state_.load(std::memory_order_relaxed)) == round(before)) {
            std::this_thread::yield();
        }
    }

    void leave() { change(0, kThread); }

  private:
    // Threads that wait, threads in all, and rounds, in one word: every change of it has its place.
    static constexpr std::uint64_t kWaiting = 1;
    static constexpr std::uint64_t kThread = std::uint64_t{1} << 16;
    static constexpr std::uint64_t kRound = std::uint64_t{1} << 32;

    static std::uint64_t round(std::uint64_t state) { return state / kRound; }

    //! Ends the round if everybody waits; the state before.
    std::uint64_t change(std::uint64_t more, std::uint64_t less) {
        std::uint64_t before = state_.load(std::memory_order_relaxed);
        std::uint64_t after = 0;
        do {
            after = before + more - less;
            const std::uint64_t waiting = after % kThread;
            if (waiting > 0 && waiting == after % kRound / kThread) {
                after += kRound - waiting;
            }
        } while (!state_.compare_exchange_weak(before, after, std::memory_order_relaxed));
        return before;
    }

    std::atomic<std::uint64_t> state_{0};
};

//! Threads for an Executor, and the order in which they take their indices.
struct Together {
    std::int32_t threads = 1;
    std::mt19937 order{1};
    Meeting meeting;
};

//! The meeting of the piece that this thread is at.
inline thread_local Meeting* current_meeting = nullptr;

inline void run_together(void* pool, std::size_t count, void (*body)(void*, std::size_t),
                         void* data) {
    Together& together = *static_cast<Together*>(pool);
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), together.order);
    together.meeting.open(static_cast<std::size_t>(together.threads));
    std::atomic<std::size_t> next{0};
    const auto take = [&] { return next.fetch_add(1, std::memory_order_relaxed); };
    const auto work = [&] {
        current_meeting = &together.meeting;
        for (std::size_t i = take(); i < count; i = take()) {
            body(data, order[i]);
        }
        current_meeting = nullptr;
        together.meeting.leave();
    };
    std::vector<std::thread> others;
    for (std::int32_t i = 1; i < together.threads; ++i) {
        others.emplace_back(work);
    }
    work();
    for (std::thread& other : others) {
        other.join();
    }
}

//! `together` lives as long as the executor.
inline vim_plugins::cpu::Executor executor_of(Together& together) {
    return {&together, run_together, together.threads};
}

//! The kernels behind `meeting_kernels`; one set at a time.
inline const vim_plugins::cpu::Kernels* kernels_that_meet = nullptr;
//! Bytes that every piece writes without a lock, when there are any: a race, to see that one is seen.
inline int* planted_race = nullptr;

template <auto kPart, typename Part>
struct Meets;

//! One of the kernels, after its pieces have met. Outside of pieces nobody waits.
template <auto kPart, typename... Args>
struct Meets<kPart, void (*)(Args...) noexcept> {
    static void run(Args... args) noexcept {
        if (current_meeting != nullptr) {
            current_meeting->arrive();
            if (planted_race != nullptr) {
                ++*planted_race;
            }
        }
        (kernels_that_meet->*kPart)(args...);
    }
};

template <auto kPart, typename Part>
Part meets(Part /*part*/) {
    return Meets<kPart, Part>::run;
}

//! The same kernels, whose pieces meet.
inline vim_plugins::cpu::Kernels meeting_kernels(const vim_plugins::cpu::Kernels& kernels) {
    using vim_plugins::cpu::Kernels;
    static_assert(sizeof(Kernels) == 6 * sizeof(void*), "a kernel was added: it has to meet below");
    kernels_that_meet = &kernels;
    Kernels out = kernels;
    out.prepare = meets<&Kernels::prepare>(kernels.prepare);
    out.scan = meets<&Kernels::scan>(kernels.scan);
    out.conv = meets<&Kernels::conv>(kernels.conv);
    out.suppress = meets<&Kernels::suppress>(kernels.suppress);
    out.pool = meets<&Kernels::pool>(kernels.pool);
    return out;
}

}  // namespace vim_tests
