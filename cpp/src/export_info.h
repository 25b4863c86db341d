//! \file export_info.h
//! What an exported file says of itself, from its text.
#pragma once

#include <string_view>

#include "vim_deploy/record.h"

namespace vim_deploy {

//! Reads what vim_deploy/artifact/metadata.py writes, as far as a program needs it. Errors carry no
//! code: `message` says what is wrong.
Result<ExportInfo> parse_export(std::string_view text);

}  // namespace vim_deploy
