//! How VimPyramidRoiAlign is cut: rounds of boxes, whose samples become weights first; then
//! channels.
//!
//! Sixteen channels of all boxes of a round follow each other, from the top of a level to its
//! bottom, so that what neighbours share of a map comes from a cache, and no more of the maps is
//! read from memory than once.
#include <algorithm>
#include <atomic>
#include <new>

#include "arena.h"
#include "pool_plan.h"
#include "tasks.h"

namespace vim_plugins::cpu {
namespace {

//! Boxes of a round, and bytes that the weights of one may take.
constexpr std::int64_t kMostBoxes = 1024;
constexpr std::int64_t kMostPlanBytes = std::int64_t{16} << 20;

//! Boxes that are planned together, and fewest that are worth a piece of their own.
constexpr std::int64_t kPlanned = 32;

struct Pooling {
    const PyramidRoiAlignParams& params;
    const Kernels* kernels = nullptr;
    std::int64_t workers = 1;
    std::int64_t round = 0;  //!< boxes of a round at most
    std::int64_t room = 0;   //!< weights of an axis
    std::int64_t widest = 0;
    PoolBox* boxes = nullptr;
    std::int32_t* order = nullptr;
    std::int32_t* spans = nullptr;  //!< of each box and axis: first, count
    float* weights = nullptr;       //!< of each box and axis
    float* scratch = nullptr;       //!< of each worker
    void* counter = nullptr;
    // Of the round.
    std::int64_t begin = 0;  //!< its first box, of all images'
    std::int64_t count = 0;
    std::int64_t groups = 1;  //!< of channels
    std::int64_t ranges = 1;  //!< of boxes
};

std::int64_t rows_of(const PyramidRoiAlignParams& p) {
    return std::int64_t{p.batch} * p.count;
}

void lay_out(Pooling& a, Arena& arena, std::int32_t threads) {
    const PyramidRoiAlignParams& p = a.params;
    a.workers = threads > 1 ? threads : 1;
    a.widest = *std::max_element(p.widths, p.widths + kLevels);
    const std::int64_t tallest = *std::max_element(p.heights, p.heights + kLevels);
    a.room = plan_room(std::max(a.widest, tallest), p.output_size);
    const std::int64_t fitting = kMostPlanBytes / (2 * a.room * std::int64_t{sizeof(float)});
    a.round = smaller(rows_of(p), std::clamp<std::int64_t>(fitting, 1, kMostBoxes));
    a.boxes = arena.array<PoolBox>(a.round);
    a.order = arena.array<std::int32_t>(a.round);
    a.spans = arena.array<std::int32_t>(a.round * 4 * p.output_size);
    a.weights = arena.floats(a.round * 2 * a.room);
    a.scratch = arena.floats(a.workers * pool_scratch_floats(a.widest, p.output_size));
    a.counter = arena.take(kLine);
}

//! The plan of box i of the round.
void plan(const Pooling& a, std::int64_t i) {
    const PyramidRoiAlignParams& p = a.params;
    const std::int64_t row = a.begin + i;
    const std::int64_t size = p.output_size;
    const float* const corners = p.boxes + 4 * row;
    PoolBox& box = a.boxes[i];
    const int level = level_of(corners, p.canonical_size);
    if (level < 0) {
        return;
    }
    std::int32_t* const spans = a.spans + i * 4 * size;
    float* const weights = a.weights + i * 2 * a.room;
    box.y = {spans, spans + size, weights};
    box.x = {spans + 2 * size, spans + 3 * size, weights + a.room};
    box.rows = p.heights[level];
    box.columns = p.widths[level];
    const float scale = p.spatial_scale / static_cast<float>(1 << level);
    float cells[4];
    for (int k = 0; k < 4; ++k) {
        cells[k] = corners[k] * scale - 0.5F;
    }
    if (!plan_axis(cells[1], cells[3] - cells[1], box.rows, size, box.y) ||
        !plan_axis(cells[0], cells[2] - cells[0], box.columns, size, box.x)) {
        return;
    }
    box.first = box.columns;
    for (std::int64_t q = 0; q < size; ++q) {
        if (box.x.count[q] > 0) {
            box.first = smaller(box.first, box.x.first[q]);
            box.last = std::max<std::int64_t>(box.last, box.x.first[q] + box.x.count[q]);
        }
    }
    const std::int64_t image = row / p.count;
    box.map = p.maps[level] + image * p.channels * box.rows * box.columns;
}

//! Boxes without a map. A pool that fails runs no pieces, and the boxes are there all the same.
void start(const Pooling& a) {
    const PyramidRoiAlignParams& p = a.params;
    const std::int64_t places = std::int64_t{p.output_size} * p.output_size;
    for (std::int64_t i = 0; i < a.count; ++i) {
        (new (a.boxes + i) PoolBox{})->out = p.pooled + (a.begin + i) * p.channels * places;
    }
}

void plan_some(void* data, std::size_t index) {
    const Pooling& a = *static_cast<const Pooling*>(data);
    const std::int64_t first = static_cast<std::int64_t>(index) * kPlanned;
    for (std::int64_t i = first; i < smaller(first + kPlanned, a.count); ++i) {
        plan(a, i);
    }
}

//! By map, then from top to bottom; boxes without one first.
void sort(const Pooling& a) {
    for (std::int64_t i = 0; i < a.count; ++i) {
        a.order[i] = static_cast<std::int32_t>(i);
    }
    const auto key = [&](std::int32_t i) {
        const PoolBox& box = a.boxes[i];
        return std::pair{reinterpret_cast<std::uintptr_t>(box.map),
                         box.map == nullptr ? 0 : box.y.first[0]};
    };
    std::sort(a.order, a.order + a.count, [&](std::int32_t left, std::int32_t right) {
        return std::pair{key(left), left} < std::pair{key(right), right};
    });
}

void work(void* data, std::size_t worker) {
    const Pooling& a = *static_cast<const Pooling*>(data);
    const std::int64_t channels = a.params.channels;
    const PoolArgs args{a.boxes, a.order, channels, a.params.output_size};
    float* const scratch = a.scratch + static_cast<std::int64_t>(worker) *
                                           pool_scratch_floats(a.widest, a.params.output_size);
    auto& next = *static_cast<std::atomic<std::int64_t>*>(a.counter);
    const std::int64_t pieces = a.groups * a.ranges;
    for (std::int64_t i = next.fetch_add(1); i < pieces; i = next.fetch_add(1)) {
        const std::int64_t group = i / a.ranges;
        const std::int64_t range = i % a.ranges;
        a.kernels->pool(args,
                        {group * kLanes, smaller((group + 1) * kLanes, channels),
                         a.count * range / a.ranges, a.count * (range + 1) / a.ranges},
                        scratch);
    }
}

//! As many ranges of boxes as give every worker some pieces.
void cut(Pooling& a) {
    constexpr std::int64_t kEach = 4;
    a.groups = divide_up(a.params.channels, kLanes);
    const std::int64_t wanted = a.workers > 1 ? divide_up(kEach * a.workers, a.groups) : 1;
    a.ranges = smaller(wanted, divide_up(a.count, kPlanned));
}

}  // namespace

std::size_t workspace_bytes(const PyramidRoiAlignParams& params, std::int32_t threads) noexcept {
    Pooling pooling{params};
    Arena arena(nullptr);
    lay_out(pooling, arena, threads);
    return arena.used();
}

void run_with(const Kernels& kernels, const PyramidRoiAlignParams& params, void* workspace,
              const Executor& executor) noexcept {
    if (params.channels == 0) {
        return;
    }
    Pooling a{params};
    Arena arena(workspace);
    lay_out(a, arena, executor.threads);
    a.kernels = &kernels;
    const auto at_once = [&](std::int64_t count, void (*body)(void*, std::size_t)) {
        executor.parallel_for(executor.pool, static_cast<std::size_t>(count), body, &a);
    };
    for (a.begin = 0; a.begin < rows_of(params); a.begin += a.count) {
        a.count = smaller(a.round, rows_of(params) - a.begin);
        start(a);
        at_once(divide_up(a.count, kPlanned), plan_some);
        sort(a);
        cut(a);
        new (a.counter) std::atomic<std::int64_t>(0);
        at_once(smaller(a.workers, a.groups * a.ranges), work);
    }
}

void run(const PyramidRoiAlignParams& params, void* workspace, const Executor& executor) noexcept {
    run_with(kernels(), params, workspace, executor);
}

}  // namespace vim_plugins::cpu
