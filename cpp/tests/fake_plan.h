//! \file fake_plan.h
//! What the fake TensorRT loads and runs. A plan is a header of 36 bytes and lines such as
//!
//!     input image float32 -1x1x32x32
//!     output logits float32 -1x10
//!     input size int64 -1x2        (of a detector: its outputs come of these sizes)
//!     profile 1x1x32x32 2x1x32x32 4x1x32x32
//!     scratch 4096
//!     plugins                      (needs the fake plugin library)
//!     embedded                     (carries code that must be allowed)
//!     fail deserialise TEXT        (or context, enqueue, capture: refuse, with TEXT in the log)
#pragma once

#include <NvInferRuntime.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace fake_plan {

using nvinfer1::DataType;
using nvinfer1::Dims;

constexpr std::size_t kHeaderBytes = 36;

struct Io {
    std::string name;
    DataType type = DataType::kFLOAT;
    Dims dims{};
    bool is_input = false;
};

struct Plan {
    std::vector<Io> tensors;
    std::vector<std::vector<Dims>> profiles;
    std::int64_t scratch = 0;
    bool plugins = false;
    bool embedded = false;
    std::map<std::string, std::string> fail;
};

//! Reads the lines after the header.
Plan parse_plan(std::string const& text);
//! Elements of a tensor.
std::int64_t volume(Dims const& dims);
//! Bytes of an element.
std::size_t width_of(DataType type);
//! Whether dims lie between the first and the last of a profile's three.
bool inside(Dims const& dims, std::vector<Dims> const& range);

//! The shape of an engine's input for the sizes of pictures, for a batch of this shape.
Dims sizes_for(Dims const& dims);

//! One run, with everything it needs by value: what a CUDA graph keeps.
struct Run {
    Io input;
    bool has_sizes = false;
    std::vector<Io> outputs;
    std::map<std::string, void*> addresses;
    std::shared_ptr<Dims const> current;  //!< the context's shape when this runs
    void* scratch = nullptr;
    std::int64_t scratch_bytes = 0;
    std::int32_t profile = 0;
    bool captured = false;

    void operator()() const;

  private:
    float element(std::int64_t i) const;
    void detect(Io const& output, std::int64_t item, std::int64_t column, std::int64_t at) const;
    void write(Io const& output, std::int64_t item, std::int64_t column, std::int64_t at,
               std::int64_t elements) const;
};

}  // namespace fake_plan
