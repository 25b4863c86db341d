//! What the sweeps of the CPU's kernels and of the GPU's kernels on a CPU share.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "problem.h"

namespace vim_tests {

//! Each tensor is an allocation of malloc: AddressSanitizer's redzone starts at the very next byte.
class HostMemory : public Memory {
  public:
    //! Every tensor starts so many bytes after a multiple of 16.
    explicit HostMemory(std::size_t shift = 0) : shift_(shift) {}
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

//! What a sweep counts.
class Totals {
  public:
    void fail(const std::string& what, const std::string& why) {
        ++failures_;
        std::fprintf(stderr, "FAIL %s: %s\n", what.c_str(), why.c_str());
    }

    //! Counts a run of what has a comparison of its own.
    void count() { ++runs_; }

    //! Counts a run; its output must be within the tolerance of its type.
    void compare(const Spec& spec, const std::string& what, const std::vector<double>& got,
                 const std::vector<double>& want) {
        ++runs_;
        const double error = relative_l2(got, want);
        if (!(error <= tolerance(spec.type))) {
            fail(what, "relative L2 " + std::to_string(error * 1e6) + "e-6");
        }
        if (spec.type == DataType::kFloat32 && error > worst_fp32_) {
            worst_fp32_ = error;
            worst_case_ = what;
        }
    }

    //! Prints one JSON object; the exit status of the sweep.
    int finish() const {
        std::printf(
            "{\"runs\": %d, \"failures\": %d, \"worst_fp32\": %.3e, \"worst_case\": \"%s\"}\n",
            runs_, failures_, worst_fp32_, worst_case_.c_str());
        return failures_ == 0 ? 0 : 1;
    }

  private:
    int runs_ = 0;
    int failures_ = 0;
    double worst_fp32_ = 0.0;
    std::string worst_case_;
};

inline bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), sizeof(double) * a.size()) == 0;
}

inline const std::vector<DataType> kTypes = {DataType::kFloat32, DataType::kFloat16,
                                             DataType::kBFloat16};

template <typename V>
const V& turn(const std::vector<V>& values, std::size_t i) {
    return values[i % values.size()];
}

//! Cases that every kernel of the scans is to get: low-rank dt of the published models' ranks, of
//! one column and of a prime, in every type, with columns that nobody uses around the used ones;
//! long sequences of slow states, whose sums do not cancel; and the scans of the other families,
//! ungated, with columns at an odd offset.
inline std::vector<Spec> fixed_scans() {
    std::vector<Spec> specs;
    for (const DataType type : kTypes) {
        std::size_t i = 0;
        for (const int rank : {1, 4, 12, 13, 24, 48}) {
            Spec s;
            s.op = Op::kBiScan;
            s.type = type;
            s.length = 37;
            s.rank = rank;
            s.channels = turn(std::vector<int>{72, 100, 64}, i);
            s.batch = 1 + int(i % 2);
            s.margin = 1 + int(i % 4);
            specs.push_back(s);
            s.margin = 8;  // whole 16 bytes, as the fast kernels of the GPU want rows
            s.channels = 64;
            specs.push_back(s);
            ++i;
        }
        for (const int memory : {30, 300}) {
            Spec s;
            s.type = type;
            s.length = 1025;
            s.channels = 16;
            s.memory = memory;
            specs.push_back(s);
            s.reverse = true;
            s.states = 1;
            specs.push_back(s);
            s = Spec{};
            s.op = Op::kBiScan;
            s.type = type;
            s.length = 1025;
            s.channels = 16;
            s.memory = memory;
            specs.push_back(s);
            s.rank = 12;
            specs.push_back(s);
        }
        // MambaVision: 8 states, the columns of an odd or an even rank before them, windows of 49
        // and 196 tokens. VMamba: one state.
        for (const int states : {8, 1}) {
            for (const int length : {49, 203}) {
                Spec s;
                s.type = type;
                s.states = states;
                s.length = length;
                s.channels = 80;
                s.gate = false;
                s.reverse = (length == 49) == (states == 1);
                s.before = length == 49 ? 20 : 49;
                specs.push_back(s);
                s.op = Op::kBiScan;
                s.length = length - 2;
                s.channels = 72;
                s.rank = length == 49 ? 12 : 0;
                specs.push_back(s);
            }
        }
    }
    return specs;
}

}  // namespace vim_tests
