//! \file inference.h
//! The output's type and shape, when ONNX Runtime loads a model.
#pragma once

#include "adapters/op_model.h"
#include "ort_api.h"

namespace vim_plugins::ort {

//! Gives the output of a node the element type of its first input, and the contract's shape.
//!
//! The type is what matters: the forms of an op for fp32, fp16 and bf16 share one schema, whose
//! output would be float. A size that the inputs do not tell gets a name of its own, which says
//! that it is not known and equals no other. \throws std::runtime_error when ONNX Runtime refuses.
void infer_output(OrtApi const* api, adapters::OpDescription const& op,
                  OrtShapeInferContext* context);

}  // namespace vim_plugins::ort
