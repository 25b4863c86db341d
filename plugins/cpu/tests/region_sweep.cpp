//! \file region_sweep.cpp
#include "region_sweep.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "running.h"

namespace vim_tests {
namespace {

using vim_plugins::kLevels;
using vim_plugins::PyramidRoiAlignParams;
using vim_plugins::SortedNmsParams;
using Floats = std::vector<float>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

//! Corners that no model makes, and files can hold.
constexpr float kOdd[] = {kNan, kInf, -kInf, 1e30F, -1e30F, 3e9F, -2e7F, 1e-30F, 0.0F, -1.0F};

//! Boxes of about `size` pixels and less, inside and outside of a picture of that side; one in
//! `odd` has an odd corner, and one in 16 no width.
Floats make_boxes(std::int64_t count, float size, int odd, std::mt19937& random) {
    std::uniform_real_distribution<float> place(-0.2F * size, 1.2F * size);
    std::uniform_real_distribution<float> side(-7.0F, 0.0F);
    Floats boxes;
    for (std::int64_t i = 0; i < count; ++i) {
        const float x = place(random), y = place(random);
        const float width = i % 16 == 3 ? 0.0F : size * std::exp2(side(random));
        const float height = size * std::exp2(side(random));
        boxes.insert(boxes.end(), {x, y, x + width, y + height});
        if (odd > 0 && i % odd == 0) {
            boxes[boxes.size() - 1 - random() % 4] = kOdd[random() % std::size(kOdd)];
        }
    }
    return boxes;
}

void* placed(HostMemory& memory, const void* data, std::size_t bytes) {
    return memory.place(data, bytes);
}

float* placed(HostMemory& memory, const Floats& values) {
    return static_cast<float*>(placed(memory, values.data(), 4 * values.size()));
}

//! Runs an op by every instruction set and number of threads; `look` says what is wrong.
template <typename Params, typename Look>
void run_all(const Params& params, float* output, std::size_t count, const std::string& what,
             const std::vector<std::int32_t>& thread_counts, Totals& totals, Look&& look) {
    std::uint32_t seed = 1;
    for (const cpu::Kernels* kernels : all_kernels()) {
        Floats first;
        for (const std::int32_t threads : thread_counts) {
            const std::string name =
                what + " " + kernels->name + " on " + std::to_string(threads) + " threads";
            std::memset(output, 0xFF, 4 * count);
            run_meeting(params, *kernels, threads, ++seed);
            const Floats got(output, output + count);
            totals.count();
            if (const std::string fault = look(got); !fault.empty()) {
                totals.fail(name, fault);
            }
            if (!first.empty() && std::memcmp(first.data(), got.data(), 4 * count) != 0) {
                totals.fail(name, "another number of threads gives another result");
            }
            first = got;
        }
    }
}

// ---- VimSortedNms ----

bool is_over(const float* a, const float* b, float threshold) {
    const float width = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]), 0.0F);
    const float height = std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]), 0.0F);
    // In float32, as other runtimes decide; the compiler of this file does not contract it.
    const volatile float overlap = width * height;
    const volatile float first = (a[2] - a[0]) * (a[3] - a[1]);
    const volatile float second = (b[2] - b[0]) * (b[3] - b[1]);
    const volatile float both = first + second;
    return overlap / (both - overlap) > threshold;
}

Floats kept_of(const SortedNmsParams& p) {
    Floats keep(static_cast<std::size_t>(p.batch) * static_cast<std::size_t>(p.count), 0.0F);
    for (std::int64_t image = 0; image < p.batch; ++image) {
        const std::int64_t start = image * p.count;
        std::vector<std::int64_t> kept;
        for (std::int64_t i = start; i < start + p.count; ++i) {
            const float* const box = p.boxes + 4 * i;
            bool good = p.valid[i] > 0.5F && box[2] > box[0] && box[3] > box[1] &&
                        p.group[i] >= 0 && p.group[i] < p.groups;
            for (std::size_t k = 0; good && k < kept.size(); ++k) {
                good = p.group[kept[k]] != p.group[i] ||
                       !is_over(p.boxes + 4 * kept[k], box, p.iou_threshold);
            }
            if (good) {
                kept.push_back(i);
                keep[static_cast<std::size_t>(i)] = 1.0F;
            }
        }
    }
    return keep;
}

void check_nms(std::int32_t batch, std::int32_t count, std::int32_t groups, float threshold,
               const std::vector<std::int32_t>& thread_counts, Totals& totals) {
    std::mt19937 random(static_cast<std::uint32_t>(count * 31 + groups));
    const std::int64_t all = std::int64_t{batch} * count;
    std::vector<std::int64_t> group;
    Floats valid;
    for (std::int64_t i = 0; i < all; ++i) {
        group.push_back(i % 37 == 5   ? (std::int64_t{1} << 40) + i
                        : i % 41 == 7 ? -1
                        : i % 43 == 9 ? groups
                                      : i % groups);
        valid.push_back(i % 11 == 4 ? 0.0F : 1.0F);
    }
    HostMemory memory(count % 2 == 0 ? 0 : 4);
    HostMemory even;
    SortedNmsParams p;
    p.boxes = placed(memory, make_boxes(all, 64.0F, count % 3 == 0 ? 13 : 0, random));
    p.group = static_cast<const std::int64_t*>(placed(even, group.data(), 8 * group.size()));
    p.valid = placed(memory, valid);
    p.keep = static_cast<float*>(memory.blank(4 * valid.size()));
    p.iou_threshold = threshold;
    p.batch = batch;
    p.count = count;
    p.groups = groups;
    const Floats want = kept_of(p);
    const std::string what = "nms B=" + std::to_string(batch) + " N=" + std::to_string(count) +
                             " groups=" + std::to_string(groups);
    run_all(p, p.keep, want.size(), what, thread_counts, totals,
            [&](const Floats& got) { return got == want ? "" : "other boxes are kept"; });
}

// ---- VimPyramidRoiAlign ----

//! A map at a place between the centres of its cells, as RoIAlign continues it; 0 beyond.
double sample(const float* map, std::int64_t rows, std::int64_t columns, double y, double x) {
    if (y < -1.0 || y > double(rows) || x < -1.0 || x > double(columns)) {
        return 0.0;
    }
    y = std::clamp(y, 0.0, double(rows - 1));
    x = std::clamp(x, 0.0, double(columns - 1));
    const auto top = std::int64_t(y), left = std::int64_t(x);
    const std::int64_t below = std::min(top + 1, rows - 1), right = std::min(left + 1, columns - 1);
    const double down = y - double(top), aside = x - double(left);
    const auto at = [&](std::int64_t r, std::int64_t c) { return double(map[r * columns + c]); };
    return (1 - down) * ((1 - aside) * at(top, left) + aside * at(top, right)) +
           down * ((1 - aside) * at(below, left) + aside * at(below, right));
}

//! One box of one channel; false when it is larger than a plain loop has time for.
bool pooled_of(const PyramidRoiAlignParams& p, std::int64_t row, std::int64_t channel,
               double* out) {
    const float* const box = p.boxes + 4 * row;
    const int o = p.output_size;
    std::fill_n(out, o * o, 0.0);
    const float width = box[2] - box[0], height = box[3] - box[1];
    const float area = width * height;
    if (!(width > 0.0F && height > 0.0F && std::isfinite(area))) {
        return true;
    }
    const float relative = std::sqrt(area) / p.canonical_size;
    const int level =
        std::clamp(int(std::floor(4.0 + std::log2(double(relative) + 1e-8))), 2, 5) - 2;
    const float scale = p.spatial_scale / float(1 << level);
    float cells[4];
    for (int k = 0; k < 4; ++k) {
        cells[k] = box[k] * scale - 0.5F;
    }
    const float bin_y = (cells[3] - cells[1]) / float(o), bin_x = (cells[2] - cells[0]) / float(o);
    if (bin_y > 64.0F || bin_x > 64.0F) {
        return false;
    }
    const int count_y = std::max(int(std::ceil(bin_y)), 1);
    const int count_x = std::max(int(std::ceil(bin_x)), 1);
    const std::int64_t rows = p.heights[level], columns = p.widths[level];
    const float* const map =
        p.maps[level] + ((row / p.count) * p.channels + channel) * rows * columns;
    for (int i = 0; i < o * o; ++i) {
        for (int k = 0; k < count_y * count_x; ++k) {
            const double y = double(i / o) + (double(k / count_x) + 0.5) / count_y;
            const double x = double(i % o) + (double(k % count_x) + 0.5) / count_x;
            out[i] += sample(map, rows, columns, cells[1] + y * double(cells[3] - cells[1]) / o,
                             cells[0] + x * double(cells[2] - cells[0]) / o);
        }
        out[i] /= double(count_y) * double(count_x);
    }
    return true;
}

struct PoolSpec {
    int side = 64;  //!< of the picture; not always a multiple of the maps' cells
    int batch = 1;
    int count = 8;
    int channels = 16;
    int output_size = 7;
    int odd = 0;  //!< as of make_boxes
};

//! The maps end with their memory, so that a sanitizer sees whatever is read behind them.
PyramidRoiAlignParams bound(const PoolSpec& spec, HostMemory& memory, std::mt19937& random) {
    PyramidRoiAlignParams p;
    std::normal_distribution<float> normal;
    for (int i = 0; i < kLevels; ++i) {
        p.heights[i] = std::max(spec.side >> (i + 2), 1);
        p.widths[i] = std::max((spec.side + 4) >> (i + 2), 1);
        Floats map(std::size_t(spec.batch) * std::size_t(spec.channels) *
                   std::size_t(p.heights[i]) * std::size_t(p.widths[i]));
        std::generate(map.begin(), map.end(), [&] { return normal(random); });
        p.maps[i] = placed(memory, map);
    }
    p.batch = spec.batch;
    p.count = spec.count;
    p.channels = spec.channels;
    p.output_size = spec.output_size;
    p.canonical_size = float(spec.side) / 4.0F;
    p.boxes = placed(memory, make_boxes(std::int64_t{spec.batch} * spec.count, float(spec.side),
                                        spec.odd, random));
    return p;
}

//! Relative distance of the boxes that a plain loop has time for; none may be NaN.
std::string compare(const Floats& got, const std::vector<double>& want,
                    const std::vector<bool>& known) {
    double far = 0.0, all = 0.0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        if (!std::isfinite(got[i])) {
            return "a value is not finite";
        }
        if (known[i]) {
            far += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
            all += want[i] * want[i];
        }
    }
    const double error = std::sqrt(far / (all > 0.0 ? all : 1.0));
    return error <= tolerance(DataType::kFloat32) ? "" : "relative L2 " + std::to_string(error);
}

void check_pooling(const PoolSpec& spec, const std::vector<std::int32_t>& thread_counts,
                   Totals& totals) {
    std::mt19937 random(static_cast<std::uint32_t>(spec.side * 7 + spec.channels));
    HostMemory memory(spec.channels % 2 == 0 ? 0 : 4);
    PyramidRoiAlignParams p = bound(spec, memory, random);
    const std::size_t places = std::size_t(spec.output_size) * std::size_t(spec.output_size);
    std::vector<double> want;
    std::vector<bool> known;
    for (std::int64_t row = 0; row < std::int64_t{p.batch} * p.count; ++row) {
        for (std::int64_t c = 0; c < p.channels; ++c) {
            std::vector<double> box(places);
            known.insert(known.end(), places, pooled_of(p, row, c, box.data()));
            want.insert(want.end(), box.begin(), box.end());
        }
    }
    p.pooled = static_cast<float*>(memory.blank(4 * want.size()));
    const std::string what = "pooling side=" + std::to_string(spec.side) +
                             " C=" + std::to_string(spec.channels) +
                             " o=" + std::to_string(spec.output_size);
    run_all(p, p.pooled, want.size(), what, thread_counts, totals,
            [&](const Floats& got) { return compare(got, want, known); });
}

}  // namespace

void sweep_regions(bool all, const std::vector<std::int32_t>& thread_counts, Totals& totals) {
    if (!all) {
        check_nms(5, 200, 3, 0.5F, thread_counts, totals);
        check_nms(2, 5000, 40, 0.5F, thread_counts, totals);
        check_pooling({128, 2, 70, 40, 7, 0}, thread_counts, totals);
        return;
    }
    for (const std::int32_t count : {1, 2, 15, 16, 17, 64, 99, 300}) {
        check_nms(1 + count % 3, count, 1 + count % 5, 0.25F * float(count % 4), thread_counts,
                  totals);
    }
    check_nms(1, 4500, 2, 0.3F, thread_counts, totals);
    int i = 0;
    for (const int channels : {1, 3, 4, 7, 8, 15, 16, 17, 33}) {
        for (const int side : {4, 33, 64, 200}) {
            check_pooling(
                {side, 1 + i % 2, 12, channels,
                 turn(std::vector<int>{7, 14, 1, 3, 5}, std::size_t(i)), i % 3 == 0 ? 2 : 0},
                thread_counts, totals);
            ++i;
        }
    }
    check_pooling({40, 1, 1100, 2, 2, 5}, thread_counts, totals);  // more than one round
}

}  // namespace vim_tests
