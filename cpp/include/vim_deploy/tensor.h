//! \file tensor.h
//! Arrays in host memory, row-major.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "vim_deploy/result.h"

namespace vim_deploy {

//! Sizes per dimension; -1 in an engine's tensors is a size that the caller chooses.
using Shape = std::vector<std::int64_t>;

enum class DataType { kFloat32, kFloat16, kBfloat16, kInt8, kInt32, kInt64, kUint8, kBool };

//! Bytes of one element.
std::size_t size_of(DataType type) noexcept;
//! NumPy's name, such as `float32`.
char const* name_of(DataType type) noexcept;
//! `[8, 3, 224, 224]`.
std::string text_of(Shape const& shape);
//! Bytes of a dense array; 0 when a size is negative or the product does not fit.
std::size_t bytes_of(DataType type, Shape const& shape) noexcept;

//! The data type of a C++ element type.
template <typename T>
struct DataTypeOf;
template <>
struct DataTypeOf<float> {
    static constexpr DataType value = DataType::kFloat32;
};
template <>
struct DataTypeOf<std::uint8_t> {
    static constexpr DataType value = DataType::kUint8;
};
template <>
struct DataTypeOf<std::int32_t> {
    static constexpr DataType value = DataType::kInt32;
};
template <>
struct DataTypeOf<std::int64_t> {
    static constexpr DataType value = DataType::kInt64;
};

//! Name, type and shape of an engine's input or output.
struct TensorInfo {
    std::string name;
    DataType type = DataType::kFloat32;
    Shape shape;
};

//! An array with its values.
struct Tensor {
    std::string name;
    DataType type = DataType::kFloat32;
    Shape shape;
    std::vector<std::byte> bytes;

    //! The values as elements of `T`; VIM-415 when they are of another type.
    template <typename T>
    Result<std::vector<T>> values() const {
        if (type != DataTypeOf<T>::value) {
            return Error{"VIM-415", "the tensor " + name + " holds " + name_of(type),
                         std::string("asked for ") + name_of(DataTypeOf<T>::value),
                         "ask for the type that the engine's record names"};
        }
        std::vector<T> copy(bytes.size() / sizeof(T));
        if (!copy.empty()) {
            std::memcpy(copy.data(), bytes.data(), copy.size() * sizeof(T));
        }
        return copy;
    }
};

//! Borrowed values, in host memory or on the device.
struct TensorView {
    TensorView(DataType element, Shape sizes, void const* values)
        : type(element), shape(std::move(sizes)), data(values) {}
    TensorView(Tensor const& tensor)
        : type(tensor.type), shape(tensor.shape), data(tensor.bytes.data()) {}

    //! VIM-415 when there are not as many values as the shape says.
    template <typename T>
    static Result<TensorView> of(std::vector<T> const& values, Shape sizes) {
        if (values.size() * sizeof(T) != bytes_of(DataTypeOf<T>::value, sizes)) {
            return Error{"VIM-415", "the values do not fill the shape " + text_of(sizes),
                         std::to_string(values.size()) + " values were given",
                         "give one value for each element"};
        }
        return TensorView(DataTypeOf<T>::value, std::move(sizes), values.data());
    }

    DataType type;
    Shape shape;
    void const* data;
};

}  // namespace vim_deploy
