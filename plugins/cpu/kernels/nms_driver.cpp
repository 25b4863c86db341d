//! How VimSortedNms is cut: an image for each worker, or, of a few images with many boxes, blocks.
//!
//! What is kept of a block of boxes hangs on earlier boxes alone; once it is known, the boxes
//! behind the block can be gone through in parts, at once. Either way the same divisions decide.
#include <atomic>
#include <new>

#include "arena.h"
#include "tasks.h"

namespace vim_plugins::cpu {
namespace {

//! Boxes whose suppression of each other one worker works out; a multiple of kLanes.
constexpr std::int64_t kBlock = 512;

//! Fewest boxes of an image that several workers share, and of a part of them.
constexpr std::int64_t kManyBoxes = 4096;
constexpr std::int64_t kFewestBoxes = 1024;

struct Nms {
    const SortedNmsParams& params;
    const Kernels* kernels = nullptr;
    std::int64_t workers = 1;  //!< that have an image each
    std::int64_t threads = 1;
    NmsColumns columns{};  //!< of worker 0; the others follow
    std::int64_t wide = 0;
    void* counter = nullptr;
    // Of the block that is settled, where an image is shared.
    std::int64_t first = 0;
    std::int64_t last = 0;
    std::int64_t parts = 1;
};

bool shares_images(const Nms& nms) {
    return nms.params.batch < nms.threads && nms.params.count >= kManyBoxes;
}

void lay_out(Nms& nms, Arena& arena, std::int32_t threads) {
    nms.threads = threads > 1 ? threads : 1;
    nms.workers = shares_images(nms) ? 1 : smaller(nms.threads, nms.params.batch);
    nms.wide = padded(nms.params.count);
    const std::int64_t room = nms.workers * nms.wide;
    NmsColumns& c = nms.columns;
    for (float** const column : {&c.x1, &c.y1, &c.x2, &c.y2, &c.area}) {
        *column = arena.floats(room);
    }
    c.group = arena.array<std::int32_t>(room);
    c.live = arena.array<std::int32_t>(room);
    c.iou_threshold = nms.params.iou_threshold;
    nms.counter = arena.take(kLine);
}

NmsColumns columns_of(const Nms& nms, std::int64_t worker) {
    NmsColumns c = nms.columns;
    for (float** const column : {&c.x1, &c.y1, &c.x2, &c.y2, &c.area}) {
        *column += worker * nms.wide;
    }
    c.group += worker * nms.wide;
    c.live += worker * nms.wide;
    return c;
}

void read(const Nms& nms, std::int64_t image, const NmsColumns& c) {
    const SortedNmsParams& p = nms.params;
    for (std::int64_t i = 0; i < nms.wide; ++i) {
        if (i >= p.count) {
            c.x1[i] = c.y1[i] = c.x2[i] = c.y2[i] = c.area[i] = 0.0F;
            c.group[i] = c.live[i] = 0;
            continue;
        }
        const std::int64_t at = image * p.count + i;
        const float* const box = p.boxes + 4 * at;
        const float width = box[2] - box[0];
        const float height = box[3] - box[1];
        const std::int64_t group = p.group[at];
        const bool known = group >= 0 && group < p.groups;
        c.x1[i] = box[0];
        c.y1[i] = box[1];
        c.x2[i] = box[2];
        c.y2[i] = box[3];
        c.area[i] = width * height;
        c.group[i] = known ? static_cast<std::int32_t>(group) : 0;
        const bool live = known && p.valid[at] > 0.5F && box[2] > box[0] && box[3] > box[1];
        c.live[i] = live ? -1 : 0;
    }
}

void write(const Nms& nms, std::int64_t image, const NmsColumns& c) {
    float* const keep = nms.params.keep + image * nms.params.count;
    for (std::int64_t i = 0; i < nms.params.count; ++i) {
        keep[i] = c.live[i] != 0 ? 1.0F : 0.0F;
    }
}

//! Takes images until none is left.
void work(void* data, std::size_t worker) {
    const Nms& nms = *static_cast<const Nms*>(data);
    const NmsColumns own = columns_of(nms, static_cast<std::int64_t>(worker));
    auto& next = *static_cast<std::atomic<std::int64_t>*>(nms.counter);
    for (std::int64_t image = next.fetch_add(1); image < nms.params.batch;
         image = next.fetch_add(1)) {
        read(nms, image, own);
        nms.kernels->suppress(own, 0, nms.params.count, 0, nms.wide);
        write(nms, image, own);
    }
}

//! One part of the boxes behind the block.
void suppress_part(void* data, std::size_t index) {
    const Nms& nms = *static_cast<const Nms*>(data);
    const std::int64_t i = static_cast<std::int64_t>(index);
    const std::int64_t vectors = (nms.wide - nms.last) / kLanes;
    nms.kernels->suppress(nms.columns, nms.first, nms.last,
                          nms.last + vectors * i / nms.parts * kLanes,
                          nms.last + vectors * (i + 1) / nms.parts * kLanes);
}

void share(Nms& nms, const Executor& executor) {
    for (std::int64_t image = 0; image < nms.params.batch; ++image) {
        read(nms, image, nms.columns);
        for (nms.first = 0; nms.first < nms.wide; nms.first = nms.last) {
            nms.last = smaller(nms.first + kBlock, nms.wide);
            nms.kernels->suppress(nms.columns, nms.first, nms.last, nms.first, nms.last);
            nms.parts = smaller(nms.threads, divide_up(nms.wide - nms.last, kFewestBoxes));
            if (nms.parts > 0) {
                executor.parallel_for(executor.pool, static_cast<std::size_t>(nms.parts),
                                      suppress_part, &nms);
            }
        }
        write(nms, image, nms.columns);
    }
}

}  // namespace

std::size_t workspace_bytes(const SortedNmsParams& params, std::int32_t threads) noexcept {
    Nms nms{params};
    Arena arena(nullptr);
    lay_out(nms, arena, threads);
    return arena.used();
}

void run_with(const Kernels& kernels, const SortedNmsParams& params, void* workspace,
              const Executor& executor) noexcept {
    Nms nms{params};
    Arena arena(workspace);
    lay_out(nms, arena, executor.threads);
    nms.kernels = &kernels;
    if (shares_images(nms)) {
        share(nms, executor);
        return;
    }
    new (nms.counter) std::atomic<std::int64_t>(0);
    executor.parallel_for(executor.pool, static_cast<std::size_t>(nms.workers), work, &nms);
}

void run(const SortedNmsParams& params, void* workspace, const Executor& executor) noexcept {
    run_with(kernels(), params, workspace, executor);
}

}  // namespace vim_plugins::cpu
