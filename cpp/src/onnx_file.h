//! \file onnx_file.h
//! What of an ONNX file has to be known before a runtime is given it: its description, inputs and
//! outputs, and where its weights lie. The twin of vim_deploy/artifact/onnx_file.py and
//! onnx_rules.py, with their bounds: protobuf makes some hundred bytes of a message of two, and a
//! function that calls itself never ends.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vim_deploy/result.h"
#include "vim_deploy/tensor.h"

namespace vim_deploy {

//! Domain of the ops that vim-deploy's files call (plugins/include/vim_plugins/contract.h).
constexpr char const* kOpsDomain = "vim_deploy";

//! A graph's input or output.
struct OnnxValue {
    std::string name;
    std::uint64_t element = 0;  //!< ONNX's number of the type; 0 for what is no tensor
    Shape shape;                //!< -1 for a size that is free
};

//! A tensor whose values lie in a file beside the model.
struct OutsideTensor {
    std::string name;
    std::string location;
    std::uint64_t offset = 0;
    std::optional<std::uint64_t> length;
    std::uint64_t needed = 0;  //!< bytes of its elements
};

//! Operators by domain and name, and how often a graph or function calls each.
using Operator = std::pair<std::string, std::string>;
using Calls = std::map<Operator, std::uint64_t>;

struct OnnxFile {
    std::string producer;  //!< name and version of the tool that says it wrote the file
    std::optional<std::string> description;  //!< the metadata entry `vim_deploy`
    std::string graph_text;                  //!< the graph's doc_string
    bool announces_ops = false;              //!< it imports our ops' domain
    std::vector<OnnxValue> inputs;           //!< those that are not initialisers
    std::vector<OnnxValue> outputs;
    std::vector<OutsideTensor> outside;
    Calls calls;                           //!< of the main graph
    std::map<Operator, Calls> functions;  //!< of each local function
};

//! VIM-409 for `path`.
Error unreadable_onnx(std::string const& path, std::string const& why);

//! Reads the bytes of a file; `path` is for messages.
//! \return VIM-409 for what is no ONNX model, is damaged, or holds too much.
Result<OnnxFile> parse_onnx(std::string_view bytes, std::string const& path);

//! Whether the weights beside the model are there: each in a regular file of the model's own
//! folder, reached through no link, that holds what the tensor's shape needs. Nothing is read.
//! \return VIM-409.
Status check_outside(OnnxFile const& file, std::string const& path);

}  // namespace vim_deploy
