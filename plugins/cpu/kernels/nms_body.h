//! Non-maximum suppression: what one box after another suppresses of those behind it.
#pragma once

#include "tasks.h"
#include "vectors.h"

namespace vim_plugins::cpu {
namespace {

VIM_CPU_INLINE Ints load_ints(const std::int32_t* at) {
    Ints out;
    std::memcpy(&out, at, sizeof out);
    return out;
}

VIM_CPU_INLINE Floats larger(Floats a, Floats b) {
    return a > b ? a : b;
}

VIM_CPU_INLINE Floats lesser(Floats a, Floats b) {
    return a < b ? a : b;
}

//! a * b, rounded: contracted with the sums around it, an overlap would not be the same number as
//! in other runtimes, and a box near the threshold another's.
VIM_CPU_INLINE Floats rounded_product(Floats a, Floats b) {
    Floats product = a * b;
#if defined(__x86_64__)
    product = rounded_here(product);
#elif defined(__aarch64__)
    __asm__("" : "+w"(product));
#endif
    return product;
}

//! 0, 1, 2, ...
VIM_CPU_INLINE Ints lane_numbers() {
    Ints out;
    for (int i = 0; i < kWidth; ++i) {
        out[i] = i;
    }
    return out;
}

//! Lanes of the boxes from `at` on that overlap box i by more than the threshold.
VIM_CPU_INLINE Ints overlapped(const NmsColumns& a, std::int64_t i, std::int64_t at) {
    const Floats x1 = larger(splat(a.x1[i]), load(a.x1 + at));
    const Floats y1 = larger(splat(a.y1[i]), load(a.y1 + at));
    const Floats x2 = lesser(splat(a.x2[i]), load(a.x2 + at));
    const Floats y2 = lesser(splat(a.y2[i]), load(a.y2 + at));
    const Floats width = larger(x2 - x1, Floats{});
    const Floats height = larger(y2 - y1, Floats{});
    const Floats overlap = rounded_product(width, height);
    const Floats both = (splat(a.area[i]) + load(a.area + at)) - overlap;
    return overlap / both > splat(a.iou_threshold);  // false for 0 / 0
}

void suppress(const NmsColumns& a, std::int64_t first, std::int64_t last, std::int64_t begin,
              std::int64_t end) noexcept {
    const Ints lanes = lane_numbers();
    for (std::int64_t i = first; i < last; ++i) {
        if (a.live[i] == 0) {
            continue;
        }
        const std::int64_t own = i / kWidth * kWidth;
        const std::int64_t start = own > begin ? own : begin;
        for (std::int64_t at = start; at < end; at += kWidth) {
            const Ints behind = lanes > static_cast<std::int32_t>(i - at);
            const Ints same = load_ints(a.group + at) == a.group[i];
            const Ints live = load_ints(a.live + at) & ~(overlapped(a, i, at) & same & behind);
            std::memcpy(a.live + at, &live, sizeof live);
        }
    }
}

}  // namespace
}  // namespace vim_plugins::cpu
