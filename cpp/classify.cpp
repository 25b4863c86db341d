//! \file classify.cpp
//! Classifies pictures with an ONNX file or engine: what a program has to do, from the file to the labels.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "program.h"
#include "vim_deploy/classification.h"
#include "vim_deploy/image.h"
#include "vim_deploy/runtime.h"
#include "vim_deploy/text.h"

namespace {

using vim_deploy::Error;
using vim_deploy::Result;

constexpr char const* kUsage =
    "usage: classify [OPTIONS] FILE PICTURE...\n"
    "  FILE              NAME.onnx, or NAME.plan with its record NAME.plan.json beside it\n"
    "  --top-k K         classes to print (default 5)\n";

// Pictures at once where the file takes any number of them.
constexpr std::int64_t kUsualBatch = 8;

struct Arguments : program::Common {
    std::string engine;
    std::vector<std::string> pictures;
    std::size_t top_k = 5;
    bool help = false;
};

Result<Arguments> parse(std::vector<std::string> const& words) {
    Arguments arguments;
    std::vector<std::string> files;
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::string const& word = words[i];
        if (word == "--help" || word == "-h") {
            arguments.help = true;
            return arguments;
        }
        if (program::take_flag(arguments, word)) {
            continue;
        }
        if (word != "--top-k" && !program::has_value(word)) {
            if (word.rfind("--", 0) == 0) {
                return Error{"VIM-201", "unknown option " + word, "", "see classify --help"};
            }
            files.push_back(word);
            continue;
        }
        std::string const value = i + 1 < words.size() ? words[++i] : "";
        long const number = program::number_of(value);
        if (word == "--top-k" ? number < 1 : !program::take_value(arguments, word, value)) {
            return Error{"VIM-202", word + " " + value + " is not valid", "",
                         "see classify --help"};
        }
        if (word == "--top-k") {
            arguments.top_k = static_cast<std::size_t>(number);
        }
    }
    if (files.size() < 2) {
        return Error{"VIM-202", "a file and at least one picture are needed", "",
                     "see classify --help"};
    }
    arguments.engine = files.front();
    arguments.pictures.assign(files.begin() + 1, files.end());
    return arguments;
}

void print(std::string const& picture, std::vector<vim_deploy::Class> const& classes) {
    std::printf("%s\n", vim_deploy::printable_line(picture).c_str());
    for (auto const& entry : classes) {
        std::printf("  %.6f  %s\n", entry.probability,
                    vim_deploy::printable_line(entry.label).c_str());
    }
}

vim_deploy::Status classify(Arguments const& arguments) {
    auto const engine = program::open(arguments.engine, arguments);
    if (!engine) {
        return engine.error();
    }
    auto session = engine->create_session(arguments.session);
    if (!session) {
        return session.error();
    }
    auto const found = program::exported_of(*engine, arguments.engine);
    if (!found) {
        return found.error();
    }
    auto const& exported = *found;
    auto next = arguments.pictures.begin();
    while (next != arguments.pictures.end()) {
        auto const left = arguments.pictures.end() - next;
        auto const batch = program::batch_of(*engine, arguments, left, kUsualBatch);
        auto const last = next + std::min<std::ptrdiff_t>(left, batch);
        std::vector<vim_deploy::Image> crops;
        for (auto picture = next; picture != last; ++picture) {
            auto const image = vim_deploy::read_image(*picture);
            auto crop = image ? vim_deploy::crop_image(*image, exported.image) : image;
            if (!crop) {
                return crop.error();
            }
            crops.push_back(std::move(*crop));
        }
        // An engine with a fixed batch wants all of it: the rest is filled and not looked at.
        crops.resize(static_cast<std::size_t>(batch), crops.back());
        auto const input = vim_deploy::batch_of_crops(crops, exported.image, exported.preprocess);
        if (!input) {
            return input.error();
        }
        auto const outputs = session->infer(*input);
        if (!outputs) {
            return outputs.error();
        }
        auto const classes = vim_deploy::best_classes(*outputs, exported, arguments.top_k);
        if (!classes) {
            return classes.error();
        }
        for (std::size_t i = 0; next != last; ++next, ++i) {
            print(*next, (*classes)[i]);
        }
    }
    return vim_deploy::Done{};
}

}  // namespace

int main(int count, char** words) {
    auto const arguments = parse({words + std::min(count, 1), words + count});
    auto status = arguments ? vim_deploy::Status(vim_deploy::Done{}) : arguments.error();
    if (arguments && arguments->help) {
        std::printf("%s%sPictures: %s\n", kUsage, program::kOptions, vim_deploy::image_formats());
    } else if (arguments) {
        status = classify(*arguments);
    }
    return program::finish(std::move(status));
}
