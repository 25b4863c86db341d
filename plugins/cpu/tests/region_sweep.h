//! The ops of detectors in the sweep (sweep.cpp): VimSortedNms and VimPyramidRoiAlign.
#pragma once

#include <cstdint>
#include <vector>

#include "../../tests/common/sweeping.h"

namespace vim_tests {

//! Every kernel that runs here against a plain loop in float64; with `all` of many sizes, on boxes
//! of every kind, else a few that are cut into many pieces.
void sweep_regions(bool all, const std::vector<std::int32_t>& thread_counts, Totals& totals);

}  // namespace vim_tests
