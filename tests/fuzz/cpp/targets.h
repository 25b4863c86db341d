//! \file targets.h
//! One function for each reader of foreign bytes in the C++ library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fuzz {

using Target = void(std::uint8_t const* data, std::size_t size);

Target json, record, onnx, netpbm, picture, prepare, classes, found, text;

}  // namespace fuzz
