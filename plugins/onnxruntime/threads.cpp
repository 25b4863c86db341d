//! \file threads.cpp
#include "threads.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <vector>

namespace vim_plugins::ort {
namespace {

//! More pieces than this are worth nothing to any op.
constexpr std::int32_t kMostThreads = 1024;

std::int32_t cpus_of_affinity() {
    // The kernel refuses a mask that is smaller than its own, whose size it does not tell.
    for (std::size_t cpus = CPU_SETSIZE; cpus <= (std::size_t{1} << 20); cpus *= 2) {
        std::vector<cpu_set_t> mask(cpus / CPU_SETSIZE);
        std::size_t const bytes = mask.size() * sizeof(cpu_set_t);
        if (sched_getaffinity(0, bytes, mask.data()) == 0) {
            return CPU_COUNT_S(bytes, mask.data());
        }
    }
    return 1;
}

// CPUs of the quota that a container sees as its own; 0 when there is none. Version 2 of cgroups
// writes "QUOTA PERIOD" or "max PERIOD", version 1 two files, -1 for no quota.
std::int32_t cpus_of_quota() {
    double quota = 0.0;
    double period = 0.0;
    if (std::ifstream file("/sys/fs/cgroup/cpu.max"); !(file >> quota >> period)) {
        std::ifstream quotas("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
        std::ifstream periods("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
        if (!(quotas >> quota) || !(periods >> period)) {
            return 0;
        }
    }
    if (quota <= 0.0 || period <= 0.0) {
        return 0;
    }
    return static_cast<std::int32_t>(std::clamp(quota / period + 0.5, 1.0, 1.0 * kMostThreads));
}

}  // namespace

std::int32_t available_cpus() {
    std::int32_t const quota = cpus_of_quota();
    std::int32_t const cpus = std::clamp(cpus_of_affinity(), 1, kMostThreads);
    return quota > 0 ? std::min(cpus, quota) : cpus;
}

std::int32_t parse_threads(std::string const& text) {
    bool const digits = !text.empty() && text.size() <= 6 &&
                        std::all_of(text.begin(), text.end(),
                                    [](char letter) { return letter >= '0' && letter <= '9'; });
    if (!digits) {
        throw std::invalid_argument(std::string(kThreadsKey) + " is '" + text +
                                    "', must be a number of threads, or 0");
    }
    std::int32_t const threads = std::stoi(text);
    return threads == 0 ? available_cpus() : std::min(threads, kMostThreads);
}

}  // namespace vim_plugins::ort
