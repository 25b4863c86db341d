//! \file adapters_harness.h
//! Checks, messages and tensor descriptions for the harnesses of both plugin interfaces.
#pragma once

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "adapters_fakes.h"

inline int failures = 0;

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            std::printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
            ++failures;                                                        \
        }                                                                      \
    } while (false)

//! Opened libraries of one run: the fake TensorRT and the adapters.
struct Libraries {
    void* tensorrt = nullptr;
    void* plugins = nullptr;
    std::string plugins_path;
};

template <typename Function>
Function find(void* handle, char const* name) {
    auto const function = reinterpret_cast<Function>(::dlsym(handle, name));
    if (function == nullptr) {
        std::printf("FAILED no symbol %s\n", name);
        std::exit(1);
    }
    return function;
}

inline Libraries libraries;

inline FakeTensorRt& tensorrt() {
    return *find<FakeTensorRt* (*)()>(libraries.tensorrt, "fake_tensorrt")();
}

inline FakeLaunches& launched() {
    return *find<FakeLaunches* (*)()>(libraries.plugins, "fake_launches")();
}

inline nvinfer1::IPluginRegistry& registry() {
    return *find<nvinfer1::IPluginRegistry* (*)()>(libraries.tensorrt, "getPluginRegistry")();
}

//! Whether an error that contains `text` was logged since the last call; forgets all messages.
inline bool logged_error(std::string const& text) {
    bool found = false;
    for (FakeMessage const& message : tensorrt().messages) {
        found = found || (message.severity == nvinfer1::ILogger::Severity::kERROR &&
                          message.text.find(text) != std::string::npos);
    }
    if (!found) {
        for (FakeMessage const& message : tensorrt().messages) {
            std::printf("  logged: %s\n", message.text.c_str());
        }
    }
    tensorrt().messages.clear();
    return found;
}

inline bool logged_nothing() {
    bool const nothing = tensorrt().messages.empty();
    tensorrt().messages.clear();
    return nothing;
}

//! Expressions of fixed sizes, as TensorRT has them when shapes are known. The interface classes
//! forward to an implementation object, which is what is faked.
class FakeDimension : public nvinfer1::IDimensionExpr {
  public:
    explicit FakeDimension(std::int64_t value) : implementation_(value) {
        mImpl = &implementation_;
    }
    ~FakeDimension() noexcept override = default;

  private:
    struct Implementation : nvinfer1::apiv::VDimensionExpr {
        explicit Implementation(std::int64_t size) : value(size) {}
        bool isConstant() const override { return true; }
        std::int64_t getConstantValue() const override { return value; }
        bool isSizeTensor() const override { return false; }
        std::int64_t value;
    };
    Implementation implementation_;
};

class FakeExprBuilder : public nvinfer1::IExprBuilder {
  public:
    FakeExprBuilder() { mImpl = &implementation_; }
    ~FakeExprBuilder() noexcept override = default;

  private:
    struct Implementation : nvinfer1::apiv::VExprBuilder {
        nvinfer1::IDimensionExpr const* constant(std::int64_t value) override {
            made.push_back(std::make_unique<FakeDimension>(value));
            return made.back().get();
        }
        nvinfer1::IDimensionExpr const* operation(nvinfer1::DimensionOperation,
                                                  nvinfer1::IDimensionExpr const&,
                                                  nvinfer1::IDimensionExpr const&) override {
            return nullptr;
        }
        nvinfer1::IDimensionExpr const* declareSizeTensor(
            std::int32_t, nvinfer1::IDimensionExpr const&,
            nvinfer1::IDimensionExpr const&) override {
            return nullptr;
        }
        std::vector<std::unique_ptr<FakeDimension>> made;
    };
    Implementation implementation_;
};

using Sizes = std::vector<std::int64_t>;

//! A node for the harness: attributes, and shapes for any batch and length.
struct Case {
    char const* op;
    std::vector<std::pair<char const*, std::int32_t>> attributes;
    bool has_scale;
    std::function<std::vector<Sizes>(std::int64_t batch, std::int64_t length)> inputs;
    std::function<Sizes(std::int64_t batch, std::int64_t length)> output;
    std::vector<bool> is_activation;  //!< per input
    //! For each pointer of FakeLaunches::inputs, the node's input it must come from.
    std::vector<std::size_t> launch_order;
};

//! The three ops with every optional part present and absent; D = 64, N = 16.
inline std::vector<Case> all_cases() {
    auto const scan = [](bool gated) {
        return Case{"VimSelectiveScan",
                    {{"reverse", 1},
                     {"delta_softplus", 1},
                     {"b_off", 0},
                     {"c_off", 16},
                     {"z_off", gated ? 64 : 0},
                     {"has_z", gated ? 1 : 0}},
                    false,
                    [gated](std::int64_t b, std::int64_t l) {
                        std::vector<Sizes> inputs{{b, l, 64}, {b, l, 64}, {16, 64},
                                                  {b, l, 40}, {64},       {64}};
                        if (gated) {
                            inputs.push_back({b, l, 128});
                        }
                        return inputs;
                    },
                    [](std::int64_t b, std::int64_t l) { return Sizes{b, l, 64}; },
                    gated ? std::vector<bool>{true, true, false, true, false, false, true}
                          : std::vector<bool>{true, true, false, true, false, false},
                    gated ? std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6}
                          : std::vector<std::size_t>{0, 1, 2, 3, 4, 5}};
    };
    auto const bi_scan = [](bool low_rank) {
        return Case{"VimBiSelectiveScan",
                    {{"delta_softplus", 1},
                     {"b_off", 0},
                     {"c_off", 16},
                     {"dt_off", 32},
                     {"z_off", 64},
                     {"low_rank", low_rank ? 1 : 0}},
                    true,
                    [low_rank](std::int64_t b, std::int64_t l) {
                        Sizes const dt = low_rank ? Sizes{2, 64, 12} : Sizes{2, b, l, 64};
                        return std::vector<Sizes>{{2, b, l, 64}, dt,      {2, b, l, 48},
                                                  {2, 16, 64},   {2, 64}, {2, 64},
                                                  {b, l, 128}};
                    },
                    [](std::int64_t b, std::int64_t l) { return Sizes{b, l, 64}; },
                    {true, true, true, false, false, false, true},
                    {0, 1, 3, 2, 4, 5, 6}};
    };
    Case const conv{"VimBiCausalConv",
                    {{"x_off", 0}},
                    false,
                    [](std::int64_t b, std::int64_t l) {
                        return std::vector<Sizes>{{b, l, 128}, {2, 4, 64}, {2, 64}};
                    },
                    [](std::int64_t b, std::int64_t l) { return Sizes{2, b, l, 64}; },
                    {true, false, false},
                    {0, 1, 2}};
    return {scan(false), scan(true), conv, bi_scan(false), bi_scan(true)};
}

//! The attributes of a case as plugin fields.
class Fields {
  public:
    explicit Fields(Case const& node) : attributes_(node.attributes) {
        for (auto const& attribute : attributes_) {
            fields_.emplace_back(attribute.first, &attribute.second,
                                 nvinfer1::PluginFieldType::kINT32, 1);
        }
        if (node.has_scale) {
            fields_.emplace_back("scale", &scale_, nvinfer1::PluginFieldType::kFLOAT32, 1);
        }
    }
    Fields(Fields const&) = delete;

    std::vector<nvinfer1::PluginField>& list() { return fields_; }
    nvinfer1::PluginFieldCollection const* collection() {
        collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
        return &collection_;
    }

  private:
    std::vector<std::pair<char const*, std::int32_t>> attributes_;
    float scale_ = 0.5F;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

inline nvinfer1::Dims dims_of(Sizes const& sizes) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(sizes.size());
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        dims.d[i] = sizes[i];
    }
    return dims;
}

inline bool same(nvinfer1::Dims const& dims, Sizes const& sizes) {
    nvinfer1::Dims const other = dims_of(sizes);
    bool equal = dims.nbDims == other.nbDims;
    for (std::int32_t i = 0; equal && i < dims.nbDims; ++i) {
        equal = dims.d[i] == other.d[i];
    }
    return equal;
}

//! Inputs, then the output, of a case at fixed shapes.
inline std::vector<nvinfer1::PluginTensorDesc> describe_tensors(Case const& node,
                                                                nvinfer1::DataType type,
                                                                std::int64_t batch,
                                                                std::int64_t length) {
    std::vector<nvinfer1::PluginTensorDesc> tensors;
    std::vector<Sizes> const inputs = node.inputs(batch, length);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        nvinfer1::PluginTensorDesc tensor{};
        tensor.dims = dims_of(inputs[i]);
        tensor.type = node.is_activation[i] ? type : nvinfer1::DataType::kFLOAT;
        tensor.format = nvinfer1::TensorFormat::kLINEAR;
        tensors.push_back(tensor);
    }
    nvinfer1::PluginTensorDesc output{};
    output.dims = dims_of(node.output(batch, length));
    output.type = type;
    output.format = nvinfer1::TensorFormat::kLINEAR;
    tensors.push_back(output);
    return tensors;
}

//! The same over a profile: batch 1 to 8, length 1 to `longest`, best at half of it.
inline std::vector<nvinfer1::DynamicPluginTensorDesc> describe_profile(Case const& node,
                                                                       nvinfer1::DataType type,
                                                                       std::int64_t shortest = 1,
                                                                       std::int64_t longest = 256) {
    auto const lowest = describe_tensors(node, type, 1, shortest);
    auto const best = describe_tensors(node, type, 4, (shortest + longest) / 2);
    auto const highest = describe_tensors(node, type, 8, longest);
    std::vector<nvinfer1::DynamicPluginTensorDesc> tensors(lowest.size());
    for (std::size_t i = 0; i < lowest.size(); ++i) {
        tensors[i].desc = lowest[i];
        tensors[i].min = lowest[i].dims;
        tensors[i].opt = best[i].dims;
        tensors[i].max = highest[i].dims;
        for (std::int32_t d = 0; d < lowest[i].dims.nbDims; ++d) {
            if (lowest[i].dims.d[d] != highest[i].dims.d[d]) {
                tensors[i].desc.dims.d[d] = -1;
            }
        }
    }
    return tensors;
}

//! Every data type of TensorRT 10 and a few formats: the table of combinations runs over them.
inline std::vector<nvinfer1::DataType> all_types() {
    using Type = nvinfer1::DataType;
    return {Type::kFLOAT, Type::kHALF, Type::kINT8,  Type::kINT32, Type::kBOOL, Type::kUINT8,
            Type::kFP8,   Type::kBF16, Type::kINT64, Type::kINT4,  Type::kFP4};
}

inline bool is_activation_type(nvinfer1::DataType type) {
    using Type = nvinfer1::DataType;
    return type == Type::kFLOAT || type == Type::kHALF || type == Type::kBF16;
}

//! 16-byte aligned places that stand for device buffers; nothing reads them.
class Buffers {
  public:
    explicit Buffers(std::size_t inputs) : storage_(inputs + 1) {
        for (Block& block : storage_) {
            pointers_.push_back(&block);
        }
    }
    std::vector<void const*> inputs() const { return {pointers_.begin(), pointers_.end() - 1}; }
    std::vector<void*> outputs() const { return {pointers_.back()}; }

  private:
    struct alignas(16) Block {
        unsigned char bytes[16];
    };
    std::vector<Block> storage_;
    std::vector<void*> pointers_;
};

//! Whether the last launch read each of the node's inputs where the kernel expects it. The gate is
//! passed at its first column, z_off = 64 in these cases, so elements of `size` bytes further on.
inline bool reads_its_inputs(Case const& node, Buffers const& buffers, std::size_t size) {
    auto const given = buffers.inputs();
    for (std::size_t i = 0; i < node.launch_order.size(); ++i) {
        auto const* expected = static_cast<char const*>(given[node.launch_order[i]]);
        if (launched().inputs[i] != expected + (i == 6 ? 64 * size : 0)) {
            return false;
        }
    }
    return true;
}

//! Opens the fake TensorRT as Triton would have it, and the plugins; runs `checks`.
int run_harness(int argc, char** argv,
                std::vector<std::pair<char const*, void (*)()>> const& checks);
