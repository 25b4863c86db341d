//! Times our ops over Vim's shapes, and MambaVision's scans, on the GPU at hand.
//!
//!     kernel_bench [--quick] [--replays N] [--output FILE]
//!
//! Per shape and tactic: a CUDA graph of many launches on one stream, replayed at least 50 times
//! after warm-up, and its time divided by their number. So a time is that from one launch to the
//! next, as in a network's graph: with the gap between two kernels, without what launching a graph
//! takes. Once with the same buffers every time (warm L2, where they fit) and once walking through
//! so many sets of buffers that L2 has none of them left (cold, where the shape is not too small
//! for that; the row says how much it walks through). Median, p10 and p90 over the replays are
//! given, and the median as a share of two bounds counted from the work:
//!     MUFU    (N decays + 1 softplus) a direction and 2 for the gate, per token and channel
//!     memory  every tensor read or written once
//! The clock is the device's nominal maximum, so the shares are of what it could do at best.
//! Prints a table to stderr and JSON to stdout or FILE.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench_support.cuh"
#include "vim_plugins/ops.h"

namespace {

using namespace vim_bench;
using namespace vim_plugins;

//! More than any L2 cache: that many bytes pass before a buffer is used again.
constexpr std::size_t kColdBytes = std::size_t{256} << 20;
//! Most sets of buffers, for shapes so small that more would be wanted.
constexpr std::size_t kMostSets = 1024;
//! A graph has launches of about so many microseconds by their bounds, and at most so many:
//! launching it takes two or three microseconds, which is then below a hundredth of the sum.
constexpr double kGraphMicroseconds = 300.0;
constexpr double kMostLaunches = 64.0;
//! Said in the output.
constexpr const char* kScope =
    "microseconds from a launch to the next in a graph of so many launches on one stream, which "
    "walk through so many sets of buffers; launching the graph is not in it, gaps between kernels "
    "are";
//! Special-function results per clock and multiprocessor since compute capability 7.5.
constexpr double kMufuPerClock = 16.0;

struct Shape {
    const char* model;
    int channels;
    int rank;
    int batch;
    int length;
    int states = 16;
    bool gate = true;
};

struct Row {
    std::string op;
    Shape shape{};
    std::string tactic;
    bool cold = false;
    std::size_t sets = 1, launches = 1, set_bytes = 0;
    double median = 0.0, p10 = 0.0, p90 = 0.0;  // microseconds
    double mufu_bound = 0.0, memory_bound = 0.0;
};

//! One op at one shape: its parameters over some buffers, and what the work amounts to.
struct Work {
    std::string op;
    std::size_t bytes = 0;  //!< read and written once
    double mufu = 0.0;
    std::function<std::vector<Tactic>(int)> tactics;
    //! Fresh buffers from the pool, and the launch on them.
    std::function<Launch(Pool&, Tactic)> bind;
};

std::vector<Tactic> listed(const std::function<std::int32_t(Tactic*)>& list) {
    Tactic found[kMaxTactics];
    const std::int32_t count = list(found);
    return {found, found + count};
}

Work bi_scan(const Shape& s, bool low_rank) {
    const std::size_t rows = std::size_t(s.batch) * s.length;
    const std::size_t channels = s.channels;
    BiSelectiveScanParams p;
    p.batch = s.batch;
    p.length = s.length;
    p.channels = s.channels;
    p.states = 16;
    p.c_off = 16;
    p.dt_off = 32;
    p.rank = low_rank ? s.rank : 0;
    p.low_rank = low_rank ? 1 : 0;
    p.xdbl_columns = (32 + s.rank + 7) / 8 * 8;
    p.xz_columns = 2 * s.channels;
    p.z_off = s.channels;
    p.type = DataType::kBFloat16;
    Work work;
    work.op = low_rank ? "bi_scan low-rank dt" : "bi_scan";
    work.mufu = double(rows) * channels * (2 * 17 + 2);
    work.bytes = 2 * rows * (channels * (low_rank ? 4 : 6) + 2 * p.xdbl_columns);
    work.tactics = [p](int sms) {
        return listed([&](Tactic* out) { return tactics(p, sms, out, kMaxTactics); });
    };
    work.bind = [p, rows, channels](Pool& pool, Tactic tactic) -> Launch {
        BiSelectiveScanParams q = p;
        q.u2 = pool.half(2 * rows * channels, -1.0F, 1.0F);
        q.dt = q.low_rank == 1 ? pool.half(2 * channels * q.rank, -0.1F, 0.1F)
                               : pool.half(2 * rows * channels, -1.0F, 1.0F);
        q.xdbl = pool.half(2 * rows * q.xdbl_columns, -1.0F, 1.0F);
        q.xz = pool.half(rows * q.xz_columns, -1.0F, 1.0F);
        q.A = pool.floats(2 * 16 * channels, -16.0F, -1.0F);
        q.d_skip = pool.floats(2 * channels, 0.5F, 1.5F);
        q.dt_bias = pool.floats(2 * channels, -6.9F, -2.3F);
        q.y = pool.raw(2 * rows * channels);
        void* workspace = pool.raw(workspace_bytes(q, tactic));
        return [q, tactic, workspace](cudaStream_t stream) {
            return launch(q, tactic, workspace, stream);
        };
    };
    return work;
}

Work scan(const Shape& s) {
    const std::size_t rows = std::size_t(s.batch) * s.length;
    const std::size_t channels = s.channels;
    SelectiveScanParams p;
    p.batch = s.batch;
    p.length = s.length;
    p.channels = s.channels;
    p.states = s.states;
    // A projection's rank before them only where the scan has no gate: Vim's rows are cut.
    p.b_off = s.gate ? 0 : s.rank;
    p.c_off = p.b_off + s.states;
    p.bc_columns = p.c_off + s.states;
    p.has_z = s.gate ? 1 : 0;
    p.z_columns = s.gate ? 2 * s.channels : 0;
    p.z_off = s.gate ? s.channels : 0;
    p.type = DataType::kBFloat16;
    Work work;
    work.op = s.gate ? "scan" : "scan, no gate";
    work.mufu = double(rows) * channels * (s.states + 1 + (s.gate ? 2 : 0));
    work.bytes = 2 * rows * (channels * (s.gate ? 4 : 3) + 2 * std::size_t(s.states));
    work.tactics = [p](int sms) {
        return listed([&](Tactic* out) { return tactics(p, sms, out, kMaxTactics); });
    };
    work.bind = [p, rows, channels](Pool& pool, Tactic tactic) -> Launch {
        SelectiveScanParams q = p;
        q.u = pool.half(rows * channels, -1.0F, 1.0F);
        q.dt = pool.half(rows * channels, -1.0F, 1.0F);
        q.bc = pool.half(rows * q.bc_columns, -1.0F, 1.0F);
        q.z = q.has_z == 1 ? pool.half(rows * q.z_columns, -1.0F, 1.0F) : nullptr;
        q.A = pool.floats(q.states * channels, -16.0F, -1.0F);
        q.d_skip = pool.floats(channels, 0.5F, 1.5F);
        q.dt_bias = pool.floats(channels, -6.9F, -2.3F);
        q.y = pool.raw(2 * rows * channels);
        return [q, tactic](cudaStream_t stream) { return launch(q, tactic, nullptr, stream); };
    };
    return work;
}

Work conv(const Shape& s) {
    const std::size_t rows = std::size_t(s.batch) * s.length;
    const std::size_t channels = s.channels;
    BiCausalConvParams p;
    p.batch = s.batch;
    p.length = s.length;
    p.channels = s.channels;
    p.width = 4;
    p.xz_columns = 2 * s.channels;
    p.type = DataType::kBFloat16;
    Work work;
    work.op = "conv";
    work.mufu = double(rows) * channels * 4;
    work.bytes = 2 * rows * channels * 3;
    work.tactics = [p](int sms) {
        return listed([&](Tactic* out) { return tactics(p, sms, out, kMaxTactics); });
    };
    work.bind = [p, rows, channels](Pool& pool, Tactic tactic) -> Launch {
        BiCausalConvParams q = p;
        q.xz = pool.half(rows * q.xz_columns, -1.0F, 1.0F);
        q.w = pool.floats(2 * 4 * channels, -0.5F, 0.5F);
        q.bias = pool.floats(2 * channels, -0.1F, 0.1F);
        q.u2 = pool.raw(4 * rows * channels);
        return [q, tactic](cudaStream_t stream) { return launch(q, tactic, nullptr, stream); };
    };
    return work;
}

std::string tactic_name(Tactic tactic) {
    static const char* const names[] = {"default",   "generic", "serial",   "chunked4", "chunked8",
                                        "chunked16", "vector",  "cluster4", "cluster8", "serial1"};
    return names[static_cast<int>(tactic)];
}

void measure(const Work& work, const Shape& shape, const Device& gpu, int replays,
             std::vector<Row>& rows) {
    const double mufu_bound = 1e6 * work.mufu / (gpu.sm_count * kMufuPerClock * gpu.clock_hz);
    const double memory_bound = 1e6 * double(work.bytes) / gpu.bytes_per_second;
    for (const Tactic tactic : work.tactics(gpu.sm_count)) {
        for (const bool cold : {false, true}) {
            const std::size_t sets =
                cold ? std::min(kColdBytes / work.bytes + 2, kMostSets) : std::size_t{1};
            // Scratch and the unread half of xz come on top of what is read and written.
            std::size_t available = 0;
            std::size_t total = 0;
            require(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
            if (3 * sets * work.bytes > available) {
                std::fprintf(stderr, "%s %s B=%d L=%d: skipped, does not fit into memory\n",
                             work.op.c_str(), shape.model, shape.batch, shape.length);
                continue;
            }
            Pool pool;
            std::vector<Launch> launches;
            for (std::size_t i = 0; i < sets; ++i) {
                launches.push_back(work.bind(pool, tactic));
            }
            require(cudaDeviceSynchronize(), "fill");
            const double bound = std::max(mufu_bound, memory_bound);
            const auto wanted =
                std::size_t(std::clamp(std::ceil(kGraphMicroseconds / bound), 1.0, kMostLaunches));
            const std::size_t count = (wanted + sets - 1) / sets * sets;
            const std::vector<double> times = time_replays(launches, count, replays);
            const auto quantile = [&](double q) {
                return times[std::size_t(q * double(times.size() - 1) + 0.5)];
            };
            Row row;
            row.op = work.op;
            row.shape = shape;
            row.tactic = tactic_name(tactic);
            row.cold = cold;
            row.median = quantile(0.5);
            row.p10 = quantile(0.1);
            row.p90 = quantile(0.9);
            row.mufu_bound = mufu_bound;
            row.memory_bound = memory_bound;
            row.sets = sets;
            row.launches = count;
            row.set_bytes = work.bytes;
            rows.push_back(row);
            std::fprintf(
                stderr,
                "%-20s %-5s B=%-4d L=%-5d %-9s %-4s %9.2f us  MUFU %5.1f %%  memory %5.1f %%\n",
                row.op.c_str(), shape.model, shape.batch, shape.length, row.tactic.c_str(),
                cold ? "cold" : "warm", row.median, 100.0 * row.mufu_bound / row.median,
                100.0 * row.memory_bound / row.median);
        }
    }
}

std::string json(const Device& gpu, const std::vector<Row>& rows) {
    char line[640];
    std::snprintf(line, sizeof line,
                  "{\"gpu\": \"%.200s\", \"sm_count\": %d, \"clock_hz\": %.0f, "
                  "\"bytes_per_second\": %.4e, \"l2_bytes\": %zu,\n\"scope\": \"%s\",\n\"rows\": [",
                  gpu.name.c_str(), gpu.sm_count, gpu.clock_hz, gpu.bytes_per_second, gpu.l2_bytes,
                  kScope);
    std::string out = line;
    const char* separator = "\n";
    for (const Row& r : rows) {
        // Cold only where what comes between two uses of a buffer is more than L2 holds.
        const bool cold = (r.sets - 1) * r.set_bytes > gpu.l2_bytes;
        const char* level = !r.cold ? "warm" : cold ? "cold" : "mixed";
        std::snprintf(line, sizeof line,
                      "%s {\"op\": \"%s\", \"model\": \"%s\", \"batch\": %d, \"length\": %d, "
                      "\"tactic\": \"%s\", \"l2\": \"%s\", \"sets\": %zu, \"set_bytes\": %zu, "
                      "\"launches\": %zu, \"median_us\": %.3f, \"p10_us\": %.3f, "
                      "\"p90_us\": %.3f, \"mufu_bound_us\": %.3f, \"memory_bound_us\": %.3f}",
                      separator, r.op.c_str(), r.shape.model, r.shape.batch, r.shape.length,
                      r.tactic.c_str(), level, r.sets, r.set_bytes, r.launches, r.median, r.p10,
                      r.p90, r.mufu_bound, r.memory_bound);
        out += line;
        separator = ",\n";
    }
    return out + "\n]}\n";
}

}  // namespace

int main(int argc, char** argv) {
    bool quick = false;
    int replays = 100;
    const char* output = nullptr;
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (std::strcmp(argv[i], "--replays") == 0 && i + 1 < argc) {
            replays = std::atoi(argv[++i]);
        } else if (std::strcmp(argv[i], "--output") == 0 && i + 1 < argc) {
            output = argv[++i];
        } else {
            std::fprintf(stderr, "usage: kernel_bench [--quick] [--replays N] [--output FILE]\n");
            return 2;
        }
    }
    if (replays < 50) {
        std::fprintf(stderr, "--replays must be at least 50\n");
        return 2;
    }
    const Device gpu = device();
    std::vector<Row> rows;
    const std::vector<Shape> models = {
        {"Ti", 384, 12, 0, 0}, {"S", 768, 24, 0, 0}, {"B", 1536, 48, 0, 0}};
    const std::vector<int> batches =
        quick ? std::vector<int>{1, 64} : std::vector<int>{1, 8, 64, 128};
    // Vim's lengths, all odd or even by one token, and two that suit power-of-two kernels.
    const std::vector<int> lengths =
        quick ? std::vector<int>{197} : std::vector<int>{197, 730, 1025, 2048, 4096, 4097, 6085};
    for (Shape shape : models) {
        for (const int batch : batches) {
            for (const int length : lengths) {
                shape.batch = batch;
                shape.length = length;
                for (const Work& work :
                     {bi_scan(shape, false), bi_scan(shape, true), scan(shape), conv(shape)}) {
                    measure(work, shape, gpu, replays, rows);
                }
            }
        }
    }
    // MambaVision-T's two levels of windows at 224 px, and L's, whose rank is odd.
    const std::vector<Shape> plain = {{"MV-T3", 160, 20, 0, 196, 8, false},
                                      {"MV-T4", 320, 40, 0, 49, 8, false},
                                      {"MV-L3", 392, 49, 0, 196, 8, false}};
    for (Shape shape : plain) {
        for (const int batch : batches) {
            shape.batch = batch;
            measure(scan(shape), shape, gpu, replays, rows);
        }
    }
    const std::string text = json(gpu, rows);
    std::FILE* file = output != nullptr ? std::fopen(output, "w") : stdout;
    if (file == nullptr || std::fputs(text.c_str(), file) < 0 ||
        (output != nullptr && std::fclose(file) != 0)) {
        std::fprintf(stderr, "cannot write %s\n", output != nullptr ? output : "stdout");
        return 3;
    }
    return 0;
}
