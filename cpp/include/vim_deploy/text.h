//! \file text.h
//! Text that comes from elsewhere, made fit to be shown: names of files, classes and tensors come
//! from files that somebody else wrote, and a terminal obeys control characters. The twin of
//! vim_deploy/text.py; `Error::text` and the default log go through it already.
#pragma once

#include <string>
#include <string_view>

namespace vim_deploy {

//! `text` with every character that does not print written out: controls as `\x07`, an escape with
//! what it begins as `\x1b\x5b`, marks that turn the direction of text, line separators and private
//! characters as `\u202e`, bytes that are not UTF-8 as `\x9b`. Line ends stay.
std::string printable(std::string_view text);

//! The same as one line: line ends are written out, too.
std::string printable_line(std::string_view text);

}  // namespace vim_deploy
