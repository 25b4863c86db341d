//! \file record.h
//! The record beside an engine, `NAME.plan.json` (docs/engines.md): what it was made from, how, and
//! where it runs.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vim_deploy/result.h"

namespace vim_deploy {

//! A file's name, SHA-256 and size.
struct FileIdentity {
    std::string name;
    std::string sha256;
    std::int64_t bytes = 0;
};

//! A tensor as the record has it: NumPy's type name; a dynamic size is -1.
struct RecordedTensor {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
};

//! Smallest, usual and largest shape of one input in one profile.
struct RecordedRange {
    std::string input;
    std::vector<std::int64_t> min, opt, max;
};
using RecordedProfile = std::vector<RecordedRange>;

//! How a picture becomes the model's input (vim_deploy/specs.py, ImagePreparation).
struct ImagePreparation {
    std::int64_t height = 0;
    std::int64_t width = 0;
    std::int64_t channels = 3;
    std::vector<double> mean, std;  //!< per channel, for values scaled to [0, 1]
    double crop_ratio = 0.875;
    std::string interpolation = "bicubic";
};

//! Whether means are finite and deviations above 0 in float32, in which pictures are normalised: a
//! double that is neither would make NaN or Inf of every picture.
bool can_normalise(ImagePreparation const& image) noexcept;

//! What the exported file says about itself; the part that a program needs.
struct ExportInfo {
    std::string model;
    std::string preprocess;  //!< `none`, `normalize` or `uint8`: what is left to the graph
    std::string head;        //!< `logits`, `softmax`, `topk:K` or `features`
    std::string precision;
    ImagePreparation image;
    std::vector<std::string> labels;  //!< class names, in order; may be empty
};

//! The plugin library that an engine was built with.
struct RecordedPlugin {
    std::string name;
    std::string sha256;
    std::int64_t contract_version = 0;
    bool embedded = false;  //!< the engine carries the library inside
};

struct EngineRecord {
    FileIdentity plan;
    std::string runtime;          //!< `tensorrt` or `tensorrt-rtx`
    std::string runtime_version;  //!< `10.14.1.48`
    std::vector<RecordedTensor> inputs, outputs;
    std::vector<RecordedProfile> profiles;
    std::vector<std::string> compute_capabilities;  //!< `8.6`
    bool later_gpus = false;               //!< whether it also runs on GPUs newer than all of these
    std::optional<RecordedPlugin> plugin;  //!< missing when the engine needs none
    bool stripped = false;                 //!< it holds no weights yet
    bool version_compatible = false;       //!< later releases run it as well
    std::optional<ExportInfo> exported;    //!< missing when vim-deploy did not make the ONNX file
};

//! Reads a record from its text; `path` is for messages.
//! \return VIM-413 when it is not one, naming the key.
Result<EngineRecord> parse_record(std::string_view text, std::string const& path);

//! Reads `PLAN.json`.
//! \return VIM-401 when there is none, VIM-413 when it cannot be read.
Result<EngineRecord> read_record(std::string const& plan_path);

}  // namespace vim_deploy
