//! \file pool_plan.cpp
#include "pool_plan.h"

#include <algorithm>
#include <cmath>

namespace vim_plugins::cpu {
namespace {

//! Weights of two neighbouring cells for a sample inside of [-1, cells].
struct Sample {
    std::int64_t low;
    std::int64_t high;
    double fraction;  //!< of the higher one

    Sample(double at, std::int64_t cells) {
        const double inside = std::max(at, 0.0);
        low = std::min(static_cast<std::int64_t>(inside), cells - 1);
        high = std::min(low + 1, cells - 1);
        fraction = high > low ? inside - static_cast<double>(low) : 0.0;
    }
};

//! The samples of a part: at base + (i + 1/2) step for i in [0, count).
struct Samples {
    double base;
    double step;
    double count;

    double at(std::int64_t i) const { return base + (static_cast<double>(i) + 0.5) * step; }
    //! The first that does not lie below `bound`, and how many do not lie above it.
    std::int64_t first_from(double bound) const {
        return static_cast<std::int64_t>(
            std::clamp(std::ceil((bound - base) / step - 0.5), 0.0, count));
    }
    std::int64_t end_to(double bound) const {
        return static_cast<std::int64_t>(
            std::clamp(std::floor((bound - base) / step - 0.5) + 1.0, 0.0, count));
    }
};

}  // namespace

int level_of(const float* box, float canonical_size) {
    const float width = box[2] - box[0];
    const float height = box[3] - box[1];
    if (!(width > 0.0F) || !(height > 0.0F)) {
        return -1;
    }
    const float relative = std::sqrt(width * height) / canonical_size;
    if (!std::isfinite(relative)) {
        return -1;
    }
    // FROM of that file: less as much as float32 rounds away when it evaluates the formula.
    return (relative >= 0.5F - 0x1p-24F ? 1 : 0) + (relative >= 1.0F - 0x1p-24F ? 1 : 0) +
           (relative >= 2.0F - 3 * 0x1p-23F ? 1 : 0);
}

bool plan_axis(float start, float length, std::int64_t cells, std::int64_t parts, AxisPlan& plan) {
    if (!(length > 0.0F) || !(length <= kMostCells) || !(std::fabs(start) <= kMostCells)) {
        return false;
    }
    const double part = static_cast<double>(length) / static_cast<double>(parts);
    // As many as other runtimes take, which divide in float32.
    const double count = std::max(std::ceil(length / static_cast<float>(parts)), 1.0F);
    std::int64_t used = 0;
    for (std::int64_t p = 0; p < parts; ++p) {
        const Samples samples{start + static_cast<double>(p) * part, part / count, count};
        const std::int64_t begin = samples.first_from(-1.0);
        const std::int64_t end = samples.end_to(static_cast<double>(cells));
        plan.first[p] = plan.count[p] = 0;
        if (begin >= end) {
            continue;
        }
        const std::int64_t first = Sample(samples.at(begin), cells).low;
        const std::int64_t taken = Sample(samples.at(end - 1), cells).high + 1 - first;
        if (used + taken > plan_room(cells, parts)) {
            return false;  // cannot be; and is not to write elsewhere if it could
        }
        float* const weights = plan.weights + used;
        std::fill_n(weights, taken, 0.0F);
        for (std::int64_t i = begin; i < end; ++i) {
            const Sample sample(samples.at(i), cells);
            weights[sample.low - first] += static_cast<float>((1.0 - sample.fraction) / count);
            weights[sample.high - first] += static_cast<float>(sample.fraction / count);
        }
        plan.first[p] = static_cast<std::int32_t>(first);
        plan.count[p] = static_cast<std::int32_t>(taken);
        used += taken;
    }
    return used > 0;
}

}  // namespace vim_plugins::cpu
