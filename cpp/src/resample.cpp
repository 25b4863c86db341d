//! \file resample.cpp
#include "resample.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace vim_deploy {
namespace {

constexpr double kPi = 3.14159265358979323846;
// Bits behind the point of a coefficient: 32, less 8 for the pixel and 2 for sums beyond 1.
constexpr int kPrecision = 32 - 8 - 2;

double box(double x) {
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

double triangle(double x) {
    return std::max(0.0, 1.0 - std::fabs(x));
}

double hamming(double x) {
    x = std::fabs(x);
    if (x == 0.0) {
        return 1.0;
    }
    if (x >= 1.0) {
        return 0.0;
    }
    x *= kPi;
    // Hamming's window with its constants 0.54 and 0.46, in single precision as Pillow has them.
    return std::sin(x) / x *
           (static_cast<double>(0.54F) + static_cast<double>(0.46F) * std::cos(x));
}

// Keys' cubic convolution with a = -0.5.
double cubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    }
    if (x < 2.0) {
        return (((x - 5) * x + 8) * x - 4) * a;
    }
    return 0.0;
}

double sinc(double x) {
    if (x == 0.0) {
        return 1.0;
    }
    x *= kPi;
    return std::sin(x) / x;
}

double lanczos(double x) {
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

struct Filter {
    char const* name;
    double (*value)(double);
    double support;
};

constexpr Filter kFilters[] = {{"bicubic", cubic, 2.0},   {"bilinear", triangle, 1.0},
                               {"box", box, 0.5},         {"hamming", hamming, 1.0},
                               {"lanczos", lanczos, 3.0}, {"nearest", nullptr, 0.0}};

Filter const* find_filter(std::string const& name) noexcept {
    for (Filter const& filter : kFilters) {
        if (name == filter.name) {
            return &filter;
        }
    }
    return nullptr;
}

// The source pixels that make one target pixel, and their weights.
struct Taps {
    std::int64_t first = 0;
    std::vector<std::int32_t> weights;
};

// Taps of the target pixels [begin, begin + count) of a line of `from` pixels resized to `to`.
std::vector<Taps> make_taps(std::int64_t from, std::int64_t to, std::int64_t begin,
                            std::int64_t count, Filter const& filter) {
    double const scale = static_cast<double>(from) / static_cast<double>(to);
    double const spread = std::max(scale, 1.0);
    double const support = filter.support * spread;
    std::vector<Taps> all(static_cast<std::size_t>(count));
    std::vector<double> values;
    for (std::int64_t i = 0; i < count; ++i) {
        double const centre = (static_cast<double>(begin + i) + 0.5) * scale;
        // Both ends are rounded by adding a half and cutting off.
        auto const first =
            std::max(static_cast<std::int64_t>(centre - support + 0.5), std::int64_t{0});
        auto const last = std::min(static_cast<std::int64_t>(centre + support + 0.5), from);
        double sum = 0.0;
        values.clear();
        for (std::int64_t x = first; x < last; ++x) {
            double const offset = static_cast<double>(x) - centre + 0.5;
            values.push_back(filter.value(offset * (1.0 / spread)));
            sum += values.back();
        }
        Taps& taps = all[static_cast<std::size_t>(i)];
        taps.first = first;
        for (double value : values) {
            if (sum != 0.0) {
                value /= sum;
            }
            double const fixed = value * (1 << kPrecision);
            taps.weights.push_back(static_cast<std::int32_t>(fixed + (fixed < 0 ? -0.5 : 0.5)));
        }
    }
    return all;
}

std::uint8_t to_pixel(std::int32_t sum) noexcept {
    return static_cast<std::uint8_t>(std::clamp(sum >> kPrecision, 0, 255));
}

// One pass along lines. `step` is the distance of neighbours along the line, in elements.
std::uint8_t weighted(std::uint8_t const* source, std::int64_t step, Taps const& taps) noexcept {
    std::int32_t sum = 1 << (kPrecision - 1);
    source += taps.first * step;
    for (std::int32_t const weight : taps.weights) {
        sum += *source * weight;
        source += step;
    }
    return to_pixel(sum);
}

// The rows [first, last) of `image`, their columns resized to the window's.
Image resize_columns(Image const& image, std::int64_t width, Window const& window,
                     std::int64_t first, std::int64_t last, Filter const& filter) {
    Image result{window.width, last - first, image.channels, {}};
    auto const count = window.width * (last - first) * image.channels;
    result.pixels.reserve(static_cast<std::size_t>(count));
    auto const taps = make_taps(image.width, width, window.left, window.width, filter);
    for (std::int64_t y = first; y < last; ++y) {
        std::uint8_t const* row = image.pixels.data() + y * image.width * image.channels;
        for (Taps const& pixel : taps) {
            for (std::int64_t c = 0; c < image.channels; ++c) {
                result.pixels.push_back(weighted(row + c, image.channels, pixel));
            }
        }
    }
    return result;
}

Image resize_rows(Image const& image, std::vector<Taps> const& taps) {
    Image result{image.width, static_cast<std::int64_t>(taps.size()), image.channels, {}};
    std::int64_t const line = image.width * image.channels;
    result.pixels.reserve(taps.size() * static_cast<std::size_t>(line));
    for (Taps const& pixel : taps) {
        for (std::int64_t i = 0; i < line; ++i) {
            result.pixels.push_back(weighted(image.pixels.data() + i, line, pixel));
        }
    }
    return result;
}

// Source positions of a line of `to` pixels. The sum is carried along, not multiplied, as in
// Pillow, whose rounding this is to share.
std::vector<std::int64_t> nearest_positions(std::int64_t from, std::int64_t to) {
    double const scale = static_cast<double>(from) / static_cast<double>(to);
    std::vector<std::int64_t> positions;
    double at = scale * 0.5;
    for (std::int64_t i = 0; i < to; ++i, at += scale) {
        positions.push_back(std::min(static_cast<std::int64_t>(at), from - 1));
    }
    return positions;
}

Image pick(Image const& image, std::vector<std::int64_t> const& xs,
           std::vector<std::int64_t> const& ys, Window const& window) {
    Image result{window.width, window.height, image.channels, {}};
    for (std::int64_t y = window.top; y < window.top + window.height; ++y) {
        for (std::int64_t x = window.left; x < window.left + window.width; ++x) {
            auto const at =
                ys[static_cast<std::size_t>(y)] * image.width + xs[static_cast<std::size_t>(x)];
            auto const* first = image.pixels.data() + at * image.channels;
            result.pixels.insert(result.pixels.end(), first, first + image.channels);
        }
    }
    return result;
}

}  // namespace

bool is_interpolation(std::string const& name) noexcept {
    return find_filter(name) != nullptr;
}

Image resample(Image const& image, std::int64_t width, std::int64_t height, Window const& window,
               std::string const& interpolation) {
    Filter const& filter = *find_filter(interpolation);
    if (filter.value == nullptr || (width == image.width && height == image.height)) {
        return pick(image, nearest_positions(image.width, width),
                    nearest_positions(image.height, height), window);
    }
    // A direction that keeps its size is not filtered: only its window is cut out.
    std::int64_t first = window.top;
    std::int64_t last = window.top + window.height;
    std::vector<Taps> rows;
    if (height != image.height) {
        rows = make_taps(image.height, height, window.top, window.height, filter);
        first = rows.front().first;
        last = first;
        for (Taps const& taps : rows) {
            last = std::max(last, taps.first + static_cast<std::int64_t>(taps.weights.size()));
        }
        for (Taps& taps : rows) {
            taps.first -= first;
        }
    }
    Image columns;
    if (width != image.width) {
        columns = resize_columns(image, width, window, first, last, filter);
    } else {
        std::vector<std::int64_t> const xs = nearest_positions(width, width);
        std::vector<std::int64_t> const ys = nearest_positions(image.height, image.height);
        columns = pick(image, xs, ys, {window.left, first, window.width, last - first});
    }
    return rows.empty() ? columns : resize_rows(columns, rows);
}

}  // namespace vim_deploy
