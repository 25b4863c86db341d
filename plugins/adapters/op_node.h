//! \file op_node.h
//! One node of an op between TensorRT's descriptions and the kernels: what both plugin interfaces
//! do, without either of them.
#pragma once

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "op_model.h"

namespace vim_plugins::adapters {

//! Most inputs an op has.
inline constexpr std::size_t kMaxInputs = 7;

//! Shapes of a node's inputs at one point of the optimisation profile.
using InputShapes = std::array<Shape, kMaxInputs>;

//! Element type and format of one tensor.
struct TensorType {
    nvinfer1::DataType type;
    nvinfer1::TensorFormat format;
};

//! TensorRT's dimensions as a Shape; a rank outside 0..8 is refused.
//! \throws std::invalid_argument
Shape to_shape(nvinfer1::Dims const& dims);

//! The output's dimensions as expressions of the inputs'.
//! \throws std::invalid_argument when an input lacks a dimension that the output takes over.
nvinfer1::DimsExprs output_expressions(OpDescription const& op, nvinfer1::DimsExprs const* inputs,
                                       nvinfer1::IExprBuilder& builder);

//! A node with the attributes of `Params`. Methods throw std::invalid_argument for what does not
//! fit the contract and std::runtime_error for what CUDA refuses.
template <typename Params>
class OpNode {
  public:
    explicit OpNode(Params const& attributes) : attributes_(attributes) {}

    //! Reads the attributes from plugin fields (see parse_attributes).
    explicit OpNode(nvinfer1::PluginFieldCollection const* fields);

    Params const& attributes() const noexcept { return attributes_; }
    OpDescription const& op() const { return describe(attributes_); }
    std::int32_t inputs() const noexcept { return input_count(attributes_); }

    //! \throws unless there are `inputs()` inputs and one output.
    void require_counts(std::int32_t inputs, std::int32_t outputs) const;

    //! Whether tensor `position` may have `types[position]`; looks at `types[0..position]` only.
    //! Linear format; the activations share one of fp32, fp16 and (from TensorRT 9) bf16; the
    //! others are fp32.
    bool accepts(std::int32_t position, TensorType const* types) const;

    //! The output's type for inputs of these types.
    nvinfer1::DataType output_type(nvinfer1::DataType const* inputs) const;

    //! Kernel parameters without buffers for these shapes and this activation type, validated.
    Params resolve(InputShapes const& shapes, nvinfer1::DataType type) const;

    //! The same, checking every tensor's type and the output's shape as well.
    Params resolve(nvinfer1::PluginTensorDesc const* inputs,
                   nvinfer1::PluginTensorDesc const* outputs) const;

    //! Notes the tactics that work at every one of these points (minimum, optimum, maximum).
    void configure(std::vector<InputShapes> const& points, nvinfer1::DataType type);

    //! What configure() found, ids as in vim_plugins::Tactic.
    std::vector<std::int32_t> const& tactic_ids() const noexcept { return tactic_ids_; }

    //! Chooses the tactic of later launches; 0 leaves the choice to the kernels' own rule.
    void set_tactic(std::int32_t tactic);

    //! Workspace that serves every tactic at every one of these points.
    std::size_t workspace(std::vector<InputShapes> const& points, nvinfer1::DataType type) const;

    //! Enqueues the op on `stream`.
    void launch_on(nvinfer1::PluginTensorDesc const* input_types,
                   nvinfer1::PluginTensorDesc const* output_types, void const* const* inputs,
                   void* const* outputs, void* workspace, cudaStream_t stream) const;

    //! Equal for nodes whose timings may be shared: attributes and the version of the kernels.
    std::string timing_key() const;

  private:
    Params attributes_;
    Tactic tactic_ = Tactic::kDefault;
    std::vector<std::int32_t> tactic_ids_;
};

}  // namespace vim_plugins::adapters
