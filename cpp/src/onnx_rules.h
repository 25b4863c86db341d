//! \file onnx_rules.h
//! What the parts of a model have to be (vim_deploy/artifact/onnx_rules.py). Each function gives
//! what is wrong, a sentence, or nothing.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "onnx_file.h"

namespace vim_deploy {

//! A tensor as it stands in the file.
struct StoredTensor {
    std::string name;
    std::uint64_t type = 0;
    bool outside = false;
    std::vector<std::int64_t> sizes;
    std::map<std::string, std::string> entries;  //!< what it says of the file that it lies in
};

std::string flaw_of_values(std::string const& place, std::vector<OnnxValue> const& values);

//! `found` is set for one that lies beside the model.
std::string flaw_of_tensor(StoredTensor const& tensor, std::optional<OutsideTensor>& found);

//! Functions that no runtime can put into the places of their calls: those that call themselves,
//! over others as well, or stand for too many nodes.
std::string flaw_of_functions(OnnxFile const& file);

}  // namespace vim_deploy
