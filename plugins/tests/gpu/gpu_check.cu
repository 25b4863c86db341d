//! Every op, tactic and type on the GPU at hand against float64.
//!
//!     gpu_check [--small] [--bare] [--seconds N] [--output FILE]
//!
//! Each tactic runs eagerly, in a CUDA graph replayed twice, and on two streams at once, always
//! into outputs and scratch full of NaN and between guard bands. Writes one JSON object (to stdout,
//! or to FILE) and exits with 0 when all is well, 1 when something failed, 3 on a CUDA error.
//! After --seconds no further case begins, and the object says how many were left out; cases go
//! from short to long sequences. For compute-sanitizer: --small keeps to short sequences; --bare
//! leaves out bands and NaNs, which would hide from it what is accessed beside a tensor or read
//! before it was written.
#include <cuda_runtime.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../common/problem.h"
#include "device_memory.h"

namespace {

using namespace vim_tests;

struct Result {
    int runs = 0;
    int failures = 0;
    double worst = 0.0;
};

//! A problem on the device, with scratch for one tactic.
struct Placed {
    Placed(const Problem& problem, Tactic tactic, Layout layout)
        : memory(layout), bound(problem, memory), tactic(tactic) {
        workspace_bytes = bound.workspace_bytes(tactic);
        workspace = workspace_bytes > 0 ? memory.blank(workspace_bytes) : nullptr;
    }
    void poison(const Stream& stream) const {
        memory.poison(bound.output_pointer(), bound.output_bytes(), stream);
        if (workspace != nullptr) {
            memory.poison(workspace, workspace_bytes, stream);
        }
    }
    int launch(const Stream& stream) const { return bound.launch(tactic, workspace, stream.get()); }

    DeviceMemory memory;
    Bound bound;
    Tactic tactic;
    void* workspace = nullptr;
    std::size_t workspace_bytes = 0;
};

class Checker {
  public:
    explicit Checker(Layout layout) : layout_(layout) {}
    void check(const Spec& spec, std::uint32_t seed);
    int failures() const;
    std::string json(std::size_t left_out) const;

  private:
    void compare(const Placed& placed, const Spec& spec, const std::vector<double>& want,
                 const char* mode);

    Layout layout_;
    Stream first_;
    Stream second_;
    std::map<std::string, Result> results_;
};

void Checker::compare(const Placed& placed, const Spec& spec, const std::vector<double>& want,
                      const char* mode) {
    const std::string what = describe(spec) + " " + name_of(placed.tactic) + " " + mode;
    const char* op = spec.op == Op::kScan ? "scan" : spec.op == Op::kConv ? "conv" : "bi_scan";
    Result& result =
        results_[std::string(op) + " " + name_of(spec.type) + " " + name_of(placed.tactic)];
    const double error = relative_l2(placed.bound.output(), want);
    ++result.runs;
    result.worst = error > result.worst || std::isnan(error) ? error : result.worst;
    if (!(error <= gpu_tolerance(spec))) {
        ++result.failures;
        std::fprintf(stderr, "FAIL %s: relative L2 %.3e\n", what.c_str(), error);
    }
    if (!placed.memory.intact()) {
        ++result.failures;
        std::fprintf(stderr, "FAIL %s: wrote outside a tensor\n", what.c_str());
    }
}

void Checker::check(const Spec& spec, std::uint32_t seed) {
    const Problem problem = make_problem(spec, seed);
    const std::vector<double> want = reference(problem);
    std::vector<Tactic> tactics;
    {
        DeviceMemory memory;
        tactics = Bound(problem, memory).tactics();
    }
    tactics.push_back(Tactic::kDefault);
    for (const Tactic tactic : tactics) {
        const Placed placed(problem, tactic, layout_);
        placed.poison(first_);
        require(static_cast<cudaError_t>(placed.launch(first_)), describe(spec).c_str());
        first_.wait();
        compare(placed, spec, want, "eager");

        const Graph graph(first_, [&] { return placed.launch(first_); });
        for (int i = 0; i < 2; ++i) {
            placed.poison(first_);
            graph.replay(first_);
            first_.wait();
            compare(placed, spec, want, "graph");
        }

        const Placed other(problem, tactic, layout_);
        placed.poison(first_);
        other.poison(second_);
        require(static_cast<cudaError_t>(placed.launch(first_)), "first stream");
        require(static_cast<cudaError_t>(other.launch(second_)), "second stream");
        first_.wait();
        second_.wait();
        compare(placed, spec, want, "two streams");
        compare(other, spec, want, "two streams");
    }
}

int Checker::failures() const {
    int sum = 0;
    for (const auto& entry : results_) {
        sum += entry.second.failures;
    }
    return sum;
}

std::string Checker::json(std::size_t left_out) const {
    cudaDeviceProp properties{};
    require(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    char line[512];
    std::snprintf(line, sizeof line,
                  "{\"gpu\": \"%s\", \"compute_capability\": \"%d.%d\", \"failures\": %d, "
                  "\"cases_left_out\": %zu, \"kernels\": {",
                  properties.name, properties.major, properties.minor, failures(), left_out);
    std::string out = line;
    const char* separator = "\n";
    for (const auto& [name, result] : results_) {
        // JSON has no NaN: null says that an output was one.
        char worst[32] = "null";
        if (!std::isnan(result.worst)) {
            std::snprintf(worst, sizeof worst, "%.3e", result.worst);
        }
        std::snprintf(line, sizeof line,
                      "%s  \"%s\": {\"runs\": %d, \"failures\": %d, \"worst_relative_l2\": %s}",
                      separator, name.c_str(), result.runs, result.failures, worst);
        out += line;
        separator = ",\n";
    }
    return out + "\n}}\n";
}

std::vector<Spec> specs(bool small) {
    const std::vector<int> lengths =
        small ? std::vector<int>{1, 5, 33, 201}
              : std::vector<int>{1,  2,  3,   7,   8,   15,  16,  17,  31,
                                 32, 33, 196, 197, 255, 256, 257, 730, 1025};
    std::vector<Spec> all;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        for (const DataType type : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
            Spec s;
            s.type = type;
            s.length = lengths[i];
            s.batch = 1 + int(i % 3);
            // Of 80 channels every tactic runs, some with lanes to spare.
            for (const int channels : small ? std::vector<int>{80} : std::vector<int>{72, 384}) {
                s.channels = channels;
                s.op = Op::kScan;
                s.gate = i % 4 != 3;
                for (const bool reverse : {false, true}) {
                    s.reverse = reverse;
                    all.push_back(s);
                }
                s.reverse = false;
                s.gate = true;
                s.op = Op::kBiScan;
                s.scale = 0.5F;
                for (const int rank : {0, 12, 48}) {
                    s.rank = rank;
                    all.push_back(s);
                }
                s.rank = 0;
                s.scale = 1.0F;
                s.op = Op::kConv;
                all.push_back(s);
            }
            // The scans of MambaVision and VMamba: ungated, columns at an odd and an even offset.
            for (const int states : {8, 1}) {
                Spec plain;
                plain.type = type;
                plain.length = lengths[i];
                plain.batch = 1 + int(i % 2);
                plain.channels = 80;
                plain.states = states;
                plain.gate = false;
                plain.reverse = i % 2 == 1;
                plain.before = i % 2 == 0 ? 49 : 20;
                all.push_back(plain);
                plain.op = Op::kBiScan;
                plain.reverse = false;
                all.push_back(plain);
            }
            Spec odd;
            odd.type = type;
            odd.length = lengths[i];
            odd.channels = 100;
            odd.states = std::vector<int>{1, 5, 8, 64}[i % 4];
            odd.margin = 3;
            all.push_back(odd);
            odd.op = Op::kBiScan;
            odd.softplus = i % 2 == 0;
            odd.rank = odd.softplus ? 7 : 0;
            all.push_back(odd);
            odd.op = Op::kConv;
            odd.rank = 0;
            odd.width = 5;
            all.push_back(odd);
        }
    }
    return all;
}

}  // namespace

int main(int argc, char** argv) {
    bool small = false;
    Layout layout = Layout::kGuarded;
    double seconds = std::numeric_limits<double>::infinity();
    const char* output = nullptr;
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--small") == 0) {
            small = true;
        } else if (std::strcmp(argv[i], "--bare") == 0) {
            layout = Layout::kBare;
        } else if (std::strcmp(argv[i], "--seconds") == 0 && i + 1 < argc &&
                   std::atof(argv[i + 1]) > 0.0) {
            seconds = std::atof(argv[++i]);
        } else if (std::strcmp(argv[i], "--output") == 0 && i + 1 < argc) {
            output = argv[++i];
        } else {
            std::fprintf(stderr,
                         "usage: gpu_check [--small] [--bare] [--seconds N] [--output FILE]\n");
            return 2;
        }
    }
    Checker checker(layout);
    const std::vector<Spec> all = specs(small);
    const auto began = std::chrono::steady_clock::now();
    std::size_t ran = 0;
    while (ran < all.size() &&
           std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count() <
               seconds) {
        checker.check(all[ran], std::uint32_t(ran + 1));
        ++ran;
    }
    if (ran < all.size()) {
        std::fprintf(stderr, "%zu of %zu cases were left out after %g s\n", all.size() - ran,
                     all.size(), seconds);
    }
    const std::string text = checker.json(all.size() - ran);
    std::FILE* file = output != nullptr ? std::fopen(output, "w") : stdout;
    if (file == nullptr || std::fputs(text.c_str(), file) < 0 ||
        (output != nullptr && std::fclose(file) != 0)) {
        std::fprintf(stderr, "cannot write %s\n", output);
        return 3;
    }
    return checker.failures() == 0 ? 0 : 1;
}
