//! \file description.h
//! What an ONNX file says of itself, in which of its two places, and whether that is to be believed
//! (vim_deploy/artifact/description.py; docs/tools.md).
#pragma once

#include <optional>
#include <string>

#include "onnx_file.h"
#include "vim_deploy/record.h"

namespace vim_deploy {

//! The description of `file`.
//! \return VIM-410 when there is none, none to be believed, or it cannot be read.
Result<ExportInfo> describe_onnx(OnnxFile const& file, std::string const& path);

}  // namespace vim_deploy
