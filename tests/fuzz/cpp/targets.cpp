//! \file targets.cpp
//! What is fuzzed: one function for each reader of foreign bytes. Compiled with -DTARGET=NAME it is
//! a libFuzzer program of that target; driver.cpp calls all of them without clang.
//!
//! Besides what the sanitizers see, each target checks what must hold for every input, and ends the
//! process when it does not.
#include "targets.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "description.h"
#include "image_limits.h"
#include "json.h"
#include "onnx_file.h"
#include "orientation.h"
#include "vim_deploy/classification.h"
#include "vim_deploy/detections.h"
#include "vim_deploy/image.h"
#include "vim_deploy/record.h"
#include "vim_deploy/text.h"

namespace fuzz {
namespace {

using namespace vim_deploy;

void require(bool holds, char const* what) {
    if (!holds) {
        std::fprintf(stderr, "fuzz: broken promise: %s\n", what);
        std::abort();
    }
}

// Numbers taken off the front of an input; zero when it has ended.
class Numbers {
  public:
    Numbers(std::uint8_t const* data, std::size_t size) : data_(data), size_(size) {}

    std::int64_t next(std::int64_t least, std::int64_t most) {
        std::uint64_t value = 0;
        for (int i = 0; i < 3; ++i) {
            value = value << 8U | byte();
        }
        auto const span = static_cast<std::uint64_t>(most - least + 1);
        return least + static_cast<std::int64_t>(value % span);
    }

    //! Any double, those that are no numbers as well.
    double real() {
        std::uint64_t bits = 0;
        for (int i = 0; i < 8; ++i) {
            bits = bits << 8U | byte();
        }
        double value = 0;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }

    std::uint8_t byte() {
        if (size_ == 0) {
            return 0;
        }
        --size_;
        return *data_++;
    }

  private:
    std::uint8_t const* data_;
    std::size_t size_;
};

std::size_t depth_of(Json const& value) {
    std::size_t deepest = 0;
    for (Json const& item : value.items()) {
        deepest = std::max(deepest, depth_of(item));
    }
    for (auto const& member : value.members()) {
        deepest = std::max(deepest, depth_of(member.second));
    }
    bool const nests = value.kind() == Json::Kind::kArray || value.kind() == Json::Kind::kObject;
    return deepest + (nests ? 1 : 0);
}

bool complete(Image const& image) {
    return image.width > 0 && image.height > 0 && image.width * image.height <= kMaxPixels &&
           (image.channels == 1 || image.channels == 3) &&
           image.pixels.size() ==
               static_cast<std::size_t>(image.width * image.height * image.channels);
}

void decode(std::uint8_t const* data, std::size_t size) {
    auto const image = decode_image(data, size, "picture");
    require(!image.ok() || complete(*image), "a picture has its pixels");
    require(image.ok() || image.error().code == "VIM-411" || image.error().code == "VIM-904",
            "a refused picture has its code");
}

}  // namespace

void json(std::uint8_t const* data, std::size_t size) {
    auto const value = Json::parse({reinterpret_cast<char const*>(data), size});
    if (value) {
        require(depth_of(*value) <= JsonLimits().depth, "depth is bounded");
        std::int64_t whole = 0;
        double real = 0;
        static_cast<void>(value->as_integer(whole));
        require(!value->as_double(real) || std::isfinite(real), "numbers are finite");
    } else {
        // A key that stands twice is quoted.
        require(value.error().message.size() < 1000, "a message is short");
    }
}

void onnx(std::uint8_t const* data, std::size_t size) {
    auto const file = parse_onnx({reinterpret_cast<char const*>(data), size}, "MODEL.onnx");
    if (!file) {
        require(file.error().code == "VIM-409", "a refused model has its code");
        return;
    }
    require(!file->outputs.empty(), "a model has outputs");
    for (OnnxValue const& value : file->inputs) {
        require(!value.name.empty() && !value.shape.empty(), "an input has a name and sizes");
        require(std::all_of(value.shape.begin(), value.shape.end(),
                            [](std::int64_t side) { return side == -1 || side > 0; }),
                "a size is free, or above 0");
    }
    for (OutsideTensor const& tensor : file->outside) {
        require(tensor.location[0] != '/' && tensor.location != "..", "weights lie inside");
    }
    static_cast<void>(check_outside(*file, "no-such-folder/MODEL.onnx"));
    auto const info = describe_onnx(*file, "MODEL.onnx");
    if (!info) {
        require(info.error().code == "VIM-410", "a refused description has its code");
        return;
    }
    require(can_normalise(info->image), "pictures can be normalised");
}

void record(std::uint8_t const* data, std::size_t size) {
    auto const record = parse_record({reinterpret_cast<char const*>(data), size}, "RECORD");
    if (!record) {
        require(record.error().code == "VIM-413", "a refused record has its code");
        return;
    }
    if (record->exported) {
        ImagePreparation const& image = record->exported->image;
        require(can_normalise(image), "pictures can be normalised");
        require(image.mean.size() == static_cast<std::size_t>(image.channels), "a mean a channel");
    }
}

void netpbm(std::uint8_t const* data, std::size_t size) {
    std::string bytes(reinterpret_cast<char const*>(data), size);
    // Every input is one of the two forms.
    bytes.insert(0, size % 2 == 0 ? "P5" : "P6");
    decode(reinterpret_cast<std::uint8_t const*>(bytes.data()), bytes.size());
    decode(data, size);
}

void picture(std::uint8_t const* data, std::size_t size) {
    // What a libFuzzer run may spend on one input; the limit itself is tried by a unit test.
    if (size > 1 << 16) {
        return;
    }
    decode(data, size);
    int const orientation = orientation_of({reinterpret_cast<char const*>(data), size});
    require(orientation >= 1 && orientation <= 8, "there are eight orientations");
    Image const narrow{2, 3, 1, {0, 1, 2, 3, 4, 5}};
    require(complete(turned(narrow, orientation)), "a turned picture has its pixels");
}

void prepare(std::uint8_t const* data, std::size_t size) {
    Numbers numbers(data, size);
    ImagePreparation preparation;
    preparation.channels = numbers.next(0, 4);
    preparation.width = numbers.next(-1, 40);
    preparation.height = numbers.next(-1, 40);
    preparation.crop_ratio =
        numbers.byte() % 4 == 0 ? numbers.real() : static_cast<double>(numbers.next(1, 100)) / 100;
    static constexpr char const* kNames[] = {"bicubic", "bilinear", "box",    "hamming",
                                             "lanczos", "nearest",  "unknown"};
    preparation.interpolation = kNames[numbers.next(0, 6)];
    for (std::int64_t i = 0; i < preparation.channels; ++i) {
        preparation.mean.push_back(numbers.byte() % 2 == 0 ? numbers.real() : 0.5);
        preparation.std.push_back(numbers.byte() % 2 == 0 ? numbers.real() : 0.25);
    }
    Image image;
    image.channels = numbers.next(0, 4);
    image.width = numbers.next(-1, 60);
    image.height = numbers.next(-1, 60);
    auto const count = image.channels * image.width * image.height + (numbers.byte() == 7 ? 1 : 0);
    image.pixels.resize(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)));
    std::generate(image.pixels.begin(), image.pixels.end(), [&numbers] { return numbers.byte(); });
    auto const fitted = fit_image(image, preparation);
    if (fitted) {
        require(fitted->inside.height >= 1 && fitted->inside.height <= preparation.height &&
                    fitted->inside.width >= 1 && fitted->inside.width <= preparation.width,
                "a picture lies within the input");
        require(complete(fitted->image), "a square has its pixels");
    }
    auto const crop = crop_image(image, preparation);
    if (!crop) {
        return;
    }
    require(crop->width == preparation.width && crop->height == preparation.height, "sizes");
    for (char const* mode : {"none", "normalize", "uint8"}) {
        auto const batch = batch_of_crops({*crop, *crop}, preparation, mode);
        if (batch && batch->type == DataType::kFloat32) {
            auto const values = batch->values<float>();
            bool const finite = std::all_of(values->begin(), values->end(),
                                            [](float value) { return !std::isnan(value); });
            require(finite, "a batch has no NaN");
        }
    }
}

void classes(std::uint8_t const* data, std::size_t size) {
    Numbers numbers(data, size);
    static constexpr char const* kHeads[] = {"logits", "softmax", "topk:3", "features", ""};
    ExportInfo exported;
    exported.head = kHeads[numbers.next(0, 4)];
    exported.labels.resize(static_cast<std::size_t>(numbers.next(0, 5)), "label");
    std::vector<Tensor> outputs(static_cast<std::size_t>(numbers.next(0, 3)));
    for (Tensor& output : outputs) {
        output.type = static_cast<DataType>(numbers.next(0, 7));
        output.shape.resize(static_cast<std::size_t>(numbers.next(0, 3)));
        for (std::int64_t& side : output.shape) {
            side = numbers.next(-1, 5);
        }
        output.bytes.resize(bytes_of(output.type, output.shape) + (numbers.byte() == 7 ? 1 : 0));
        for (std::byte& byte : output.bytes) {
            byte = static_cast<std::byte>(numbers.byte());
        }
    }
    auto const best = best_classes(outputs, exported, static_cast<std::size_t>(numbers.byte()));
    if (best) {
        for (auto const& row : *best) {
            for (std::size_t i = 0; i < row.size(); ++i) {
                require(std::isfinite(row[i].probability), "probabilities are finite");
                require(i == 0 || row[i - 1].probability >= row[i].probability, "best first");
            }
        }
    }
}

void found(std::uint8_t const* data, std::size_t size) {
    Numbers numbers(data, size);
    ExportInfo exported;
    exported.head = "detections";
    FittedImage picture;
    picture.own = {numbers.next(1, 50), numbers.next(1, 50)};
    picture.inside = {numbers.next(0, 32), numbers.next(0, 32)};
    std::int64_t const rows = numbers.next(0, 3);
    std::int64_t const side = numbers.next(0, 5);
    bool const wild = numbers.byte() == 7;
    auto const floats = [&](char const* name, Shape const& shape) {
        Tensor tensor{name, DataType::kFloat32, shape, {}};
        tensor.bytes.resize(bytes_of(tensor.type, shape));
        for (std::size_t at = 0; at + sizeof(float) <= tensor.bytes.size(); at += sizeof(float)) {
            auto const value = wild ? static_cast<float>(numbers.real())
                                    : static_cast<float>(numbers.next(-500, 5000)) / 100.0F;
            std::memcpy(tensor.bytes.data() + at, &value, sizeof value);
        }
        return tensor;
    };
    auto const wholes = [&](char const* name, Shape const& shape, std::int64_t most) {
        Tensor tensor{name, DataType::kInt64, shape, {}};
        tensor.bytes.resize(bytes_of(tensor.type, shape));
        for (std::size_t at = 0; at + 8 <= tensor.bytes.size(); at += 8) {
            auto const value = numbers.next(wild ? -1 : 0, most);
            std::memcpy(tensor.bytes.data() + at, &value, sizeof value);
        }
        return tensor;
    };
    std::vector<Tensor> outputs{floats("boxes", {1, rows, 4}), floats("scores", {1, rows}),
                                wholes("classes", {1, rows}, 9),
                                wholes("count", {1}, wild ? 9 : std::max(rows, std::int64_t{1}))};
    if (side > 0) {
        outputs.push_back(floats("masks", {1, rows, side, side}));
    }
    auto const all = find_detections(outputs, exported, {picture});
    if (!all) {
        return;
    }
    for (Detection const& detection : all->front()) {
        auto const& box = detection.box;
        require(box[0] >= 0 && box[1] >= 0 && box[2] > box[0] && box[3] > box[1] &&
                    box[2] <= static_cast<float>(picture.own.width) &&
                    box[3] <= static_cast<float>(picture.own.height),
                "a box lies in its picture");
        auto const mask = paste_mask(detection, picture.own);
        require(mask.ok(), "a mask of the picture can be pasted");
        require(mask_image(*mask, picture.own).ok(), "and lies in it");
    }
}

void text(std::uint8_t const* data, std::size_t size) {
    std::string_view const bytes(reinterpret_cast<char const*>(data), size);
    std::string const lines = printable(bytes);
    require(printable(lines) == lines, "what was written out prints");
    std::string const line = printable_line(bytes);
    require(line.find('\n') == std::string::npos, "one line");
    require(std::none_of(line.begin(), line.end(),
                         [](char c) { return (c >= 0 && c < 32) || c == 127; }),
            "no control characters");
}

}  // namespace fuzz

#ifdef TARGET
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    fuzz::TARGET(data, size);
    return 0;
}
#endif
