//! \file half.h
//! Floats of 16 bits (IEEE 754 binary16), in which an exported file may have its input and outputs.
#pragma once

#include <cstddef>
#include <vector>

#include "vim_deploy/result.h"
#include "vim_deploy/tensor.h"

namespace vim_deploy {

//! `count` float32 as float16, rounded to the nearest, to the even one of two.
std::vector<std::byte> halves_of(void const* values, std::size_t count);

//! The values of a tensor of float32 or float16, as float32.
//! \return VIM-415 for one of another type.
Result<std::vector<float>> as_floats(Tensor const& tensor);

}  // namespace vim_deploy
