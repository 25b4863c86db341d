//! What the ops of detectors refuse, and the words for it.
#include <cmath>
#include <cstdint>
#include <limits>

#include "vim_plugins/contract.h"
#include "vim_plugins/validate.h"

namespace vim_plugins {
namespace {

const char* check_boxes(std::int32_t batch, std::int32_t count, DataType type) {
    if (type != DataType::kFloat32) {
        return "type is not fp32";
    }
    if (batch < 1) {
        return "batch B is below 1";
    }
    if (count < 0) {
        return "number of boxes N is below 0";
    }
    if (std::int64_t{batch} * count > std::numeric_limits<std::int32_t>::max()) {
        return "B * N is above 2^31 - 1";
    }
    return nullptr;
}

bool is_above_zero(float value) {
    return std::isfinite(value) && value > 0.0F;
}

}  // namespace

const char* validate_shape(const SortedNmsParams& p) noexcept {
    if (const char* fault = check_boxes(p.batch, p.count, p.type)) {
        return fault;
    }
    if (!(p.iou_threshold >= 0.0F && p.iou_threshold <= 1.0F)) {
        return "iou_threshold must lie between 0 and 1";
    }
    return p.groups < 1 ? "groups is below 1" : nullptr;
}

const char* validate_shape(const PyramidRoiAlignParams& p) noexcept {
    if (const char* fault = check_boxes(p.batch, p.count, p.type)) {
        return fault;
    }
    if (p.channels < 0) {
        return "number of channels C is below 0";
    }
    for (std::int32_t i = 0; i < kLevels; ++i) {
        if (p.heights[i] < 1 || p.widths[i] < 1) {
            return "a map has no cells";
        }
        if (p.heights[i] > kMaxMapSide || p.widths[i] > kMaxMapSide) {
            return "a map has more than 65536 rows or columns";
        }
    }
    if (p.output_size < 1) {
        return "output_size is below 1";
    }
    if (p.output_size > kMaxRoiOutput) {
        return "output_size is above 64";
    }
    if (!is_above_zero(p.canonical_size) || !is_above_zero(p.spatial_scale)) {
        return "canonical_size and spatial_scale must be finite and above 0";
    }
    // One bin has at most 2^12 elements of a channel, so no product below overflows.
    const std::int64_t bins = std::int64_t{p.output_size} * p.output_size;
    const std::int64_t rows = std::int64_t{p.batch} * p.count;
    if (p.channels > 0 && rows * bins > (std::int64_t{1} << 61) / p.channels) {
        return "the output is larger than memory can be";
    }
    return nullptr;
}

}  // namespace vim_plugins
