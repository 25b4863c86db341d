//! Every kernel of every instruction set that runs here, against float64; for sanitizers.
//!
//!     sweep all|races
//!
//! "all" runs each case of the sweep with one thread and with several; "races" runs a few large
//! cases with several threads only, for ThreadSanitizer. Each tensor is an allocation that ends
//! with it, so that AddressSanitizer sees any access past one, and starts at an odd element in
//! every second case. Outputs and workspaces start as NaN. All thread counts must give the same
//! bits. Prints one JSON object; the exit status is 1 when anything failed.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../../tests/common/problem.h"
#include "../kernels/tasks.h"
#include "thread_executor.h"

namespace {

using namespace vim_tests;
namespace cpu = vim_plugins::cpu;

class HostMemory : public Memory {
  public:
    //! Every tensor starts so many bytes after a multiple of 16.
    explicit HostMemory(std::size_t shift) : shift_(shift) {}
    void* place(const void* data, std::size_t bytes) override {
        void* const at = room(bytes);
        std::memcpy(at, data, bytes);
        return at;
    }
    void* blank(std::size_t bytes) override {
        void* const at = room(bytes);
        std::memset(at, 0xFF, bytes);
        return at;
    }
    void fetch(void* to, const void* from, std::size_t bytes) override {
        std::memcpy(to, from, bytes);
    }

  private:
    void* room(std::size_t bytes) {
        blocks_.emplace_back(std::malloc(bytes + shift_), std::free);
        return static_cast<char*>(blocks_.back().get()) + shift_;
    }

    std::size_t shift_;
    std::vector<std::unique_ptr<void, void (*)(void*)>> blocks_;
};

struct Totals {
    int runs = 0;
    int failures = 0;
    double worst_fp32 = 0.0;
    std::string worst_case;
};

void fail(Totals& totals, const std::string& what, const std::string& why) {
    ++totals.failures;
    std::fprintf(stderr, "FAIL %s: %s\n", what.c_str(), why.c_str());
}

//! The output of one run into fresh NaNs, with a workspace of exactly the size asked for.
std::vector<double> run(const Bound& bound, const cpu::Kernels& kernels, std::int32_t threads) {
    std::memset(bound.output_pointer(), 0xFF, bound.output_bytes());
    bound.visit([&](const auto& params) {
        const std::size_t bytes = cpu::workspace_bytes(params, threads);
        const std::unique_ptr<void, void (*)(void*)> workspace(
            std::aligned_alloc(cpu::kWorkspaceAlignment, bytes), std::free);
        std::memset(workspace.get(), 0xFF, bytes);
        cpu::run_with(kernels, params, workspace.get(), thread_executor(threads));
    });
    return bound.output();
}

std::vector<const cpu::Kernels*> all_kernels() {
    std::vector<const cpu::Kernels*> found;
    for (const char* name : {"avx512", "avx2", "sse2", "neon", "scalar"}) {
        if (const cpu::Kernels* kernels = cpu::kernels_named(name)) {
            found.push_back(kernels);
        }
    }
    return found;
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
            const std::vector<double> got = run(bound, *kernels, threads);
            ++totals.runs;
            const double error = relative_l2(got, want);
            if (!(error <= tolerance(spec.type))) {
                fail(totals, what, "relative L2 " + std::to_string(error * 1e6) + "e-6");
            }
            if (spec.type == DataType::kFloat32 && error > totals.worst_fp32) {
                totals.worst_fp32 = error;
                totals.worst_case = what;
            }
            if (!first.empty() && std::memcmp(got.data(), first.data(), 8 * got.size()) != 0) {
                fail(totals, what, "another number of threads gives another result");
            }
            first = got;
        }
    }
}

const std::vector<DataType> kTypes = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};

template <typename V>
const V& turn(const std::vector<V>& values, std::size_t i) {
    return values[i % values.size()];
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
            s.rank = op == Op::kBiScan && i == 1 ? 12 : 0;
            specs.push_back(s);
        }
    }
    return specs;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string which = argc == 2 ? argv[1] : "";
    if (which != "all" && which != "races") {
        std::fprintf(stderr, "usage: sweep all|races\n");
        return 2;
    }
    const bool races = which == "races";
    const std::vector<std::int32_t> thread_counts =
        races ? std::vector<std::int32_t>{2, 5} : std::vector<std::int32_t>{1, 3};
    Totals totals;
    std::uint32_t seed = 0;
    for (const Spec& spec : races ? race_cases() : all_cases()) {
        check(spec, ++seed, thread_counts, totals);
    }
    std::printf("{\"runs\": %d, \"failures\": %d, \"worst_fp32\": %.3e, \"worst_case\": \"%s\"}\n",
                totals.runs, totals.failures, totals.worst_fp32, totals.worst_case.c_str());
    return totals.failures == 0 ? 0 : 1;
}
