//! \file detect.cpp
//! Finds things in pictures with a detector's ONNX file or engine: from the file to boxes, masks and a picture
//! of them.
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "program.h"
#include "vim_deploy/detections.h"
#include "vim_deploy/image.h"
#include "vim_deploy/runtime.h"
#include "vim_deploy/text.h"

namespace {

using vim_deploy::Detection;
using vim_deploy::Error;
using vim_deploy::Image;
using vim_deploy::Result;
using vim_deploy::Status;

constexpr char const* kUsage =
    "usage: detect [OPTIONS] FILE PICTURE...\n"
    "  FILE              NAME.onnx, or NAME.plan with its record NAME.plan.json beside it\n"
    "  --score PERCENT   what scores more (default: all that the model gives)\n"
    "  --overlay FOLDER  write each picture with what was found, FOLDER/NAME.ppm\n"
    "  --masks FOLDER    write each mask, FOLDER/NAME_ROW.pgm, 255 where the object is\n";

// Pictures at once where the file takes any number of them: each has up to a thousand regions.
constexpr std::int64_t kUsualBatch = 1;

struct Arguments : program::Common {
    std::string engine;
    std::vector<std::string> pictures;
    std::string overlay, masks;
    float score = -1;
    bool help = false;
};

// Takes the value of an option; false for one that it cannot have.
bool take(Arguments& arguments, std::string const& word, std::string const& value) {
    if (program::has_value(word)) {
        return program::take_value(arguments, word, value);
    }
    if (word == "--overlay" || word == "--masks") {
        (word == "--overlay" ? arguments.overlay : arguments.masks) = value;
        return !value.empty();
    }
    long const number = program::number_of(value);
    arguments.score = static_cast<float>(number) / 100.0F;
    return number >= 0 && number <= 100;
}

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
        if (program::has_value(word) || word == "--score" || word == "--overlay" ||
            word == "--masks") {
            std::string const value = i + 1 < words.size() ? words[++i] : "";
            if (!take(arguments, word, value)) {
                return Error{"VIM-202", word + " " + value + " is not valid", "",
                             "see detect --help"};
            }
        } else if (word.rfind("--", 0) == 0) {
            return Error{"VIM-201", "unknown option " + word, "", "see detect --help"};
        } else {
            files.push_back(word);
        }
    }
    if (files.size() < 2) {
        return Error{"VIM-202", "a file and at least one picture are needed", "",
                     "see detect --help"};
    }
    arguments.engine = files.front();
    arguments.pictures.assign(files.begin() + 1, files.end());
    return arguments;
}

// A picture's name in a folder, without its own folder and suffix.
std::string place_in(std::string const& folder, std::string const& picture) {
    std::string name = picture.substr(picture.rfind('/') + 1);
    auto const point = name.rfind('.');
    if (point != std::string::npos && point > 0) {
        name.resize(point);
    }
    return folder + "/" + name;
}

struct Colour {
    std::uint8_t values[3];
};

// One colour a class: its bits, in turn, become the high bits of red, green and blue, as the colour
// map of PASCAL VOC has it.
Colour colour_of(std::int64_t index) {
    Colour colour{};
    auto number = static_cast<std::uint64_t>(index) + 1;
    for (unsigned bit = 7; number != 0; number >>= 3U, bit = bit == 0 ? 7 : bit - 1) {
        for (unsigned channel = 0; channel < 3; ++channel) {
            auto const set = static_cast<unsigned>((number >> channel) & 1U);
            colour.values[channel] =
                static_cast<std::uint8_t>(colour.values[channel] | (set << bit));
        }
    }
    return colour;
}

// Mixes a colour into one pixel: all of it, or half.
void paint(Image& image, std::int64_t x, std::int64_t y, Colour const& colour, bool half) {
    auto* pixel = image.pixels.data() + (y * image.width + x) * image.channels;
    for (std::int64_t c = 0; c < image.channels; ++c) {
        auto const own = colour.values[c % 3];
        pixel[c] = half ? static_cast<std::uint8_t>((pixel[c] + own + 1) / 2) : own;
    }
}

// The box's outline, one pixel wide.
void outline(Image& image, Detection const& detection, Colour const& colour) {
    auto const at = [](float value, std::int64_t size) {
        return std::clamp(static_cast<std::int64_t>(value), std::int64_t{0}, size - 1);
    };
    auto const left = at(detection.box[0], image.width);
    auto const top = at(detection.box[1], image.height);
    auto const right = at(detection.box[2], image.width);
    auto const bottom = at(detection.box[3], image.height);
    for (std::int64_t x = left; x <= right; ++x) {
        paint(image, x, top, colour, false);
        paint(image, x, bottom, colour, false);
    }
    for (std::int64_t y = top; y <= bottom; ++y) {
        paint(image, left, y, colour, false);
        paint(image, right, y, colour, false);
    }
}

// Prints what was found in a picture, and writes what was asked for.
Status report(Arguments const& arguments, std::string const& name, Image picture,
              std::vector<Detection> const& found) {
    vim_deploy::PictureSize const size{picture.height, picture.width};
    std::printf("%s\n", vim_deploy::printable_line(name).c_str());
    std::size_t row = 0;
    for (Detection const& detection : found) {
        if (!(detection.score > arguments.score)) {
            continue;
        }
        auto const& box = detection.box;
        std::printf("  %.6f  %.2f %.2f %.2f %.2f  %s", static_cast<double>(detection.score),
                    static_cast<double>(box[0]), static_cast<double>(box[1]),
                    static_cast<double>(box[2]), static_cast<double>(box[3]),
                    vim_deploy::printable_line(detection.label).c_str());
        auto const mask = vim_deploy::paste_mask(detection, size);
        if (!mask) {
            return mask.error();
        }
        if (!detection.mask.empty()) {
            std::printf("  %td pixels",
                        std::count(mask->pixels.begin(), mask->pixels.end(), std::uint8_t{1}));
        }
        std::printf("\n");
        if (!arguments.masks.empty() && !detection.mask.empty()) {
            auto const image = vim_deploy::mask_image(*mask, size);
            auto const path = place_in(arguments.masks, name) + "_" + std::to_string(row) + ".pgm";
            auto const written = image ? vim_deploy::write_image(*image, path) : image.error();
            if (!written) {
                return written;
            }
        }
        Colour const colour = colour_of(detection.index);
        for (std::size_t i = 0; i < mask->pixels.size(); ++i) {
            auto const at = static_cast<std::int64_t>(i);
            if (mask->pixels[i] != 0) {
                paint(picture, mask->left + at % mask->width, mask->top + at / mask->width, colour,
                      true);
            }
        }
        outline(picture, detection, colour);
        ++row;
    }
    return arguments.overlay.empty()
               ? Status(vim_deploy::Done{})
               : vim_deploy::write_image(picture, place_in(arguments.overlay, name) + ".ppm");
}

// Runs the pictures [first, last), which are no more than one batch.
Status run_batch(Arguments const& arguments, vim_deploy::Session& session,
                 vim_deploy::ExportInfo const& exported, std::size_t first, std::size_t last,
                 std::size_t batch) {
    std::vector<Image> pictures, crops;
    std::vector<vim_deploy::FittedImage> fitted;
    std::vector<vim_deploy::PictureSize> sizes;
    for (std::size_t i = first; i < last; ++i) {
        auto image = vim_deploy::read_upright_image(arguments.pictures[i]);
        if (!image) {
            return image.error();
        }
        auto one = vim_deploy::fit_image(*image, exported.image);
        if (!one) {
            return one.error();
        }
        pictures.push_back(std::move(*image));
        crops.push_back(std::move(one->image));
        sizes.push_back(one->inside);
        fitted.push_back({{}, one->inside, one->own});
    }
    // An engine with a fixed batch wants all of it: the rest is filled and not looked at.
    crops.resize(batch, crops.back());
    sizes.resize(batch, sizes.back());
    auto const input = vim_deploy::batch_of_crops(crops, exported.image, exported.preprocess);
    if (!input) {
        return input.error();
    }
    auto const outputs = session.infer(*input, sizes);
    if (!outputs) {
        return outputs.error();
    }
    auto const found = vim_deploy::find_detections(*outputs, exported, fitted);
    if (!found) {
        return found.error();
    }
    for (std::size_t i = first; i < last; ++i) {
        auto const done = report(arguments, arguments.pictures[i], std::move(pictures[i - first]),
                                 (*found)[i - first]);
        if (!done) {
            return done;
        }
    }
    return vim_deploy::Done{};
}

Status detect(Arguments const& arguments) {
    auto const engine = program::open(arguments.engine, arguments);
    if (!engine) {
        return engine.error();
    }
    auto session = engine->create_session(arguments.session);
    if (!session) {
        return session.error();
    }
    auto const exported = program::exported_of(*engine, arguments.engine);
    if (!exported) {
        return exported.error();
    }
    std::size_t const count = arguments.pictures.size();
    for (std::size_t first = 0; first < count;) {
        auto const batch = program::batch_of(
            *engine, arguments, static_cast<std::int64_t>(count - first), kUsualBatch);
        std::size_t const last = std::min(count, first + static_cast<std::size_t>(batch));
        auto const done =
            run_batch(arguments, *session, *exported, first, last, static_cast<std::size_t>(batch));
        if (!done) {
            return done;
        }
        first = last;
    }
    return vim_deploy::Done{};
}

}  // namespace

int main(int count, char** words) {
    auto const arguments = parse({words + std::min(count, 1), words + count});
    auto status = arguments ? Status(vim_deploy::Done{}) : arguments.error();
    if (arguments && arguments->help) {
        std::printf("%s%sPictures: %s\n", kUsage, program::kOptions, vim_deploy::image_formats());
    } else if (arguments) {
        status = detect(*arguments);
    }
    return program::finish(std::move(status));
}
