//! Every kernel and tactic, run on the CPU under the CUDA shim, against float64.
//!
//!     sweep short|long|clusters [SHARD SHARDS]
//!
//! Pairs of blocks run in "clusters", which has their cases alone, and in "long".
//! With two more numbers it runs every SHARDS-th case from SHARD (counted from 0) on.
//!
//! Each tensor is an allocation of exactly its size, so that AddressSanitizer sees any access
//! outside one. Outputs and scratch start as NaN. Each launch is repeated with the fibers in the
//! opposite order and must give the same bits: a missing barrier would show. Prints one JSON
//! object; the exit status is 1 when anything failed.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../common/sweeping.h"

namespace {

using namespace vim_tests;

//! One launch into fresh NaNs; the output.
std::vector<double> launch(const Bound& bound, Tactic tactic, vim_shim::Schedule schedule,
                           int& status) {
    HostMemory scratch;
    const std::size_t bytes = bound.workspace_bytes(tactic);
    void* workspace = bytes > 0 ? scratch.blank(bytes) : nullptr;
    std::memset(bound.output_pointer(), 0xFF, bound.output_bytes());
    vim_shim::set_schedule(schedule);
    status = bound.launch(tactic, workspace, nullptr);
    return bound.output();
}

bool is_cluster(Tactic tactic) {
    return tactic == Tactic::kCluster4 || tactic == Tactic::kCluster8;
}

//! Of the tactics that run the case those that `chosen` takes.
template <typename Chosen>
void check(const Spec& spec, std::uint32_t seed, Totals& totals, Chosen&& chosen) {
    const Problem problem = make_problem(spec, seed);
    const std::vector<double> want = reference(problem);
    HostMemory memory;
    const Bound bound(problem, memory);
    if (const char* fault = bound.validate()) {
        totals.fail(describe(spec), fault);
        return;
    }
    std::vector<double> serial;
    for (const Tactic tactic : bound.tactics()) {
        if (!chosen(tactic)) {
            continue;
        }
        const std::string what = describe(spec) + " " + name_of(tactic);
        int status = 0;
        const auto got = launch(bound, tactic, vim_shim::Schedule::kAscending, status);
        if (status != 0) {
            totals.fail(what, "status " + std::to_string(status));
            continue;
        }
        totals.compare(spec, what, got, want);
        if (tactic == Tactic::kSerial) {
            serial = got;
        } else if (tactic == Tactic::kSerial1 && !same_bits(got, serial)) {
            totals.fail(what, "one channel a thread gives another result than two");
        }
        const auto schedule =
            seed % 2 == 0 ? vim_shim::Schedule::kDescending : vim_shim::Schedule::kShuffled;
        const auto again = launch(bound, tactic, schedule, status);
        if (status != 0 || !same_bits(got, again)) {
            totals.fail(what, "another fiber order gives another result");
        }
    }
}

const std::vector<int> kLengths = {1,  2,  3,   7,   8,   15,  16,  17,  31,
                                   32, 33, 196, 197, 255, 256, 257, 730, 1025};

//! Every length, with the other factors taking turns; then rows that vary one factor each.
std::vector<Spec> short_sweep() {
    std::vector<Spec> specs;
    for (std::size_t i = 0; i < kLengths.size(); ++i) {
        const int length = kLengths[i];
        const bool is_long = length > 300;
        Spec s;
        s.length = length;
        s.type = turn(kTypes, i);
        s.batch = is_long ? 1 : 1 + int(i % 3);
        s.channels = is_long ? 16 : turn(std::vector<int>{64, 8, 100, 72, 16}, i);
        s.reverse = i % 2 == 1;
        s.gate = i % 4 < 2;
        specs.push_back(s);
        s.states = turn(std::vector<int>{1, 8, 5, 64}, i);
        s.channels = is_long ? 4 : s.channels;
        s.batch = 1;
        s.reverse = !s.reverse;
        specs.push_back(s);
        s = Spec{};
        s.op = Op::kBiScan;
        s.length = length;
        s.type = turn(kTypes, i + 1);
        s.batch = is_long ? 1 : 1 + int((i + 1) % 3);
        s.channels = is_long ? 16 : turn(std::vector<int>{72, 64, 16, 8, 100}, i);
        s.rank = turn(std::vector<int>{0, 12, 0, 5, 0, 24, 48}, i);
        s.scale = i % 2 == 0 ? 0.5F : 1.0F;
        s.margin = int(i % 3);
        specs.push_back(s);
        s.type = DataType::kFloat32;
        s.channels = 8;
        s.rank = 0;
        s.margin = 0;
        specs.push_back(s);
        s = Spec{};
        s.op = Op::kConv;
        s.length = length;
        s.type = turn(kTypes, i + 2);
        s.batch = 1 + int(i % 3);
        s.channels = turn(std::vector<int>{64, 8, 100, 24}, i);
        specs.push_back(s);
    }
    for (const DataType type : kTypes) {
        for (const Op op : {Op::kScan, Op::kBiScan, Op::kConv}) {
            Spec s;
            s.op = op;
            s.type = type;
            s.length = 17;
            s.channels = 384;
            specs.push_back(s);
            s.channels = 64;
            s.length = 203;
            specs.push_back(s);
            s.margin = 3;
            specs.push_back(s);
            s.margin = 8;
            s.softplus = false;
            s.width = 3;
            specs.push_back(s);
        }
    }
    for (const Spec& spec : fixed_scans()) {
        specs.push_back(spec);
    }
    return specs;
}

//! Both directions at lengths around one segment, an even and an odd number of them; types, ranks,
//! channels and batches take turns.
std::vector<Spec> cluster_sweep() {
    std::vector<Spec> specs;
    const std::vector<int> lengths = {1, 2, 5, 33, 197, 199, 200, 201, 400, 401, 730, 1025};
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        for (std::size_t j = 0; j < (lengths[i] > 600 ? 1 : 2); ++j) {
            Spec s;
            s.op = Op::kBiScan;
            s.length = lengths[i];
            s.type = turn(kTypes, i + j);
            s.batch = s.length > 300 ? 1 : 1 + int(j);
            s.channels = s.length > 300 ? 8 : 16;
            s.rank = turn(std::vector<int>{0, 12, 0, 5, 24}, 2 * i + j);
            s.before = s.rank % 2;  // the fast kernels want B at an even column
            s.scale = j == 0 ? 0.5F : 1.0F;
            s.margin = 2 * int(i % 2);
            specs.push_back(s);
        }
    }
    return specs;
}

std::vector<Spec> long_sweep() {
    std::vector<Spec> specs = short_sweep();
    for (const Spec& spec : cluster_sweep()) {
        specs.push_back(spec);
    }
    std::size_t turns = 0;
    for (const int length : kLengths) {
        for (const int channels : {8, 64, 100, 384}) {
            for (const int batch : {1, 2, 3}) {
                for (const int states : {1, 5, 8, 16, 64}) {
                    // The largest products only with Vim's state size; the odd state sizes only
                    // for one sequence of few channels.
                    if (length > 300 &&
                        ((states != 16 && channels > 64) || (channels > 100 && batch > 1))) {
                        continue;
                    }
                    if ((states == 5 || states == 64) && (batch > 1 || channels > 100)) {
                        continue;
                    }
                    Spec s;
                    s.length = length;
                    s.channels = channels;
                    s.batch = batch;
                    s.states = states;
                    for (const bool reverse : {false, true}) {
                        s.op = Op::kScan;
                        s.reverse = reverse;
                        s.gate = turns % 3 != 0;
                        s.type = turn(kTypes, turns++);
                        specs.push_back(s);
                    }
                    s.reverse = false;
                    s.op = Op::kBiScan;
                    s.gate = true;
                    s.rank = turn(std::vector<int>{0, 12, 0, 48, 24}, turns);
                    s.scale = turns % 2 == 0 ? 0.5F : 1.0F;
                    s.type = turn(kTypes, turns++);
                    specs.push_back(s);
                }
                Spec s;
                s.op = Op::kConv;
                s.length = length;
                s.channels = channels;
                s.batch = batch;
                s.width = turn(std::vector<int>{4, 4, 2, 7}, turns);
                s.type = turn(kTypes, turns++);
                specs.push_back(s);
            }
        }
    }
    return specs;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string which = argc > 1 ? argv[1] : "";
    const int shard = argc == 4 ? std::atoi(argv[2]) : 0;
    const int shards = argc == 4 ? std::atoi(argv[3]) : 1;
    const bool clusters = which == "clusters";
    const bool known = clusters || which == "short" || which == "long";
    if (!known || (argc != 2 && argc != 4) || shard < 0 || shard >= shards) {
        std::fprintf(stderr, "usage: sweep short|long|clusters [SHARD SHARDS]\n");
        return 2;
    }
    const auto chosen = [&](Tactic tactic) {
        return which == "long" || is_cluster(tactic) == clusters;
    };
    Totals totals;
    std::uint32_t seed = 0;
    for (const Spec& spec : clusters           ? cluster_sweep()
                            : which == "short" ? short_sweep()
                                               : long_sweep()) {
        if (int(seed++) % shards == shard) {
            check(spec, seed, totals, chosen);
        }
    }
    return totals.finish();
}
