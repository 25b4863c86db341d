//! Cycles of the kernels on one thread, and their share of what the arithmetic units could do.
//!
//!     kernel_bench [INSTRUCTION_SET ...]
//!
//! Vim-Ti's shapes (384 channels, 16 states, rank 12, 4 taps) at 197 and 6,085 tokens; and one
//! direction without a gate: MambaVision-T's two levels (8 states) and VMamba-T's first (1). Time
//! is this thread's processor time, so that other work on the machine disturbs little, and the best
//! of several runs; cycles come from a chain of dependent additions, one a cycle, timed between the
//! runs. All figures are per token, direction and 16 channels: cycles, and in brackets the bound's
//! percentage of them, where the bound is what two multiplying units a cycle would take (README.md
//! beside the kernels counts).
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "../kernels/tasks.h"

namespace {

namespace cpu = vim_plugins::cpu;
using vim_plugins::BiCausalConvParams;
using vim_plugins::BiSelectiveScanParams;
using vim_plugins::DataType;
using vim_plugins::SelectiveScanParams;

double seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

//! Cycles a second, now.
double clock_rate() {
    constexpr int kRounds = 200000;
    constexpr int kUnrolled = 16;
    const double start = seconds();
    unsigned long value = 1;
    for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 16
        for (int k = 0; k < kUnrolled; ++k) {
            asm volatile("" : "+r"(value));
            value += 1;
        }
    }
    return double(kRounds) * kUnrolled / (seconds() - start);
}

//! The pieces one after another, on this thread.
void run_here(void*, std::size_t count, void (*body)(void*, std::size_t), void* data) {
    for (std::size_t i = 0; i < count; ++i) {
        body(data, i);
    }
}

constexpr int kChannels = 384, kStates = 16, kRank = 12, kTaps = 4;
constexpr int kColumns = kRank + 2 * kStates;

std::size_t size_of(DataType type) {
    return type == DataType::kFloat32 ? 4 : 2;
}

std::mt19937 random_bits(0);

//! Memory as ONNX Runtime gives it: aligned to a cache line.
template <typename T>
struct LineAllocator {
    using value_type = T;
    LineAllocator() = default;
    template <typename U>
    explicit LineAllocator(const LineAllocator<U>& /*other*/) {}
    T* allocate(std::size_t count) {
        return static_cast<T*>(::operator new(count * sizeof(T), kLine));
    }
    void deallocate(T* at, std::size_t /*count*/) { ::operator delete(at, kLine); }
    bool operator==(const LineAllocator& /*other*/) const { return true; }
    bool operator!=(const LineAllocator& /*other*/) const { return false; }
    static constexpr std::align_val_t kLine{cpu::kWorkspaceAlignment};
};
using Bytes = std::vector<unsigned char, LineAllocator<unsigned char>>;
using Numbers = std::vector<float, LineAllocator<float>>;

//! Normal values as elements of the type (truncated to it: any value will do).
Bytes tensor(std::size_t count, float sigma, DataType type) {
    std::normal_distribution<float> draw(0.0F, sigma);
    Bytes out(count * size_of(type));
    for (std::size_t i = 0; i < count; ++i) {
        const float value = draw(random_bits);
        std::uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        if (type == DataType::kFloat16) {
            const bool tiny = std::fabs(value) < 1e-4F;
            bits =
                tiny ? 0 : ((bits >> 16) & 0x8000U) | (((bits & 0x7FFFFFFFU) - 0x38000000U) >> 13);
        } else if (type == DataType::kBFloat16) {
            bits >>= 16;
        }
        std::memcpy(out.data() + i * size_of(type), &bits, size_of(type));
    }
    return out;
}

Numbers floats(std::size_t count, float mean, float sigma) {
    std::normal_distribution<float> draw(mean, sigma);
    Numbers out(count);
    std::generate(out.begin(), out.end(), [&] { return draw(random_bits); });
    return out;
}

//! Best cycles per (token, direction, 16 channels) of a few runs.
template <typename Params>
double cycles(const cpu::Kernels& kernels, const Params& params, int directions) {
    const cpu::Executor executor = {nullptr, run_here, 1};
    const std::size_t bytes = cpu::workspace_bytes(params, 1);
    Bytes workspace(bytes);
    const int rounds = params.length < 1000 ? 40 : 6;
    double best = INFINITY;
    double rate = 0.0;
    for (int i = 0; i < rounds; ++i) {
        rate = std::max(rate, clock_rate());
        const double begin = seconds();
        cpu::run_with(kernels, params, workspace.data(), executor);
        best = std::min(best, seconds() - begin);
    }
    return best * rate / (double(directions) * params.length * params.channels / 16);
}

//! What an instruction set multiplies, fused or not, for one vector; a division counts as one.
struct Work {
    double vectors;  //!< of 16 channels
    double state;    //!< each state of the recurrence, its power of two among them
    double power;    //!< any other power of two
};

Work work_of(const std::string& name) {
    if (name == "avx512") {
        return {1, 8, 4};
    }
    return name == "avx2" ? Work{2, 8, 4} : Work{4, 9, 5};
}

struct Bounds {
    double scan, low_rank, conv;
};

//! One direction without a gate.
struct Plain {
    const char* name;
    int channels, states, length, before;
};
constexpr Plain kPlain[] = {{"MambaVision-T level 3", 160, 8, 196, 20},
                            {"MambaVision-T level 4", 320, 8, 49, 40},
                            {"VMamba-T level 1", 192, 1, 3136, 6}};

//! Cycles of the multiplications alone: states, the step times u, the skip, the scale, softplus.
double plain_bound(const Work& work, int states) {
    return work.vectors / 2.0 * (work.state * states + 3 + 10 + work.power);
}

//! The same of what Vim's ops do.
Bounds bounds_of(const Work& work) {
    constexpr double kUnits = 2.0;
    const double silu = 2 + work.power;
    const double softplus = 10 + work.power;
    // The step times u and the skip; and half of what a token's two directions share: scale, gate.
    const double scan = work.state * kStates + 2 + softplus + (2 + silu) / 2;
    const double each = work.vectors / kUnits;
    return {each * scan, each * (scan + kRank), each * (kTaps + silu)};
}

void report(const char* name, double cycles, double bound) {
    std::printf("  %s %6.1f (%2.0f %%)", name, cycles, 100.0 * bound / cycles);
}

void measure(const cpu::Kernels& kernels, DataType type, int length) {
    const std::size_t rows = static_cast<std::size_t>(length);
    const auto u2 = tensor(2 * rows * kChannels, 1.0F, type);
    const auto dt = tensor(2 * rows * kChannels, 0.5F, type);
    const auto xdbl = tensor(2 * rows * kColumns, 1.0F, type);
    const auto xz = tensor(rows * 2 * kChannels, 1.0F, type);
    const auto dt_w = tensor(2 * kChannels * kRank, 0.3F, type);
    auto A = floats(2 * kStates * kChannels, 0.0F, 0.0F);
    for (std::size_t i = 0; i < A.size(); ++i) {
        A[i] = -static_cast<float>(i / kChannels % kStates + 1);
    }
    const auto skip = floats(2 * kChannels, 1.0F, 0.1F);
    const auto bias = floats(2 * kChannels, -4.0F, 1.0F);
    const auto w = floats(2 * kTaps * kChannels, 0.0F, 0.5F);
    Bytes y(rows * kChannels * size_of(type));
    Bytes out(2 * rows * kChannels * size_of(type));

    BiSelectiveScanParams scan;
    scan.u2 = u2.data();
    scan.dt = dt.data();
    scan.xdbl = xdbl.data();
    scan.A = A.data();
    scan.d_skip = skip.data();
    scan.dt_bias = bias.data();
    scan.xz = xz.data();
    scan.y = y.data();
    scan.scale = 0.5F;
    scan.batch = 1;
    scan.length = length;
    scan.channels = kChannels;
    scan.states = kStates;
    scan.xdbl_columns = kColumns;
    scan.xz_columns = 2 * kChannels;
    scan.b_off = kRank;
    scan.c_off = kRank + kStates;
    scan.z_off = kChannels;
    scan.type = type;
    BiSelectiveScanParams low_rank = scan;
    low_rank.dt = dt_w.data();
    low_rank.low_rank = 1;
    low_rank.rank = kRank;
    BiCausalConvParams conv;
    conv.xz = xz.data();
    conv.w = w.data();
    conv.bias = bias.data();
    conv.u2 = out.data();
    conv.batch = 1;
    conv.length = length;
    conv.channels = kChannels;
    conv.width = kTaps;
    conv.xz_columns = 2 * kChannels;
    conv.type = type;
    static const char* const names[] = {"fp32", "fp16", "bf16"};
    const Bounds bounds = bounds_of(work_of(kernels.name));
    std::printf("%-6s %s %4d", kernels.name, names[static_cast<int>(type)], length);
    report("scan", cycles(kernels, scan, 2), bounds.scan);
    report("low rank", cycles(kernels, low_rank, 2), bounds.low_rank);
    report("convolution", cycles(kernels, conv, 2), bounds.conv);
    std::printf("\n");
    std::fflush(stdout);
}

void measure_plain(const cpu::Kernels& kernels, DataType type, const Plain& shape) {
    const std::size_t rows = static_cast<std::size_t>(shape.length);
    const std::size_t channels = static_cast<std::size_t>(shape.channels);
    const std::size_t columns = static_cast<std::size_t>(shape.before + 2 * shape.states);
    const auto u = tensor(rows * channels, 1.0F, type);
    const auto dt = tensor(rows * channels, 0.5F, type);
    const auto bc = tensor(rows * columns, 1.0F, type);
    auto A = floats(static_cast<std::size_t>(shape.states) * channels, 0.0F, 0.0F);
    for (std::size_t i = 0; i < A.size(); ++i) {
        A[i] = -static_cast<float>(i / channels + 1);
    }
    const auto skip = floats(channels, 1.0F, 0.1F);
    const auto bias = floats(channels, -4.0F, 1.0F);
    Bytes y(rows * channels * size_of(type));
    SelectiveScanParams scan;
    scan.u = u.data();
    scan.dt = dt.data();
    scan.A = A.data();
    scan.bc = bc.data();
    scan.d_skip = skip.data();
    scan.dt_bias = bias.data();
    scan.y = y.data();
    scan.batch = 1;
    scan.length = shape.length;
    scan.channels = shape.channels;
    scan.states = shape.states;
    scan.bc_columns = static_cast<int>(columns);
    scan.b_off = shape.before;
    scan.c_off = shape.before + shape.states;
    scan.delta_softplus = 1;
    scan.type = type;
    static const char* const names[] = {"fp32", "fp16", "bf16"};
    std::printf("%-6s %s %4d", kernels.name, names[static_cast<int>(type)], shape.length);
    report(shape.name, cycles(kernels, scan, 1), plain_bound(work_of(kernels.name), shape.states));
    std::printf("\n");
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> names(argv + 1, argv + argc);
    if (names.empty()) {
        names = {"avx512", "avx2", "sse2", "neon", "scalar"};
    }
    for (const std::string& name : names) {
        const cpu::Kernels* const kernels = cpu::kernels_named(name.c_str());
        if (kernels == nullptr) {
            continue;
        }
        for (const DataType type : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
            for (const int length : {197, 6085}) {
                measure(*kernels, type, length);
            }
            for (const Plain& shape : kPlain) {
                measure_plain(*kernels, type, shape);
            }
        }
    }
    return 0;
}
