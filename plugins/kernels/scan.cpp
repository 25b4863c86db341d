//! The scans: which tactic runs which shape, how much workspace it wants, and the launch itself.
#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <limits>

#include "answers.h"
#include "checks.h"
#include "kernel_args.h"
#include "serial_choice.h"
#include "vim_plugins/ops.h"

namespace vim_plugins {
namespace {

constexpr std::size_t kWorkspaceAlignment = 16;

//! From this many walks a multiprocessor on (channels of one direction, over the whole batch) the
//! serial kernel is taken: 48 rows of both directions. It leaves schedulers idle below 256 walks,
//! of which a warp has 64, but issues about half of a chunked kernel's instructions (115 an element
//! against 207 to 328). Between 64 and 90 rows the two are even by counts; to be calibrated on a
//! GPU.
constexpr std::int64_t kSerialMinWalks = 96;
//! Shorter sequences do not pay for the serial kernel's prologue. MambaVision's windows of 49
//! tokens do: of a chunked block's 200 slots they leave 151 idle.
constexpr std::int32_t kSerialMinLength = 48;

//! Pairs of blocks, one a direction, are taken while all of them run at once: so many blocks a
//! multiprocessor. A block that runs both directions takes twice as long as either of a pair, and
//! before that limit its grid leaves more idle than pairs cost. From counts; to be calibrated on a
//! GPU.
constexpr std::int64_t kClusterBlocksPerSm = 3;

//! The part of a scan's shape that decides which kernels can run it.
struct ScanShape {
    std::int32_t batch;
    std::int32_t length;
    std::int32_t channels;
    std::int32_t states;
    std::int32_t bc_columns;
    std::int32_t gate_columns;  //!< 0 without a gate
    std::int32_t b_off;
    std::int32_t c_off;
    std::int32_t z_off;
    std::int32_t dt_off;
    std::int32_t rank;
    bool delta_softplus;
    bool both;
};

ScanShape shape_of(const SelectiveScanParams& p) {
    return {p.batch,
            p.length,
            p.channels,
            p.states,
            p.bc_columns,
            p.has_z == 1 ? p.z_columns : 0,
            p.b_off,
            p.c_off,
            p.has_z == 1 ? p.z_off : 0,
            0,
            0,
            p.delta_softplus == 1,
            false};
}

ScanShape shape_of(const BiSelectiveScanParams& p) {
    return {p.batch,
            p.length,
            p.channels,
            p.states,
            p.xdbl_columns,
            p.xz_columns,
            p.b_off,
            p.c_off,
            p.z_off,
            p.low_rank == 1 ? p.dt_off : 0,
            p.low_rank == 1 ? p.rank : 0,
            p.delta_softplus == 1,
            true};
}

bool even(std::int32_t value) {
    return value % 2 == 0;
}

bool fast_states(std::int32_t states) {
    return std::find(std::begin(kFastStates), std::end(kFastStates), states) !=
           std::end(kFastStates);
}

//! Whether B and C lie as the kernel of so many states reads them.
bool fast_columns(const ScanShape& s) {
    return s.states != kPairedStates || (even(s.bc_columns) && even(s.b_off) && even(s.c_off));
}

//! What the serial and the chunked kernels have in common: their numbers of states, softplus,
//! channels in eights, pairs of columns at even offsets, and rows of one sequence within 32-bit
//! offsets.
bool fast_scan(const ScanShape& s) {
    const std::int64_t widest = std::max({s.channels, s.bc_columns, s.gate_columns});
    return fast_states(s.states) && s.delta_softplus && s.channels % 8 == 0 && fast_columns(s) &&
           even(s.gate_columns) && even(s.z_off) &&
           s.length <= std::numeric_limits<std::int32_t>::max() / widest;
}

//! What the serial kernel wants beyond that; of dt's columns it reads two at a time.
bool serial_scan(const ScanShape& s) {
    return fast_scan(s) && (!s.both || s.states == kSerialBothStates) && s.rank <= kSerialMaxRank &&
           even(s.rank) && even(s.dt_off);
}

std::int32_t block_channels(Tactic tactic) {
    switch (tactic) {
        case Tactic::kChunked4:
        case Tactic::kCluster4:
            return 4;
        case Tactic::kChunked8:
        case Tactic::kCluster8:
            return 8;
        case Tactic::kChunked16:
            return 16;
        default:
            return 0;
    }
}

bool is_cluster(Tactic tactic) {
    return tactic == Tactic::kCluster4 || tactic == Tactic::kCluster8;
}

bool is_serial(Tactic tactic) {
    return tactic == Tactic::kSerial || tactic == Tactic::kSerial1;
}

//! Channels of a serial block, which is two warps: the two directions, or twice as many channels of
//! one.
std::int64_t serial_channels(const ScanShape& s, Tactic tactic) {
    const std::int64_t both = kSerialBlockChannels / (tactic == Tactic::kSerial1 ? 2 : 1);
    return s.both ? both : 2 * both;
}

//! Thread blocks of a fast tactic's grid.
std::int64_t grid_blocks(const ScanShape& s, Tactic tactic) {
    const std::int64_t owned =
        is_serial(tactic) ? serial_channels(s, tactic) : block_channels(tactic);
    const std::int64_t blocks = s.batch * ((s.channels + owned - 1) / owned);
    return is_cluster(tactic) ? 2 * blocks : blocks;
}

bool supports_scan(const ScanShape& s, Tactic tactic) {
    switch (tactic) {
        case Tactic::kDefault:
        case Tactic::kGeneric:
            return true;
        case Tactic::kSerial:
            return serial_scan(s);
        case Tactic::kSerial1:
            return serial_scan(s) && s.both;
        case Tactic::kChunked4:
        case Tactic::kChunked8:
        case Tactic::kChunked16:
            return fast_scan(s) && block_channels(tactic) <= widest_chunked(s.states) &&
                   s.channels % block_channels(tactic) == 0;
        case Tactic::kCluster4:
        case Tactic::kCluster8:
            return s.both && s.states == kClusterStates && fast_scan(s) &&
                   grid_blocks(s, tactic) <= std::numeric_limits<std::int32_t>::max() &&
                   clusters_run();
        default:
            return false;
    }
}

//! Serial walks where they fill the GPU; pairs of blocks where all of them run at once; else the
//! largest chunked block that still gives every multiprocessor one; the smallest block where none
//! does.
Tactic default_scan(const ScanShape& s, std::int32_t sm_count) {
    const std::int64_t rows = std::int64_t{s.batch} * s.channels;
    const std::int64_t walks = s.both ? 2 * rows : rows;
    if (supports_scan(s, Tactic::kSerial) && s.length >= kSerialMinLength &&
        walks >= kSerialMinWalks * std::max(sm_count, 1)) {
        const bool one = s.both && one_channel_pays(s.batch, s.channels, sm_count);
        return one ? Tactic::kSerial1 : Tactic::kSerial;
    }
    for (const Tactic tactic : {Tactic::kCluster8, Tactic::kCluster4}) {
        const std::int64_t blocks = grid_blocks(s, tactic);
        const bool wide_enough = tactic == Tactic::kCluster4 || blocks >= sm_count;
        if (wide_enough && blocks <= kClusterBlocksPerSm * sm_count && supports_scan(s, tactic)) {
            return tactic;
        }
    }
    for (const Tactic tactic : {Tactic::kChunked16, Tactic::kChunked8}) {
        if (supports_scan(s, tactic) && rows / block_channels(tactic) >= sm_count) {
            return tactic;
        }
    }
    return supports_scan(s, Tactic::kChunked4) ? Tactic::kChunked4 : Tactic::kGeneric;
}

constexpr std::array<Tactic, 7> kFastScans = {
    Tactic::kSerial,   Tactic::kSerial1,  Tactic::kChunked16, Tactic::kCluster8,
    Tactic::kChunked8, Tactic::kCluster4, Tactic::kChunked4};

//! Worth timing: the default, and what runs the shape on at least a third of the multiprocessors.
//! The generic kernel is left out wherever a fast one runs.
std::int32_t scan_tactics(const ScanShape& s, std::int32_t sm_count, Tactic* out,
                          std::int32_t capacity) {
    const auto worthwhile = [&](Tactic tactic) {
        return supports_scan(s, tactic) && 3 * grid_blocks(s, tactic) >= sm_count;
    };
    return list_tactics(default_scan(s, sm_count), kFastScans, worthwhile, out, capacity);
}

//! Scratch for the outputs of the first direction, in fp32; the serial kernel's is of whole blocks.
std::size_t scan_workspace(const ScanShape& s, Tactic tactic) {
    const bool in_registers = block_channels(tactic) > 0 && s.length <= kChunkedSegment;
    if (!s.both || in_registers) {
        return 0;
    }
    const bool blocks = is_serial(tactic) || (tactic == Tactic::kDefault && serial_scan(s));
    const std::int64_t width = blocks ? serial_channels(s, tactic) : 1;
    const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(s.batch) *
                              static_cast<std::size_t>(s.length) *
                              static_cast<std::size_t>((s.channels + width - 1) / width * width);
    return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

ScanArgs args_of(const SelectiveScanParams& p) {
    ScanArgs args{};
    args.direction[p.reverse == 1 ? 1 : 0] = {p.u, p.dt, p.bc, p.A, p.d_skip, p.dt_bias};
    args.z = p.has_z == 1 ? at_column(p.z, p.z_off, p.type) : nullptr;
    args.y = p.y;
    args.scale = 1.0F;
    args.batch = p.batch;
    args.length = p.length;
    args.channels = p.channels;
    args.states = p.states;
    args.bc_columns = p.bc_columns;
    args.z_columns = p.z_columns;
    args.b_off = p.b_off;
    args.c_off = p.c_off;
    args.forward = p.reverse == 0;
    args.reverse = p.reverse == 1;
    args.delta_softplus = p.delta_softplus == 1;
    return args;
}

ScanArgs args_of(const BiSelectiveScanParams& p, void* workspace) {
    const std::int64_t rows = std::int64_t{p.batch} * p.length;
    const std::size_t size = p.type == DataType::kFloat32 ? 4 : 2;
    ScanArgs args{};
    for (int i = 0; i < 2; ++i) {
        const auto moved = [&](const void* base, std::int64_t elements) -> const void* {
            return static_cast<const unsigned char*>(base) +
                   static_cast<std::size_t>(i * elements) * size;
        };
        const std::int64_t dt_elements =
            p.low_rank == 1 ? std::int64_t{p.channels} * p.rank : rows * p.channels;
        args.direction[i] = {
            moved(p.u2, rows * p.channels),          moved(p.dt, dt_elements),
            moved(p.xdbl, rows * p.xdbl_columns),    p.A + std::int64_t{i} * p.states * p.channels,
            p.d_skip + std::int64_t{i} * p.channels, p.dt_bias + std::int64_t{i} * p.channels};
    }
    args.z = at_column(p.xz, p.z_off, p.type);
    args.y = p.y;
    args.partial = static_cast<float*>(workspace);
    args.scale = p.scale;
    args.batch = p.batch;
    args.length = p.length;
    args.channels = p.channels;
    args.states = p.states;
    args.bc_columns = p.xdbl_columns;
    args.z_columns = p.xz_columns;
    args.b_off = p.b_off;
    args.c_off = p.c_off;
    args.dt_off = p.low_rank == 1 ? p.dt_off : 0;
    args.rank = p.low_rank == 1 ? p.rank : 0;
    args.forward = true;
    args.reverse = true;
    args.delta_softplus = p.delta_softplus == 1;
    return args;
}

cudaError_t launch_scan(ScanArgs args, DataType type, Tactic tactic, cudaStream_t stream) {
    const bool fp32 = type == DataType::kFloat32;
    const bool fp16 = type == DataType::kFloat16;
    if (is_serial(tactic)) {
        args.one_channel = tactic == Tactic::kSerial1;
        return fp32   ? launch_serial_fp32(args, stream)
               : fp16 ? launch_serial_fp16(args, stream)
                      : launch_serial_bf16(args, stream);
    }
    if (tactic == Tactic::kGeneric) {
        return fp32   ? launch_generic_fp32(args, stream)
               : fp16 ? launch_generic_fp16(args, stream)
                      : launch_generic_bf16(args, stream);
    }
    if (is_cluster(tactic)) {
        return fp32   ? launch_cluster_fp32(args, tactic, stream)
               : fp16 ? launch_cluster_fp16(args, tactic, stream)
                      : launch_cluster_bf16(args, tactic, stream);
    }
    return fp32   ? launch_chunked_fp32(args, tactic, stream)
           : fp16 ? launch_chunked_fp16(args, tactic, stream)
                  : launch_chunked_bf16(args, tactic, stream);
}

//! Multiprocessors of the current device; 0 on failure. Reads an attribute the runtime has cached:
//! no synchronisation, allowed during stream capture.
std::int32_t current_sm_count() {
    int device = 0;
    int count = 0;
    if (answered(cudaGetDevice(&device)) != cudaSuccess ||
        answered(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device)) !=
            cudaSuccess) {
        return 0;
    }
    return count;
}

}  // namespace

bool supports(const SelectiveScanParams& params, Tactic tactic) noexcept {
    return validate_shape(params) == nullptr && supports_scan(shape_of(params), tactic);
}

bool supports(const BiSelectiveScanParams& params, Tactic tactic) noexcept {
    return validate_shape(params) == nullptr && supports_scan(shape_of(params), tactic);
}

std::int32_t tactics(const SelectiveScanParams& params, std::int32_t sm_count, Tactic* out,
                     std::int32_t capacity) noexcept {
    return validate_shape(params) != nullptr
               ? 0
               : scan_tactics(shape_of(params), sm_count, out, capacity);
}

std::int32_t tactics(const BiSelectiveScanParams& params, std::int32_t sm_count, Tactic* out,
                     std::int32_t capacity) noexcept {
    return validate_shape(params) != nullptr
               ? 0
               : scan_tactics(shape_of(params), sm_count, out, capacity);
}

Tactic default_tactic(const SelectiveScanParams& params, std::int32_t sm_count) noexcept {
    return validate_shape(params) != nullptr ? Tactic::kGeneric
                                             : default_scan(shape_of(params), sm_count);
}

Tactic default_tactic(const BiSelectiveScanParams& params, std::int32_t sm_count) noexcept {
    return validate_shape(params) != nullptr ? Tactic::kGeneric
                                             : default_scan(shape_of(params), sm_count);
}

std::size_t workspace_bytes(const SelectiveScanParams&, Tactic) noexcept {
    return 0;
}

std::size_t workspace_bytes(const BiSelectiveScanParams& params, Tactic tactic) noexcept {
    return validate_shape(params) != nullptr ? 0 : scan_workspace(shape_of(params), tactic);
}

cudaError_t launch(const SelectiveScanParams& params, Tactic tactic, void*,
                   cudaStream_t stream) noexcept {
    if (validate(params) != nullptr || !supports(params, tactic)) {
        return cudaErrorInvalidValue;
    }
    if (tactic == Tactic::kDefault) {
        tactic = default_tactic(params, current_sm_count());
    }
    return launch_scan(args_of(params), params.type, tactic, stream);
}

cudaError_t launch(const BiSelectiveScanParams& params, Tactic tactic, void* workspace,
                   cudaStream_t stream) noexcept {
    if (validate(params) != nullptr || !supports(params, tactic)) {
        return cudaErrorInvalidValue;
    }
    if (tactic == Tactic::kDefault) {
        tactic = default_tactic(params, current_sm_count());
    }
    const bool needed = workspace_bytes(params, tactic) > 0;
    const bool misaligned = reinterpret_cast<std::uintptr_t>(workspace) % kWorkspaceAlignment != 0;
    if (needed && (workspace == nullptr || misaligned)) {
        return cudaErrorInvalidValue;
    }
    return launch_scan(args_of(params, needed ? workspace : nullptr), params.type, tactic, stream);
}

}  // namespace vim_plugins
