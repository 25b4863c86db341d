//! \file units.cpp
//! The parts that need neither TensorRT nor CUDA, for comparison with Python:
//!
//!     units json                          documents from standard input, each after a line with
//!                                         its size; a line for each: `ok` and it, or `error`
//!     units record FILE                   what was read of the record, or its error
//!     units records                       documents as above; for each `ok`, or code and reason
//!     units printable                     texts as above; for each the printable line, and then
//!                                         whether a second pass leaves it as it is
//!     units onnx FILE                     what an ONNX file says of itself, or its error
//!     units halves                        float32 from standard input; each one's float16, and that
//!                                         as float32 again
//!     units sha256 FILE
//!     units fit RECORD OUT PICTURE... the same for a detector, and each picture's two sizes
//!     units paste FILE               a case from standard input after another: height and width of
//!                                     a picture, side of a mask, four floats of a box, the mask,
//!                                     all float32; for each a line with the mask's place and size,
//!                                     and its pixels as digits
//!     units prepare RECORD OUT PICTURE... the batch's bytes to OUT, its type and shape printed
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "description.h"
#include "half.h"
#include "json.h"
#include "onnx_file.h"
#include "sha256.h"
#include "vim_deploy/detections.h"
#include "vim_deploy/image.h"
#include "vim_deploy/record.h"
#include "vim_deploy/text.h"

namespace {

using namespace vim_deploy;

// Kinds and texts without white space, texts as their bytes in hexadecimal.
std::string dump(Json const& value) {
    auto const hex = [](std::string const& text) {
        std::string digits = "\"";
        for (unsigned char const byte : text) {
            digits.push_back("0123456789abcdef"[byte >> 4U]);
            digits.push_back("0123456789abcdef"[byte & 15U]);
        }
        return digits + "\"";
    };
    std::string out;
    switch (value.kind()) {
        case Json::Kind::kNull:
            return "null";
        case Json::Kind::kBool:
            return value.boolean() ? "true" : "false";
        case Json::Kind::kNumber:
            return value.text();
        case Json::Kind::kText:
            return hex(value.text());
        case Json::Kind::kArray:
            for (Json const& item : value.items()) {
                out += (out.empty() ? "" : ",") + dump(item);
            }
            return "[" + out + "]";
        case Json::Kind::kObject:
            for (auto const& [key, item] : value.members()) {
                out += (out.empty() ? "" : ",") + hex(key) + ":" + dump(item);
            }
            return "{" + out + "}";
    }
    return out;
}

std::string answer_json(std::string const& text) {
    auto const value = Json::parse(text);
    return value ? "ok " + dump(*value) : "error " + value.error().message;
}

std::string answer_record(std::string const& text) {
    auto const record = parse_record(text, "RECORD");
    return record ? "ok" : record.error().code + " " + record.error().why;
}

std::string answer_printable(std::string const& text) {
    std::string const line = printable_line(text);
    return (printable(line) == line ? "stays " : "changes ") + line;
}

int answer_documents(std::string (*answer)(std::string const&)) {
    std::string line;
    while (std::getline(std::cin, line)) {
        std::string text(std::stoul(line), '\0');
        std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
        std::cout << answer(text) << "\n";
    }
    return 0;
}

std::string contents(char const* path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

int fail(Error const& error) {
    std::cerr << error.text() << "\n";
    return error.exit_code();
}

int show_export(ExportInfo const& exported) {
    ImagePreparation const& image = exported.image;
    std::cout << "export " << exported.model << " " << exported.preprocess << " " << exported.head
              << " " << exported.precision << "\n"
              << "image " << image.height << " " << image.width << " " << image.channels << " "
              << image.interpolation << "\n";
    // Hexadecimal, so that nothing is rounded.
    std::cout << std::hexfloat << "crop_ratio " << image.crop_ratio << "\n";
    for (std::size_t i = 0; i < image.mean.size(); ++i) {
        std::cout << "channel " << image.mean[i] << " " << image.std[i] << "\n";
    }
    for (std::string const& label : exported.labels) {
        std::cout << "label " << printable_line(label) << "\n";
    }
    return 0;
}

int show_record(char const* path) {
    auto const record = parse_record(contents(path), path);
    if (!record) {
        return fail(record.error());
    }
    FileIdentity const& plan = record->plan;
    std::cout << "plan " << plan.name << " " << plan.sha256 << " " << plan.bytes << "\n"
              << "runtime " << record->runtime << " " << record->runtime_version << "\n";
    for (RecordedTensor const& tensor : record->inputs) {
        std::cout << "input " << tensor.name << " " << tensor.dtype << " " << text_of(tensor.shape)
                  << "\n";
    }
    for (RecordedTensor const& tensor : record->outputs) {
        std::cout << "output " << tensor.name << " " << tensor.dtype << " " << text_of(tensor.shape)
                  << "\n";
    }
    for (RecordedProfile const& profile : record->profiles) {
        for (RecordedRange const& range : profile) {
            std::cout << "profile " << range.input << " " << text_of(range.min) << " "
                      << text_of(range.opt) << " " << text_of(range.max) << "\n";
        }
    }
    for (std::string const& capability : record->compute_capabilities) {
        std::cout << "capability " << capability << "\n";
    }
    if (record->plugin) {
        std::cout << "plugin " << record->plugin->name << " " << record->plugin->sha256 << " "
                  << record->plugin->contract_version << " " << record->plugin->embedded << "\n";
    }
    std::cout << "later " << record->later_gpus << "\nstripped " << record->stripped
              << "\nversion_compatible " << record->version_compatible << "\n";
    return record->exported ? show_export(*record->exported) : 0;
}

int show_onnx(char const* path) {
    std::string const bytes = contents(path);
    auto const file = parse_onnx(bytes, path);
    if (!file) {
        return fail(file.error());
    }
    auto const info = describe_onnx(*file, path);
    if (!info) {
        return fail(info.error());
    }
    for (auto const& [kind, values] :
         {std::pair("input", &file->inputs), std::pair("output", &file->outputs)}) {
        for (OnnxValue const& value : *values) {
            std::cout << kind << " " << value.name << " " << value.element << " "
                      << text_of(value.shape) << "\n";
        }
    }
    return show_export(*info);
}

int halves() {
    std::string const bytes{std::istreambuf_iterator<char>(std::cin), {}};
    Tensor tensor{"", DataType::kFloat16, {}, halves_of(bytes.data(), bytes.size() / 4)};
    auto const values = as_floats(tensor);
    std::cout.write(reinterpret_cast<char const*>(tensor.bytes.data()),
                    static_cast<std::streamsize>(tensor.bytes.size()));
    std::cout.write(reinterpret_cast<char const*>(values->data()),
                    static_cast<std::streamsize>(values->size() * sizeof(float)));
    return 0;
}

int fit(char const* record_path, char const* out, std::vector<std::string> const& pictures) {
    auto const record = parse_record(contents(record_path), record_path);
    if (!record) {
        return fail(record.error());
    }
    std::ofstream stream(out, std::ios::binary);
    for (std::string const& picture : pictures) {
        auto const image = read_upright_image(picture);
        auto const fitted = image ? fit_image(*image, record->exported->image) : image.error();
        if (!fitted) {
            return fail(fitted.error());
        }
        stream.write(reinterpret_cast<char const*>(fitted->image.pixels.data()),
                     static_cast<std::streamsize>(fitted->image.pixels.size()));
        std::cout << fitted->inside.height << " " << fitted->inside.width << " "
                  << fitted->own.height << " " << fitted->own.width << "\n";
    }
    return 0;
}

int paste(char const* path) {
    std::string const bytes = contents(path);
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
    for (auto at = values.begin(); at != values.end();) {
        PictureSize const picture{static_cast<std::int64_t>(at[0]),
                                  static_cast<std::int64_t>(at[1])};
        Detection detection;
        detection.mask_side = static_cast<std::int64_t>(at[2]);
        std::copy_n(at + 3, 4, detection.box.begin());
        auto const cells = detection.mask_side * detection.mask_side;
        detection.mask.assign(at + 7, at + 7 + cells);
        at += 7 + cells;
        auto const mask = paste_mask(detection, picture);
        if (!mask) {
            std::cout << mask.error().code << "\n";
            continue;
        }
        std::cout << mask->top << " " << mask->left << " " << mask->height << " " << mask->width
                  << " ";
        for (std::uint8_t const pixel : mask->pixels) {
            std::cout << static_cast<int>(pixel);
        }
        std::cout << "\n";
    }
    return 0;
}

int prepare(char const* record_path, char const* out, std::vector<std::string> const& pictures) {
    auto const record = parse_record(contents(record_path), record_path);
    if (!record) {
        return fail(record.error());
    }
    auto const& exported = *record->exported;
    std::vector<Image> crops;
    for (std::string const& picture : pictures) {
        auto const image = read_image(picture);
        auto crop = image ? crop_image(*image, exported.image) : image;
        if (!crop) {
            return fail(crop.error());
        }
        crops.push_back(std::move(*crop));
    }
    auto const batch = batch_of_crops(crops, exported.image, exported.preprocess);
    if (!batch) {
        return fail(batch.error());
    }
    std::ofstream(out, std::ios::binary)
        .write(reinterpret_cast<char const*>(batch->bytes.data()),
               static_cast<std::streamsize>(batch->bytes.size()));
    std::cout << name_of(batch->type) << " " << text_of(batch->shape) << "\n";
    return 0;
}

}  // namespace

int main(int count, char** words) {
    std::vector<std::string> const arguments(words + 1, words + count);
    std::string const name = arguments.empty() ? "" : arguments[0];
    if (name == "json") {
        return answer_documents(answer_json);
    }
    if (name == "records") {
        return answer_documents(answer_record);
    }
    if (name == "printable") {
        return answer_documents(answer_printable);
    }
    if (name == "record" && arguments.size() == 2) {
        return show_record(words[2]);
    }
    if (name == "onnx" && arguments.size() == 2) {
        return show_onnx(words[2]);
    }
    if (name == "halves") {
        return halves();
    }
    if (name == "sha256" && arguments.size() == 2) {
        std::string const bytes = contents(words[2]);
        std::cout << sha256_hex(bytes.data(), bytes.size()) << "\n";
        return 0;
    }
    if (name == "fit" && arguments.size() > 3) {
        return fit(words[2], words[3], {arguments.begin() + 3, arguments.end()});
    }
    if (name == "paste" && arguments.size() == 2) {
        return paste(words[2]);
    }
    if (name == "prepare" && arguments.size() > 3) {
        return prepare(words[2], words[3], {arguments.begin() + 3, arguments.end()});
    }
    std::cerr << "see units.cpp\n";
    return 2;
}
