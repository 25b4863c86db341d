//! How the ops are cut into pieces, and their workspace.
//!
//! The two directions of VimBiSelectiveScan meet in the middle. In the first phase forward walks
//! the first half of the tokens and reverse the second, and each leaves its sums; in the second
//! phase each walks the other half, adds its own, gates and writes y. So both run at once, nothing
//! is computed twice, and no third tensor is wanted where y can hold fp32 sums.
#include <atomic>
#include <new>

#include "arena.h"
#include "tasks.h"

namespace vim_plugins::cpu {
namespace {

//! A scan with its workspace and its cut.
struct Scan {
    ScanArgs args{};
    std::int64_t group = 0;   //!< channels of a piece
    std::int64_t groups = 0;  //!< pieces of one image and direction
    std::int64_t workers = 1;
    float* scratch = nullptr;  //!< scratch_floats(rank) for each worker
    void* counters = nullptr;  //!< one a phase, a cache line each
    const Kernels* kernels = nullptr;
    std::int64_t phase = 0;

    std::int64_t pieces() const { return args.directions * args.batch * groups; }
    std::int64_t phases() const { return args.directions; }
};

//! Groups of channels, so that the pieces go round: a multiple of the workers, or many for each.
//! A group has kMinGroup channels or more.
std::int64_t count_groups(const ScanArgs& a, std::int64_t threads) {
    const std::int64_t each = a.directions * a.batch;
    const std::int64_t most = a.channels < 2 * kMinGroup ? 1 : a.channels / kMinGroup;
    const std::int64_t least = divide_up(a.channels, kMaxGroup);
    constexpr std::int64_t kMany = 8;
    for (std::int64_t groups = least; groups < most; ++groups) {
        const std::int64_t pieces = each * groups;
        if (pieces % threads == 0 || pieces >= kMany * threads) {
            return groups;
        }
    }
    return most > least ? most : least;
}

void lay_out(Scan& scan, Arena& arena, std::int32_t threads) {
    ScanArgs& a = scan.args;
    const std::int64_t wanted = threads > 1 ? threads : 1;
    scan.group = padded(divide_up(a.channels, count_groups(a, wanted)));
    scan.groups = divide_up(a.channels, scan.group);
    scan.workers = smaller(wanted, scan.pieces());
    const std::int64_t wide = padded(a.channels);
    for (std::int64_t d = 0; d < a.directions; ++d) {
        a.direction[d].rates = arena.floats(wide * a.states);
        a.direction[d].longest = arena.floats(wide);
        a.direction[d].weights = a.rank > 0 ? arena.floats(wide * a.rank) : nullptr;
    }
    a.state = arena.floats(a.batch * a.directions * wide * a.states);
    const bool keeps = a.directions == 2 && a.type != DataType::kFloat32;
    a.partial = keeps ? arena.floats(a.batch * a.length * a.channels) : nullptr;
    scan.scratch = arena.floats(scan.workers * scratch_floats(a.rank));
    scan.counters = arena.take(static_cast<std::size_t>(scan.phases()) * kLine);
}

ScanPiece piece_of(const Scan& scan, std::int64_t index) {
    const ScanArgs& a = scan.args;
    ScanPiece piece{};
    piece.direction = index % a.directions;
    piece.first = index / a.directions % scan.groups * scan.group;
    piece.image = index / a.directions / scan.groups;
    piece.channels = smaller(scan.group, a.channels - piece.first);
    if (a.directions == 1) {
        piece.end = a.length;
        piece.starts = piece.finishes = true;
        return piece;
    }
    const std::int64_t half = a.length / 2;
    const bool lower = piece.direction == scan.phase;
    piece.begin = lower ? 0 : half;
    piece.end = lower ? half : a.length;
    piece.starts = scan.phase == 0;
    piece.finishes = scan.phase == 1;
    return piece;
}

std::atomic<std::int64_t>* counter(const Scan& scan, std::int64_t phase) {
    return reinterpret_cast<std::atomic<std::int64_t>*>(static_cast<char*>(scan.counters) +
                                                        static_cast<std::size_t>(phase) * kLine);
}

//! Takes pieces until none is left: a worker that starts late finds less to do.
void work(void* data, std::size_t worker) {
    const Scan& scan = *static_cast<const Scan*>(data);
    float* const scratch =
        scan.scratch + static_cast<std::int64_t>(worker) * scratch_floats(scan.args.rank);
    std::atomic<std::int64_t>& next = *counter(scan, scan.phase);
    for (std::int64_t i = next.fetch_add(1); i < scan.pieces(); i = next.fetch_add(1)) {
        scan.kernels->scan(scan.args, piece_of(scan, i), scratch);
    }
}

void run_scan(const Kernels& kernels, Scan scan, void* workspace, const Executor& executor) {
    Arena arena(workspace);
    lay_out(scan, arena, executor.threads);
    scan.kernels = &kernels;
    for (std::int64_t d = 0; d < scan.args.directions; ++d) {
        scan.kernels->prepare(scan.args, d);
    }
    for (scan.phase = 0; scan.phase < scan.phases(); ++scan.phase) {
        new (counter(scan, scan.phase)) std::atomic<std::int64_t>(0);
        executor.parallel_for(executor.pool, static_cast<std::size_t>(scan.workers), work, &scan);
    }
}

std::size_t count_bytes(Scan scan, std::int32_t threads) {
    Arena arena(nullptr);
    lay_out(scan, arena, threads);
    return arena.used();
}

const void* advanced(const void* base, std::int64_t elements, DataType type) {
    const std::int64_t size = type == DataType::kFloat32 ? 4 : 2;
    return base == nullptr ? nullptr : static_cast<const char*>(base) + elements * size;
}

Scan describe(const SelectiveScanParams& p) {
    Scan scan;
    ScanArgs& a = scan.args;
    a.directions = 1;
    a.direction[0] = {p.u,       p.dt,    p.bc,    p.A,     p.d_skip,
                      p.dt_bias, nullptr, nullptr, nullptr, p.reverse};
    a.z = p.has_z != 0 ? advanced(p.z, p.z_off, p.type) : nullptr;
    a.y = p.y;
    a.batch = p.batch;
    a.length = p.length;
    a.channels = p.channels;
    a.states = p.states;
    a.bc_columns = p.bc_columns;
    a.z_columns = p.z_columns;
    a.b_off = p.b_off;
    a.c_off = p.c_off;
    a.scale = 1.0F;
    a.delta_softplus = p.delta_softplus != 0;
    a.type = p.type;
    return scan;
}

Scan describe(const BiSelectiveScanParams& p) {
    Scan scan;
    ScanArgs& a = scan.args;
    a.directions = 2;
    a.rank = p.low_rank != 0 ? p.rank : 0;
    const std::int64_t rows = std::int64_t{p.batch} * p.length;
    const std::int64_t dt_size = a.rank > 0 ? std::int64_t{p.channels} * p.rank : rows * p.channels;
    for (std::int64_t d = 0; d < 2; ++d) {
        a.direction[d] = {advanced(p.u2, d * rows * p.channels, p.type),
                          advanced(p.dt, d * dt_size, p.type),
                          advanced(p.xdbl, d * rows * p.xdbl_columns, p.type),
                          p.A + d * p.states * p.channels,
                          p.d_skip + d * p.channels,
                          p.dt_bias + d * p.channels,
                          nullptr,
                          nullptr,
                          nullptr,
                          d};
    }
    a.z = advanced(p.xz, p.z_off, p.type);
    a.y = p.y;
    a.batch = p.batch;
    a.length = p.length;
    a.channels = p.channels;
    a.states = p.states;
    a.bc_columns = p.xdbl_columns;
    a.z_columns = p.xz_columns;
    a.b_off = p.b_off;
    a.c_off = p.c_off;
    a.dt_off = p.dt_off;
    a.scale = p.scale;
    a.delta_softplus = p.delta_softplus != 0;
    a.type = p.type;
    return scan;
}

//! Rows of all images, cut into pieces of equal size.
struct Conv {
    ConvArgs args{};
    std::int64_t pieces = 1;
    const Kernels* kernels = nullptr;
};

void convolve(void* data, std::size_t index) {
    const Conv& conv = *static_cast<const Conv*>(data);
    const std::int64_t rows = conv.args.batch * conv.args.length;
    const std::int64_t i = static_cast<std::int64_t>(index);
    const std::int64_t end = rows * (i + 1) / conv.pieces;
    for (std::int64_t row = rows * i / conv.pieces; row < end;) {
        const std::int64_t image = row / conv.args.length;
        const std::int64_t start = image * conv.args.length;
        const std::int64_t stop = smaller(end, start + conv.args.length);
        conv.kernels->conv(conv.args, image, row - start, stop - start);
        row = stop;
    }
}

}  // namespace

std::size_t workspace_bytes(const SelectiveScanParams& params, std::int32_t threads) noexcept {
    return count_bytes(describe(params), threads);
}

std::size_t workspace_bytes(const BiSelectiveScanParams& params, std::int32_t threads) noexcept {
    return count_bytes(describe(params), threads);
}

std::size_t workspace_bytes(const BiCausalConvParams& /*params*/,
                            std::int32_t /*threads*/) noexcept {
    return 0;
}

void run_with(const Kernels& kernels, const SelectiveScanParams& params, void* workspace,
              const Executor& executor) noexcept {
    run_scan(kernels, describe(params), workspace, executor);
}

void run_with(const Kernels& kernels, const BiSelectiveScanParams& params, void* workspace,
              const Executor& executor) noexcept {
    run_scan(kernels, describe(params), workspace, executor);
}

void run_with(const Kernels& kernels, const BiCausalConvParams& p, void* /*workspace*/,
              const Executor& executor) noexcept {
    Conv conv;
    conv.args = {advanced(p.xz, p.x_off, p.type),
                 p.w,
                 p.bias,
                 p.u2,
                 p.batch,
                 p.length,
                 p.channels,
                 p.width,
                 p.xz_columns,
                 p.type};
    conv.kernels = &kernels;
    // Some pieces a thread, so that one that starts late is made up for; a few rows each at least.
    constexpr std::int64_t kEach = 4, kFewestRows = 16;
    const std::int64_t rows = conv.args.batch * conv.args.length;
    const std::int64_t wanted = executor.threads > 1 ? kEach * executor.threads : 1;
    conv.pieces = smaller(wanted, divide_up(rows, kFewestRows));
    executor.parallel_for(executor.pool, static_cast<std::size_t>(conv.pieces), convolve, &conv);
}

#define VIM_CPU_RUN(Name, c_name)                                                              \
    void run(const Name##Params& params, void* workspace, const Executor& executor) noexcept { \
        run_with(kernels(), params, workspace, executor);                                      \
    }
VIM_PLUGINS_OPS(VIM_CPU_RUN)
#undef VIM_CPU_RUN

}  // namespace vim_plugins::cpu
