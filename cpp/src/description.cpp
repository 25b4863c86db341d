//! \file description.cpp
#include "description.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <set>
#include <string_view>

#include "engine_impl.h"
#include "export_info.h"
#include "image_limits.h"

namespace vim_deploy {
namespace {

constexpr char const* kImageInput = "image";
constexpr std::string_view kDetections = "detections";
// How the line of the graph's text begins that holds the same JSON as the metadata entry.
constexpr std::string_view kLine = "vim_deploy: ";
// `producer_name` of exported files.
constexpr char const* kProducer = "vim-deploy";
// ONNX's number of uint8.
constexpr std::uint64_t kUint8 = 2;

// Texts of all lines that describe the graph, equal ones once.
std::set<std::string> described_lines(std::string_view text) {
    std::set<std::string> found;
    while (!text.empty()) {
        std::size_t const end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        if (line.substr(0, kLine.size()) == kLine) {
            line.remove_prefix(kLine.size());
            while (!line.empty() && line.back() == '\r') {
                line.remove_suffix(1);
            }
            found.emplace(line);
        }
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return found;
}

Error unreadable(std::string const& path, std::string const& why) {
    return {"VIM-410", "what " + path + " says of itself cannot be read", why,
            "export the file again with this version of vim-deploy"};
}

Error undescribed(OnnxFile const& file, std::string const& path, std::string const& doubt) {
    bool const by_us = file.producer.find(kProducer) != std::string::npos;
    std::string const tool = by_us ? "" : file.producer;
    std::string why = doubt;
    if (!doubt.empty()) {
        why += tool.empty() ? "" : "; " + tool + " wrote it";
    } else if (by_us || file.announces_ops) {
        why = "vim-deploy exported it, and " + (tool.empty() ? "a tool" : tool) +
              " left out what it said of itself";
    } else {
        why = "it holds no vim-deploy metadata; " +
              (tool.empty() ? "nothing says which tool wrote it" : tool + " wrote it");
    }
    return {"VIM-410", path + " does not say how pictures are prepared", why,
            "vim-deploy inspect FILE.onnx --describe-from ORIGINAL.onnx -o NEW.onnx, ORIGINAL being "
            "what a tool was given; or export the model with vim-deploy export; or set "
            "EngineOptions::allow_missing_record and prepare pictures yourself"};
}

// How the inputs are others than the description has; empty when they are not.
std::string misfit_of(ExportInfo const& info, OnnxFile const& file) {
    std::size_t const wanted = info.head == kDetections ? 2 : 1;
    auto const called = [&file](char const* name) {
        return std::find_if(file.inputs.begin(), file.inputs.end(),
                            [name](OnnxValue const& value) { return value.name == name; });
    };
    auto const image = called(kImageInput);
    bool const has_size = called(kSizeInput) != file.inputs.end();
    if (file.inputs.size() != wanted || image == file.inputs.end() || has_size != (wanted == 2)) {
        return "its inputs are others";
    }
    Shape const prepared = prepared_shape(info);
    bool fits = image->shape.size() == prepared.size() &&
                (info.preprocess == "uint8") == (image->element == kUint8);
    for (std::size_t i = 1; fits && i < prepared.size(); ++i) {
        fits = image->shape[i] < 0 || image->shape[i] == prepared[i];
    }
    return fits ? "" : "its input is " + text_of(image->shape) + ", pictures are prepared as " +
                           text_of(prepared);
}

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) noexcept {
    return std::find(words.begin(), words.end(), word) != words.end();
}

// What types cannot say (metadata.require_usable, images.check_preparation); empty when all holds.
std::string flaw_of(ExportInfo const& info) {
    constexpr double kLargest = std::numeric_limits<float>::max();
    constexpr double kLeastRatio = 0.1;
    ImagePreparation const& image = info.image;
    // Names alone: what belongs to one (`topk:5`, `logits+aux`) is for who reads its outputs.
    if (!is_one_of(std::string_view(info.head).substr(0, info.head.find_first_of(":+")),
                   {"logits", "softmax", "topk", "features", "tokens", "labels", kDetections,
                    "upsampled"})) {
        return "its head is " + info.head + ", which is none";
    }
    if (!is_one_of(info.preprocess, {"none", "normalize", "uint8"})) {
        return "its preprocessing is " + info.preprocess + ", which is none";
    }
    if (!is_one_of(image.interpolation,
                   {"bicubic", "bilinear", "box", "hamming", "lanczos", "nearest"})) {
        return "its image interpolation is " + image.interpolation + ", which is none";
    }
    if (image.height * image.width > kMaxPixels || image.crop_ratio < kLeastRatio) {
        return "image size " + text_of({image.height, image.width}) + ", or its crop ratio";
    }
    for (std::size_t i = 0; i < image.mean.size(); ++i) {
        // The quotient is that of a white pixel.
        if (!((1 + std::fabs(image.mean[i])) / image.std[i] <= kLargest)) {
            return "pixels less its mean over its deviation are no numbers";
        }
    }
    return "";
}

}  // namespace

Result<ExportInfo> describe_onnx(OnnxFile const& file, std::string const& path) {
    auto const lines = described_lines(file.graph_text);
    if (!file.description && lines.empty()) {
        return undescribed(file, path, "");
    }
    if (!file.description && lines.size() > 1) {
        return unreadable(path, "the text of its graph describes " + std::to_string(lines.size()) +
                                    " models");
    }
    auto info = parse_export(file.description ? *file.description : *lines.begin());
    if (!info) {
        return unreadable(path, info.error().message);
    }
    std::string const flaw = flaw_of(*info);
    if (!flaw.empty()) {
        return unreadable(path, flaw);
    }
    std::string const misfit = file.description ? "" : misfit_of(*info, file);
    if (!misfit.empty()) {
        return undescribed(file, path, "the text of its graph describes another one: " + misfit);
    }
    return info;
}

}  // namespace vim_deploy
