//! \file file.h
//! Whole files.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "vim_deploy/result.h"

namespace vim_deploy {

bool is_file(std::string const& path) noexcept;

//! \return VIM-401 when there is no regular file.
Status require_file(std::string const& path, char const* what);

//! At most `count` bytes that a regular file begins with; empty when there is none to be read.
std::string first_bytes(std::string const& path, std::size_t count);

//! The bytes of a regular file.
//! \return VIM-401 when there is none, `unreadable` (a code) when it cannot be read or has more
//!         than `limit` bytes.
Result<std::vector<char>> read_file(std::string const& path, char const* what,
                                    char const* unreadable, std::size_t limit);

//! Everything before the last slash, with it; empty when there is none.
std::string folder_of(std::string const& path);

}  // namespace vim_deploy
