//! Every kernel of every instruction set that runs here, against float64; for sanitizers.
//!
//!     sweep all|races|planted
//!
//! "all" runs each case of the sweep with one thread and with several; "races" runs a few large
//! cases with several threads only, for ThreadSanitizer: some pieces for each, and one for each
//! (together.h). "planted" has every piece write the same bytes, which ThreadSanitizer is to see.
//! Each tensor is an allocation that ends with it, so that AddressSanitizer sees any access past
//! one, and starts at an odd element in every second case. Outputs and workspaces start as NaN. All
//! thread counts must give the same bits. Prints one JSON object; the exit status is 1 when
//! anything failed.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../../tests/common/sweeping.h"
#include "region_sweep.h"
#include "running.h"

namespace {

using namespace vim_tests;

//! The output of one run into fresh NaNs.
std::vector<double> run(const Bound& bound, const cpu::Kernels& kernels, std::int32_t threads,
                        std::uint32_t seed) {
    std::memset(bound.output_pointer(), 0xFF, bound.output_bytes());
    bound.visit([&](const auto& params) { run_meeting(params, kernels, threads, seed); });
    return bound.output();
}

void check(const Spec& spec, std::uint32_t seed, const std::vector<std::int32_t>& thread_counts,
           Totals& totals) {
    const Problem problem = make_problem(spec, seed);
    const std::vector<double> want = reference(problem);
    HostMemory memory(seed % 2 == 0 ? 0 : 4);
    const Bound bound(problem, memory);
    for (const cpu::Kernels* kernels : all_kernels()) {
        std::vector<double> first;
        for (const std::int32_t threads : thread_counts) {
            const std::string what = describe(spec) + " " + kernels->name + " on " +
                                     std::to_string(threads) + " threads";
            const std::vector<double> got = run(bound, *kernels, threads, seed);
            totals.compare(spec, what, got, want);
            if (!first.empty() && !same_bits(got, first)) {
                totals.fail(what, "another number of threads gives another result");
            }
            first = got;
        }
    }
}

//! Every length for every op, some rounds, with the other factors taking turns: as their numbers
//! share no factor, each value meets many of the others'.
std::vector<Spec> all_cases() {
    std::vector<Spec> specs;
    const std::vector<int> lengths = {1, 2, 3, 4, 7, 15, 16, 17, 31, 33, 64, 100, 197};
    const std::vector<int> channels = {64, 1, 100, 16, 7, 33, 8, 130, 72, 5};
    const std::vector<int> states = {16, 1, 16, 5, 64, 8, 16, 17, 63, 2, 32};
    std::size_t i = 0;
    constexpr int kRounds = 6;
    for (int round = 0; round < kRounds; ++round) {
        for (const int length : lengths) {
            for (const Op op : {Op::kScan, Op::kScan, Op::kBiScan, Op::kBiScan, Op::kConv}) {
                Spec s;
                s.op = op;
                s.length = length;
                s.type = turn(kTypes, i);
                s.batch = length > 64 ? 1 : 1 + int(i / 2 % 3);
                s.channels = turn(channels, i + i / 10);
                s.states = turn(states, i);
                s.reverse = i % 2 == 1;
                s.gate = i % 4 < 2;
                s.softplus = i % 7 != 3;
                s.rank = op == Op::kBiScan ? turn(std::vector<int>{0, 12, 1, 0, 5, 24, 17}, i) : 0;
                s.margin = int(i / 5 % 4);
                s.scale = i % 3 == 0 ? 0.5F : 1.0F;
                s.width = turn(std::vector<int>{4, 3, 4, 16, 1, 4, 7, 2}, i / 5);
                specs.push_back(s);
                ++i;
            }
        }
    }
    for (const Spec& spec : fixed_scans()) {
        specs.push_back(spec);
    }
    return specs;
}

//! Cases that are cut into many pieces.
std::vector<Spec> race_cases() {
    std::vector<Spec> specs;
    for (std::size_t i = 0; i < 3; ++i) {
        for (const Op op : {Op::kScan, Op::kBiScan, Op::kConv}) {
            Spec s;
            s.op = op;
            s.length = 65;
            s.type = turn(kTypes, i);
            s.batch = 1 + int(i);
            s.channels = 192;
            s.rank = op == Op::kBiScan ? turn(std::vector<int>{0, 12, 13}, i) : 0;
            specs.push_back(s);
        }
    }
    return specs;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string which = argc == 2 ? argv[1] : "";
    if (which != "all" && which != "races" && which != "planted") {
        std::fprintf(stderr, "usage: sweep all|races|planted\n");
        return 2;
    }
    int shared = 0;
    planted_race = which == "planted" ? &shared : nullptr;
    const bool all = which == "all";
    // 24 are more than the pieces of any phase, so that all are one round.
    const std::vector<std::int32_t> thread_counts =
        all ? std::vector<std::int32_t>{1, 3} : std::vector<std::int32_t>{3, 24};
    Totals totals;
    std::uint32_t seed = 0;
    for (const Spec& spec : all ? all_cases() : race_cases()) {
        check(spec, ++seed, thread_counts, totals);
    }
    sweep_regions(all, thread_counts, totals);
    return totals.finish();
}
