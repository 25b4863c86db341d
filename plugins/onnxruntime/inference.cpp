//! \file inference.cpp
#include "inference.h"

#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "calls.h"

namespace vim_plugins::ort {
namespace {

//! A tensor as ONNX Runtime knows it at load time: "" in place of a name for a size that is a
//! number, or not known at all (negative).
struct TensorFacts {
    int element = kElementUndefined;
    std::vector<std::int64_t> sizes;
    std::vector<std::string> names;
};

TensorFacts facts_of(OrtApi const* api, OrtShapeInferContext const* context, std::size_t input) {
    OrtTensorTypeAndShapeInfo* info = nullptr;  // the context keeps it
    check(api, ShapeInferContext_GetInputTypeShape(api)(context, input, &info));
    TensorFacts facts;
    check(api, GetTensorElementType(api)(info, &facts.element));
    std::size_t rank = 0;
    check(api, GetDimensionsCount(api)(info, &rank));
    facts.sizes.resize(rank);
    std::vector<char const*> names(rank, nullptr);
    check(api, GetDimensions(api)(info, facts.sizes.data(), rank));
    check(api, GetSymbolicDimensions(api)(info, names.data(), rank));
    for (char const* name : names) {
        facts.names.emplace_back(name == nullptr ? "" : name);
    }
    return facts;
}

// ONNX Runtime reuses the memory of tensors whose sizes have equal names, so a made-up name must
// never come twice, nor be one that a file can have.
std::string new_name() {
    static std::atomic<std::uint64_t> count{0};
    static std::string const prefix =
        "vim_deploy_size_" + std::to_string(std::random_device{}()) + '_';
    return prefix + std::to_string(count.fetch_add(1));
}

}  // namespace

void infer_output(OrtApi const* api, adapters::OpDescription const& op,
                  OrtShapeInferContext* context) {
    std::size_t inputs = 0;
    check(api, ShapeInferContext_GetInputCount(api)(context, &inputs));
    if (inputs == 0) {
        return;
    }
    std::vector<std::int64_t> sizes;
    std::vector<std::string> names;
    for (adapters::OutputDimension const& dimension : op.output) {
        std::int64_t size = dimension.input < 0 ? dimension.value : -1;
        std::string name;
        if (dimension.input >= 0 && static_cast<std::size_t>(dimension.input) < inputs) {
            TensorFacts const facts =
                facts_of(api, context, static_cast<std::size_t>(dimension.input));
            auto const place = static_cast<std::size_t>(dimension.value);
            if (place < facts.sizes.size()) {
                size = facts.sizes[place];
                name = facts.names[place];
            }
        }
        sizes.push_back(size);
        names.push_back(size < 0 && name.empty() ? new_name() : name);
    }
    std::vector<char const*> texts;
    for (std::string const& name : names) {
        texts.push_back(name.c_str());
    }
    OrtTensorTypeAndShapeInfo* raw = nullptr;
    check(api, CreateTensorTypeAndShapeInfo(api)(&raw));
    TensorInfo const info(raw, {api});
    check(api, SetTensorElementType(api)(info.get(), facts_of(api, context, 0).element));
    check(api, SetDimensions(api)(info.get(), sizes.data(), sizes.size()));
    check(api, SetSymbolicDimensions(api)(info.get(), texts.data(), texts.size()));
    check(api, ShapeInferContext_SetOutputTypeShape(api)(context, 0, info.get()));
}

}  // namespace vim_plugins::ort
