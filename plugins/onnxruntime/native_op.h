//! \file native_op.h
//! One op for one element type, as ONNX Runtime is told of it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ort_api.h"
#include "vim_plugins/params.h"

namespace vim_plugins::ort {

//! What a callback finds behind the OrtCustomOp that it is given. It lives as long as the library.
struct NativeOp : CustomOp {
    OrtApi const* api = nullptr;
    DataType type = DataType::kFloat32;
    std::int32_t threads = 1;
};

//! Every op for every element type that it has, bound to one ONNX Runtime and a number of threads.
std::vector<std::unique_ptr<NativeOp>> make_ops(OrtApi const* api, std::int32_t threads);

//! The same object as ONNX Runtime names it.
OrtCustomOp const* handle(NativeOp const& op) noexcept;

}  // namespace vim_plugins::ort
