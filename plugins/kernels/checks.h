//! What the host halves of the ops share: checks, and the order of tactics.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "vim_plugins/params.h"

namespace vim_plugins {

//! Alignment of every tensor: the widest load. TensorRT and every CUDA allocator give more.
inline constexpr std::uintptr_t kAlignment = 16;

//! A grid has at most 2^31 - 1 blocks; the smallest blocks cover four channels of one sequence.
inline constexpr std::int64_t kMaxElements = std::int64_t{1} << 32;

struct Tensor {
    const void* pointer;
    const char* missing;
    const char* misaligned;
};

inline const char* check_pointers(std::initializer_list<Tensor> tensors) {
    for (const Tensor& tensor : tensors) {
        if (tensor.pointer == nullptr) {
            return tensor.missing;
        }
        if (reinterpret_cast<std::uintptr_t>(tensor.pointer) % kAlignment != 0) {
            return tensor.misaligned;
        }
    }
    return nullptr;
}

inline const char* check_sizes(std::int32_t batch, std::int32_t length, std::int32_t channels,
                               DataType type) {
    if (type != DataType::kFloat32 && type != DataType::kFloat16 && type != DataType::kBFloat16) {
        return "type is not fp32, fp16 or bf16";
    }
    if (batch < 1) {
        return "batch B is below 1";
    }
    if (length < 1) {
        return "sequence length L is below 1";
    }
    if (channels < 1) {
        return "number of channels D is below 1";
    }
    // Two steps, so that the product itself cannot overflow.
    const std::int64_t rows = std::int64_t{batch} * length;
    if (rows > kMaxElements / channels) {
        return "B * L * D is larger than a grid can cover";
    }
    return nullptr;
}

//! Whether columns [offset, offset + count) lie inside a row.
inline bool columns_fit(std::int32_t offset, std::int32_t count, std::int32_t columns) {
    return offset >= 0 && columns > 0 && std::int64_t{offset} + count <= columns;
}

//! A pointer moved by `columns` elements of the type.
inline const void* at_column(const void* pointer, std::int32_t columns, DataType type) {
    const std::size_t size = type == DataType::kFloat32 ? 4 : 2;
    return static_cast<const unsigned char*>(pointer) + size * static_cast<std::size_t>(columns);
}

//! Writes `first` and then the other candidates that run the shape.
template <typename Supports, std::size_t kCount>
std::int32_t list_tactics(Tactic first, const std::array<Tactic, kCount>& others, Supports&& runs,
                          Tactic* out, std::int32_t capacity) {
    std::int32_t count = 0;
    const auto add = [&](Tactic tactic) {
        if (count < capacity && out != nullptr) {
            out[count++] = tactic;
        }
    };
    add(first);
    for (const Tactic tactic : others) {
        if (tactic != first && runs(tactic)) {
            add(tactic);
        }
    }
    return count;
}

}  // namespace vim_plugins
