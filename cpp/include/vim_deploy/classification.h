//! \file classification.h
//! From an engine's outputs to the best classes of each picture.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vim_deploy/record.h"
#include "vim_deploy/result.h"
#include "vim_deploy/tensor.h"

namespace vim_deploy {

struct Class {
    std::int64_t index = 0;
    std::string label;  //!< `class 7` when the record has no labels
    double probability = 0;
};

//! The `count` best classes of each item of a batch, the best first; equal ones by index. Works for
//! the heads `logits` (the softmax is done here; one logit is that of the second of two classes),
//! `softmax` and `topk:K` (at most K classes).
//! \return VIM-415 when the engine's head gives no classes, VIM-430 when NaN or Inf is among its
//!         outputs.
Result<std::vector<std::vector<Class>>> best_classes(std::vector<Tensor> const& outputs,
                                                     ExportInfo const& exported, std::size_t count);

}  // namespace vim_deploy
