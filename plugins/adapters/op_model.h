//! \file op_model.h
//! What an adapter needs to know of an op, stated once for both plugin interfaces and without
//! TensorRT: names, inputs, attributes, shapes, and how they fill the kernels' parameters.
//!
//! A kernel's parameter struct doubles as the store of a plugin's attributes: everything else in
//! it is filled from shapes and buffers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "vim_plugins/contract.h"
#include "vim_plugins/params.h"

namespace vim_plugins::adapters {

//! What values an attribute takes.
enum class AttributeKind : std::int32_t {
    kFlag,    //!< int32: 0 or 1
    kOffset,  //!< int32: a column or a count, not negative
    kScale,   //!< float32: finite and not 0
    kNumber,  //!< float32: whatever the op's validation allows
};

//! One attribute: its name and where the parameter struct keeps it (in bytes from its start).
struct Attribute {
    char const* name;
    AttributeKind kind;
    std::size_t offset;
};

//! Whether an input follows the activations' element type T or is always fp32 or int64.
enum class InputKind : std::int32_t { kActivation, kFloat32, kInt64 };

//! One input: its name and element type.
struct Input {
    char const* name;
    InputKind kind;
};

//! One output dimension: a dimension of an input, or a constant when `input` is -1.
struct OutputDimension {
    std::int32_t input;
    std::int32_t value;  //!< index of the dimension, or the constant; -1: see output_shape_of()
};

//! Sizes of a tensor.
struct Shape {
    std::int32_t rank = 0;
    std::array<std::int64_t, 8> size{};
};

//! What is the same for every node of an op. Every op has one output, of type T.
struct OpDescription {
    char const* name;
    std::vector<Input> inputs;  //!< with the optional last ones
    std::vector<Attribute> attributes;
    std::vector<OutputDimension> output;
};

#define VIM_PLUGINS_DECLARE_MODEL(Name, c_name)                                                    \
    OpDescription const& describe(Name##Params const& params);                                     \
                                                                                                   \
    /*! Number of inputs of a node with these attributes. */                                       \
    std::int32_t input_count(Name##Params const& params) noexcept;                                 \
                                                                                                   \
    /*! Fills the sizes from the shapes of the inputs, `input_count()` of them.                    \
        \throws std::invalid_argument naming the input when ranks or sizes do not fit together. */ \
    void set_sizes(Name##Params& params, Shape const* inputs);                                     \
                                                                                                   \
    /*! Fills the pointers. */                                                                     \
    void set_buffers(Name##Params& params, void const* const* inputs, void* output) noexcept;
VIM_PLUGINS_ALL_OPS(VIM_PLUGINS_DECLARE_MODEL)
#undef VIM_PLUGINS_DECLARE_MODEL

//! Shape of the output for inputs of these shapes.
Shape output_shape(OpDescription const& op, Shape const* inputs) noexcept;

//! The same for a node, whose sizes and attributes say the rest: products, attributes.
template <typename Params>
Shape output_shape_of(Params const& params, Shape const* inputs) noexcept {
    return output_shape(describe(params), inputs);
}
Shape output_shape_of(PyramidRoiAlignParams const& params, Shape const* inputs) noexcept;

bool operator==(Shape const& left, Shape const& right) noexcept;

//! "[2, 197, 384]", with "-1" for a size not known yet.
std::string to_string(Shape const& shape);

}  // namespace vim_plugins::adapters
