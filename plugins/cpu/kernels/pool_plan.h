//! What VimPyramidRoiAlign takes from where: the level of a box, and its samples as weights.
#pragma once

#include <cstdint>

#include "tasks.h"

namespace vim_plugins::cpu {

//! Longest side of a box in cells, and farthest corner: beyond it neighbouring floats are more than
//! a cell apart. A larger box, or one of NaN or infinities, gives zeros.
inline constexpr float kMostCells = 16777216.0F;

//! The level, 0 to 3, that RoIAlign of a box reads; -1 when it has no area, or is not finite.
//!
//! floor(4 + log2(sqrt(area) / canonical_size + 1e-8)) by comparisons (Feature Pyramid Networks,
//! arXiv 1612.03144, equation 1), as vim_deploy/ops/pyramid_roi_align.py has it.
int level_of(const float* box, float canonical_size);

//! Weights that an axis plan of `parts` parts over a map of `cells` may hold.
//!
//! Parts follow each other, and each shares two cells at most with the one before; two more for
//! samples that rounding moves.
inline std::int64_t plan_room(std::int64_t cells, std::int64_t parts) {
    return cells + 4 * parts;
}

//! Fills the plan of one axis: `start` and `length` of the box in cells, the centre of cell 0 at 0.
//!
//! Each part is the mean of ceil(length / parts) samples, linear between centres; the first and the
//! last cell are continued for one cell, beyond which samples count as zero (Mask R-CNN, arXiv
//! 1703.06870, section 3; the number of samples and the border as torchvision's roi_align has
//! them). Samples far outside are passed over at once, so time and room are bounded by the map.
//! False when there is nothing to read, and all of it is zero.
bool plan_axis(float start, float length, std::int64_t cells, std::int64_t parts, AxisPlan& plan);

}  // namespace vim_plugins::cpu
