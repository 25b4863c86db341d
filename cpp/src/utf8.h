//! \file utf8.h
//! Where characters of UTF-8 end.
#pragma once

#include <cstddef>
#include <string_view>

namespace vim_deploy {

//! Bytes of the well-formed UTF-8 character at the front of `text`, 0 when there is none (Unicode,
//! table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF).
std::size_t utf8_length(std::string_view text) noexcept;

}  // namespace vim_deploy
