//! \file program.h
//! What the programs beside this share: their common options, numbers among their words, and how
//! they end.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>

#include "vim_deploy/result.h"
#include "vim_deploy/runtime.h"
#include "vim_deploy/text.h"

namespace program {

//! Options that every program takes.
constexpr char const* kOptions =
    "  --device N        CUDA device of an engine (default 0)\n"
    "  --cuda-graph      replay an engine from a CUDA graph\n"
    "  --plugin LIBRARY  an engine's plugin library (default: libvim_plugins.so beside it, if there)\n"
    "  --onnxruntime PATH  ONNX Runtime's library, or a folder with it, for an ONNX file (default:\n"
    "                    VIM_DEPLOY_ONNXRUNTIME, beside the program, the system's)\n"
    "  --ops LIBRARY     native ops for an ONNX file, or none (default: VIM_DEPLOY_ORT_OPS, beside\n"
    "                    the program)\n"
    "  --threads N       threads inside one operator of an ONNX file (default: ONNX Runtime's choice)\n"
    "  --batch N         pictures at once (default: what the file is made for)\n"
    "  --verbose         say what runs the file\n"
    "  --help            this text\n";

struct Common {
    vim_deploy::EngineOptions open;
    vim_deploy::SessionOptions session;
    std::int64_t batch = 0;
    bool verbose = false;
};

//! The number that `text` is, or -1: digits alone, at most a million.
inline long number_of(std::string const& text) {
    long value = -1;
    char const* const end = text.data() + text.size();
    auto const [last, problem] = std::from_chars(text.data(), end, value);
    bool const good = problem == std::errc() && last == end && value >= 0 && value <= 1'000'000;
    return good && text[0] != '-' ? value : -1;
}

//! Takes an option without a value; false for another word.
inline bool take_flag(Common& common, std::string const& word) {
    bool const graph = word == "--cuda-graph";
    bool const verbose = word == "--verbose";
    common.session.cuda_graph = common.session.cuda_graph || graph;
    common.verbose = common.verbose || verbose;
    return graph || verbose;
}

//! Whether `word` is an option of all programs with a value.
inline bool has_value(std::string const& word) {
    return word == "--device" || word == "--plugin" || word == "--onnxruntime" || word == "--ops" ||
           word == "--threads" || word == "--batch";
}

//! Takes the value of such an option; false for one that it cannot have.
inline bool take_value(Common& common, std::string const& word, std::string const& value) {
    if (word == "--plugin" || word == "--onnxruntime" || word == "--ops") {
        if (word == "--ops" && value == "none") {
            common.open.native_ops = false;
            return true;
        }
        (word == "--plugin"        ? common.open.plugin_library
         : word == "--onnxruntime" ? common.open.onnxruntime
                                   : common.open.ops_library) = value;
        return !value.empty();
    }
    long const number = number_of(value);
    if (word == "--batch") {
        common.batch = number;
        return number >= 1;
    }
    (word == "--threads" ? common.open.threads : common.open.device) = static_cast<int>(number);
    return number >= 0;
}

//! Opens the file that the options say, and says what is to be said of it.
inline vim_deploy::Result<vim_deploy::Engine> open(std::string const& path, Common const& common) {
    auto engine = vim_deploy::Engine::open(path, common.open);
    if (engine) {
        for (std::string const& note : engine->notes()) {
            std::fprintf(stderr, "note: %s\n", vim_deploy::printable_line(note).c_str());
        }
    }
    if (engine && common.verbose) {
        std::fprintf(stderr, "%s\n", vim_deploy::printable_line(engine->runs_with()).c_str());
    }
    return engine;
}

//! How many of `left` pictures are run at once: as many as are asked for, else what an engine is
//! made for, else, of an ONNX file, `usual`.
inline std::int64_t batch_of(vim_deploy::Engine const& engine, Common const& common,
                             std::int64_t left, std::int64_t usual) {
    std::int64_t const most = common.batch > 0 ? common.batch
                              : engine.record() != nullptr ? left
                                                           : usual;
    return engine.batch_for(std::min(left, most));
}

//! What the file says of its model; VIM-410 where it says nothing.
inline vim_deploy::Result<vim_deploy::ExportInfo> exported_of(vim_deploy::Engine const& engine,
                                                              std::string const& path) {
    if (engine.exported() == nullptr) {
        return vim_deploy::Error{"VIM-410", path + " does not say how pictures are prepared",
                                 "its ONNX file was not made by vim-deploy",
                                 "export it with vim-deploy"};
    }
    return *engine.exported();
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
