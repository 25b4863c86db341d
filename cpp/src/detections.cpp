//! \file detections.cpp
#include "vim_deploy/detections.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "guard.h"
#include "half.h"
#include "image_limits.h"

namespace vim_deploy {
namespace {

Error not_detections(std::string const& why) {
    return {"VIM-415", "the engine's outputs are not detections", why,
            "use an engine exported with --head detections"};
}

// The outputs of a batch, as they come.
struct Outputs {
    std::int64_t batch = 0;
    std::int64_t rows = 0;
    std::int64_t mask_side = 0;
    std::vector<float> boxes, scores, masks;
    std::vector<std::int64_t> classes, counts;
};

Tensor const* output_called(std::vector<Tensor> const& outputs, char const* name) {
    for (Tensor const& tensor : outputs) {
        if (tensor.name == name) {
            return &tensor;
        }
    }
    return nullptr;
}

// An output of float32 or float16 of this shape; -1 is any size.
Result<std::vector<float>> floats_of(std::vector<Tensor> const& outputs, char const* name,
                                     Shape const& wanted) {
    Tensor const* tensor = output_called(outputs, name);
    if (tensor == nullptr) {
        return not_detections(std::string("there is no output ") + name);
    }
    bool const real = tensor->type == DataType::kFloat32 || tensor->type == DataType::kFloat16;
    bool fits = real && tensor->shape.size() == wanted.size() &&
                !tensor->bytes.empty() &&
                tensor->bytes.size() == bytes_of(tensor->type, tensor->shape);
    for (std::size_t i = 0; fits && i < wanted.size(); ++i) {
        fits = wanted[i] < 0 || wanted[i] == tensor->shape[i];
    }
    if (!fits) {
        return not_detections(tensor->name + " is " + name_of(tensor->type) + " " +
                              text_of(tensor->shape) + ", expected float32 " + text_of(wanted));
    }
    auto values = as_floats(*tensor);
    auto const count = std::count_if(values->begin(), values->end(),
                                     [](float value) { return !std::isfinite(value); });
    if (count != 0) {
        return Error{"VIM-430", "the engine gives NaN or Inf: " + tensor->name,
                     std::to_string(count) + " of " + std::to_string(values->size()) +
                         " values are not finite",
                     "compare the engine with its checkpoint (vim-deploy verify)"};
    }
    return values;
}

// An int64 output, or one of int32, which TensorRT 8.6 makes of it.
Result<std::vector<std::int64_t>> wholes_of(std::vector<Tensor> const& outputs, char const* name,
                                            Shape const& wanted) {
    Tensor const* tensor = output_called(outputs, name);
    bool const narrow = tensor != nullptr && tensor->type == DataType::kInt32;
    bool const fits = tensor != nullptr && (narrow || tensor->type == DataType::kInt64) &&
                      tensor->shape == wanted &&
                      tensor->bytes.size() == bytes_of(tensor->type, wanted);
    if (!fits) {
        return not_detections(std::string("there is no output ") + name + " of int64 " +
                              text_of(wanted));
    }
    if (narrow) {
        auto const values = tensor->values<std::int32_t>();
        return std::vector<std::int64_t>(values->begin(), values->end());
    }
    return tensor->values<std::int64_t>();
}

template <typename T>
Status take(Result<T> found, T& place) {
    if (!found) {
        return found.error();
    }
    place = std::move(found).value();
    return Done{};
}

Result<Outputs> read_outputs(std::vector<Tensor> const& outputs) {
    Outputs found;
    VIM_DEPLOY_TRY(take(floats_of(outputs, "scores", {-1, -1}), found.scores));
    found.batch = output_called(outputs, "scores")->shape[0];
    found.rows = output_called(outputs, "scores")->shape[1];
    Shape const rows{found.batch, found.rows};
    VIM_DEPLOY_TRY(take(floats_of(outputs, "boxes", {rows[0], rows[1], 4}), found.boxes));
    VIM_DEPLOY_TRY(take(wholes_of(outputs, "classes", rows), found.classes));
    VIM_DEPLOY_TRY(take(wholes_of(outputs, "count", {rows[0]}), found.counts));
    if (output_called(outputs, "masks") != nullptr) {
        VIM_DEPLOY_TRY(take(floats_of(outputs, "masks", {rows[0], rows[1], -1, -1}), found.masks));
        Shape const& shape = output_called(outputs, "masks")->shape;
        found.mask_side = shape[2];
        if (shape[2] != shape[3]) {
            return not_detections("masks are " + text_of(shape) + ", expected squares");
        }
    }
    return found;
}

std::string label_of(std::int64_t index, ExportInfo const& exported) {
    bool const known = index < static_cast<std::int64_t>(exported.labels.size());
    return known ? exported.labels[static_cast<std::size_t>(index)]
                 : "class " + std::to_string(index);
}

// One row, brought to the picture's pixels; false for a box that has no area there.
bool read_row(Outputs const& outputs, std::size_t at, FittedImage const& picture,
              Detection& detection) {
    auto const ratio = [](std::int64_t own, std::int64_t inside) {
        return static_cast<float>(static_cast<double>(own) / static_cast<double>(inside));
    };
    float const scales[2] = {ratio(picture.own.width, picture.inside.width),
                             ratio(picture.own.height, picture.inside.height)};
    float const limits[2] = {static_cast<float>(picture.own.width),
                             static_cast<float>(picture.own.height)};
    for (std::size_t side = 0; side < 4; ++side) {
        float const scaled = outputs.boxes[at * 4 + side] * scales[side % 2];
        detection.box[side] = std::clamp(scaled, 0.0F, limits[side % 2]);
    }
    detection.index = outputs.classes[at];
    detection.score = outputs.scores[at];
    auto const cells = static_cast<std::size_t>(outputs.mask_side * outputs.mask_side);
    auto const first = outputs.masks.begin() + static_cast<std::ptrdiff_t>(at * cells);
    detection.mask.assign(first, first + static_cast<std::ptrdiff_t>(cells));
    detection.mask_side = outputs.mask_side;
    return detection.box[2] > detection.box[0] && detection.box[3] > detection.box[1];
}

Result<std::vector<std::vector<Detection>>> find(std::vector<Tensor> const& tensors,
                                                 ExportInfo const& exported,
                                                 std::vector<FittedImage> const& pictures) {
    if (exported.head != "detections") {
        return not_detections("its head is " + exported.head);
    }
    auto const outputs = read_outputs(tensors);
    if (!outputs) {
        return outputs.error();
    }
    if (static_cast<std::int64_t>(pictures.size()) > outputs->batch) {
        return not_detections(std::to_string(outputs->batch) + " answers for " +
                              std::to_string(pictures.size()) + " pictures");
    }
    std::vector<std::vector<Detection>> all;
    for (std::size_t i = 0; i < pictures.size(); ++i) {
        std::int64_t const count = outputs->counts[i];
        FittedImage const& picture = pictures[i];
        if (count < 0 || count > outputs->rows || picture.inside.height < 1 ||
            picture.inside.width < 1) {
            return not_detections("a count of " + std::to_string(count) + " for " +
                                  std::to_string(outputs->rows) + " rows, in a picture of " +
                                  text_of({picture.inside.height, picture.inside.width}));
        }
        all.emplace_back();
        for (std::int64_t row = 0; row < count; ++row) {
            auto const at =
                i * static_cast<std::size_t>(outputs->rows) + static_cast<std::size_t>(row);
            if (outputs->classes[at] < 0) {
                return not_detections("class " + std::to_string(outputs->classes[at]));
            }
            Detection detection;
            if (read_row(*outputs, at, picture, detection)) {
                detection.label = label_of(detection.index, exported);
                all.back().push_back(std::move(detection));
            }
        }
    }
    return all;
}

// Along one side of a box: the first pixel, and for each pixel the cell before it, and how far it
// is beyond that cell's centre.
struct Taps {
    std::int64_t first = 0;
    std::vector<std::int64_t> cells;
    std::vector<float> beyond;
};

// In float32 and in grid_sample's steps (align_corners=False), as vim_deploy/scene/paste.py.
Taps taps_of(float low, float high, std::int64_t pixels, std::int64_t side) {
    Taps taps;
    taps.first = std::max(static_cast<std::int64_t>(std::floor(low)) - 1, std::int64_t{0});
    auto const last = std::min(static_cast<std::int64_t>(std::ceil(high)) + 1, pixels);
    auto const half = static_cast<float>(side) / 2.0F;
    for (std::int64_t pixel = taps.first; pixel < last; ++pixel) {
        float const centre = static_cast<float>(pixel) + 0.5F;
        float const place = (centre - low) / (high - low) * 2.0F - 1.0F;
        // Beyond the zeros around the mask it does not matter where, and a box may be very thin.
        float const at =
            std::clamp((place + 1.0F) * half - 0.5F, -2.0F, static_cast<float>(side + 1));
        float const cell = std::floor(at);
        taps.cells.push_back(static_cast<std::int64_t>(cell));
        taps.beyond.push_back(at - cell);
    }
    return taps;
}

float sampled(Detection const& detection, std::int64_t row, float down, std::int64_t column,
              float right) noexcept {
    float const rows[2] = {1.0F - down, down};
    float const columns[2] = {1.0F - right, right};
    float value = 0;
    for (std::int64_t j = 0; j < 2; ++j) {
        for (std::int64_t i = 0; i < 2; ++i) {
            std::int64_t const y = row + j;
            std::int64_t const x = column + i;
            bool const inside =
                y >= 0 && y < detection.mask_side && x >= 0 && x < detection.mask_side;
            float const cell =
                inside ? detection.mask[static_cast<std::size_t>(y * detection.mask_side + x)]
                       : 0.0F;
            value += cell * (rows[j] * columns[i]);
        }
    }
    return value;
}

Result<PastedMask> paste(Detection const& detection, PictureSize const& picture) {
    PastedMask pasted;
    if (detection.mask.empty()) {
        return pasted;
    }
    auto const& box = detection.box;
    auto const side = detection.mask_side;
    bool const sound =
        side > 0 && side < 65536 &&
        detection.mask.size() == static_cast<std::size_t>(side * side) && picture.height > 0 &&
        picture.width > 0 && picture.height <= kMaxPixels && picture.width <= kMaxPixels &&
        box[0] >= 0 && box[1] >= 0 && box[2] > box[0] && box[3] > box[1] &&
        box[2] <= static_cast<float>(picture.width) && box[3] <= static_cast<float>(picture.height);
    if (!sound) {
        return Error{"VIM-415", "a mask and its box do not fit the picture",
                     std::to_string(detection.mask.size()) + " values, a picture of " +
                         text_of({picture.height, picture.width}),
                     "give a detection as find_detections gives it, and its picture's size"};
    }
    Taps const down = taps_of(box[1], box[3], picture.height, side);
    Taps const right = taps_of(box[0], box[2], picture.width, side);
    pasted.top = down.first;
    pasted.left = right.first;
    pasted.height = static_cast<std::int64_t>(down.cells.size());
    pasted.width = static_cast<std::int64_t>(right.cells.size());
    pasted.pixels.reserve(down.cells.size() * right.cells.size());
    for (std::size_t y = 0; y < down.cells.size(); ++y) {
        for (std::size_t x = 0; x < right.cells.size(); ++x) {
            float const value =
                sampled(detection, down.cells[y], down.beyond[y], right.cells[x], right.beyond[x]);
            pasted.pixels.push_back(value >= 0.5F ? 1 : 0);
        }
    }
    return pasted;
}

}  // namespace

Result<std::vector<std::vector<Detection>>> find_detections(
    std::vector<Tensor> const& outputs, ExportInfo const& exported,
    std::vector<FittedImage> const& pictures) {
    return guarded("reading detections", [&] { return find(outputs, exported, pictures); });
}

Result<PastedMask> paste_mask(Detection const& detection, PictureSize const& picture) {
    return guarded("pasting a mask", [&] { return paste(detection, picture); });
}

Result<Image> mask_image(PastedMask const& mask, PictureSize const& picture) {
    return guarded("painting a mask", [&]() -> Result<Image> {
        bool const sound = picture.height > 0 && picture.width > 0 &&
                           picture.height <= kMaxPixels && picture.width <= kMaxPixels &&
                           mask.top >= 0 && mask.left >= 0 && mask.height >= 0 && mask.width >= 0 &&
                           mask.height <= picture.height - mask.top &&
                           mask.width <= picture.width - mask.left &&
                           mask.pixels.size() == static_cast<std::size_t>(mask.height * mask.width);
        if (!sound) {
            return Error{"VIM-415", "a mask does not fit its picture",
                         text_of({mask.height, mask.width}) + " at " +
                             text_of({mask.top, mask.left}) + " in " +
                             text_of({picture.height, picture.width}),
                         "give the size of the picture that it was pasted for"};
        }
        Image image{picture.width, picture.height, 1, {}};
        image.pixels.resize(static_cast<std::size_t>(picture.width * picture.height));
        for (std::int64_t y = 0; y < mask.height; ++y) {
            for (std::int64_t x = 0; x < mask.width; ++x) {
                auto const to = (mask.top + y) * picture.width + mask.left + x;
                bool const set = mask.pixels[static_cast<std::size_t>(y * mask.width + x)] != 0;
                image.pixels[static_cast<std::size_t>(to)] = set ? 255 : 0;
            }
        }
        return image;
    });
}

}  // namespace vim_deploy
