//! \file passport.h
//! What is asked of a plan and its record before anything of the plan runs.
#pragma once

#include <string>
#include <vector>

#include "vim_deploy/record.h"
#include "vim_deploy/runtime.h"

namespace vim_deploy {

//! TensorRT's number as major, minor, patch. Up to 8 it is major * 1000 + minor * 100 + patch, from
//! 10 on major * 10000 + ...
std::vector<int> version_parts(std::int32_t number);

//! The plan's header, its size and hash, and the versions; no GPU is needed.
//! \param record null when there is none.
//! \return VIM-413, VIM-902, VIM-901.
Status check_plan(std::string const& path, std::vector<char> const& plan,
                  EngineRecord const* record, bool check_hash);

//! Whether the device is one that the record names.
//! \return VIM-302 when there is no such device, VIM-901 when it is another GPU.
Status check_device(std::string const& path, EngineRecord const* record, int device);

//! The error for a plan that TensorRT did not take, from what its log said.
Error deserialise_error(std::string const& path, std::string const& log, bool has_plugin);

}  // namespace vim_deploy
