//! \file program.h
//! What the programs beside this share: numbers among their words, and how they end.
#pragma once

#include <charconv>
#include <cstdio>
#include <string>
#include <system_error>

#include "vim_deploy/result.h"
#include "vim_deploy/runtime.h"

namespace program {

//! The number that `text` is, or -1: digits alone, at most a million.
inline long number_of(std::string const& text) {
    long value = -1;
    char const* const end = text.data() + text.size();
    auto const [last, problem] = std::from_chars(text.data(), end, value);
    bool const good = problem == std::errc() && last == end && value >= 0 && value <= 1'000'000;
    return good && text[0] != '-' ? value : -1;
}

//! What the engine's record says of its model; VIM-410 where it says nothing.
inline vim_deploy::Result<vim_deploy::ExportInfo> exported_of(vim_deploy::Engine const& engine,
                                                              std::string const& path) {
    if (engine.record() == nullptr || !engine.record()->exported) {
        return vim_deploy::Error{"VIM-410", path + " does not say how pictures are prepared",
                                 "its ONNX file was not made by vim-deploy",
                                 "export it with vim-deploy"};
    }
    return *engine.record()->exported;
}

//! The exit code; what went wrong is said on standard error.
inline int finish(vim_deploy::Status status) {
    // A full disk or a closed pipe shows here; results that nobody got are no success.
    if (status && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) {
        status = vim_deploy::Error{"VIM-304", "the results cannot be written",
                                   "standard output takes no more",
                                   "free space, or keep the reader of the pipe open"};
    }
    if (!status) {
        std::fprintf(stderr, "%s\n", status.error().text().c_str());
        return status.error().exit_code();
    }
    return 0;
}

}  // namespace program
