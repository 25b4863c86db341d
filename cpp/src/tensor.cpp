//! \file tensor.cpp
#include "vim_deploy/tensor.h"

#include <limits>

namespace vim_deploy {
namespace {

struct Element {
    char const* name;
    std::size_t bytes;
};

// In the order of DataType.
constexpr Element kElements[] = {{"float32", 4}, {"float16", 2}, {"bfloat16", 2}, {"int8", 1},
                                 {"int32", 4},   {"int64", 8},   {"uint8", 1},    {"bool", 1}};

}  // namespace

std::size_t size_of(DataType type) noexcept {
    return kElements[static_cast<int>(type)].bytes;
}

char const* name_of(DataType type) noexcept {
    return kElements[static_cast<int>(type)].name;
}

std::string text_of(Shape const& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    }
    return text + "]";
}

std::size_t bytes_of(DataType type, Shape const& shape) noexcept {
    std::size_t bytes = size_of(type);
    for (std::int64_t const size : shape) {
        if (size <= 0 ||
            bytes > std::numeric_limits<std::size_t>::max() / static_cast<std::size_t>(size)) {
            return 0;
        }
        bytes *= static_cast<std::size_t>(size);
    }
    return bytes;
}

}  // namespace vim_deploy
