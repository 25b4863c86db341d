//! \file checks_regions.h
//! The ops of detectors, which CPUs alone have, over the fake ONNX Runtime.
#pragma once

namespace harness {

//! Answers, refusals, empty inputs, failing calls, and the shapes told when a model is loaded.
void check_region_ops();

}  // namespace harness
