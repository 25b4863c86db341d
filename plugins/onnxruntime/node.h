//! \file node.h
//! One node between ONNX Runtime and a device: attributes once, shapes and buffers at every run.
#pragma once

#include <cstdint>
#include <memory>

#include "device.h"
#include "ort_api.h"
#include "vim_plugins/params.h"

namespace vim_plugins::ort {

//! A kernel of ONNX Runtime. Methods throw std::invalid_argument, in the words of the contract, for
//! what does not fit it, and std::runtime_error for what ONNX Runtime or the device refuses.
template <typename Params>
class Node {
  public:
    //! Reads and checks the attributes. Every one must be there, as an exported file has them;
    //! those that only the function's body needs are not looked at.
    Node(OrtApi const* api, OrtKernelInfo const* info, DataType type,
         std::unique_ptr<Device> device);

    //! Runs the op on the inputs of `context` into its output. A batch of 0, or no boxes,
    //! gives an empty output.
    void compute(OrtKernelContext* context) const;

    OrtApi const* api() const noexcept { return api_; }

  private:
    OrtApi const* api_;
    Params attributes_;
    std::unique_ptr<Device> device_;
};

}  // namespace vim_plugins::ort
