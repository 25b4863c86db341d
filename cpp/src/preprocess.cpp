//! \file preprocess.cpp
//! Resize, centre crop and normalisation.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "guard.h"
#include "image_limits.h"
#include "resample.h"
#include "vim_deploy/image.h"

namespace vim_deploy {
namespace {

// Grey of RGB as Pillow computes it: ITU-R 601-2 luma in 16-bit fixed point, rounded.
std::uint8_t luma(std::uint8_t const* rgb) noexcept {
    unsigned const sum = rgb[0] * 19595U + rgb[1] * 38470U + rgb[2] * 7471U + 0x8000U;
    return static_cast<std::uint8_t>(sum >> 16U);
}

Image with_channels(Image const& image, std::int64_t channels) {
    Image result{image.width, image.height, channels, {}};
    auto const count = static_cast<std::size_t>(image.width * image.height);
    result.pixels.reserve(count * static_cast<std::size_t>(channels));
    for (std::size_t i = 0; i < count; ++i) {
        if (channels == 1) {
            result.pixels.push_back(luma(image.pixels.data() + 3 * i));
        } else {
            result.pixels.insert(result.pixels.end(), 3, image.pixels[i]);
        }
    }
    return result;
}

struct Size {
    std::int64_t width, height;
};

// Python's int(a * b / c): the product is whole, the quotient a double, cut off.
std::int64_t scaled_side(std::int64_t a, std::int64_t b, std::int64_t c) {
    return static_cast<std::int64_t>(static_cast<double>(a * b) / static_cast<double>(c));
}

// As small as it can be while covering `size / crop_ratio` in both directions; the side that does
// not bind is truncated, as torchvision does, but never below the crop.
Size resized_size(Image const& image, ImagePreparation const& preparation) {
    auto const cover = [&preparation](std::int64_t side) {
        return static_cast<std::int64_t>(static_cast<double>(side) / preparation.crop_ratio);
    };
    Size const least{cover(preparation.width), cover(preparation.height)};
    if (image.width * least.height <= image.height * least.width) {
        return {least.width,
                std::max(scaled_side(least.width, image.height, image.width), least.height)};
    }
    return {std::max(scaled_side(least.height, image.width, image.height), least.width),
            least.height};
}

Status check_sizes(Image const& image, ImagePreparation const& preparation) {
    if (preparation.channels != 1 && preparation.channels != 3) {
        return Error{
            "VIM-415",
            "no pictures for a model with " + std::to_string(preparation.channels) + " channels",
            "a picture gives 1 (grey) or 3 (RGB) channels",
            "give the engine arrays instead of pictures"};
    }
    bool const known = image.channels == 1 || image.channels == 3;
    if (!known || image.width < 1 || image.height < 1 || image.width > kMaxPixels ||
        image.height > kMaxPixels ||
        image.pixels.size() !=
            static_cast<std::size_t>(image.width * image.height * image.channels)) {
        return Error{"VIM-415", "the picture is not an 8-bit grey or RGB array",
                     std::to_string(image.pixels.size()) + " bytes for " +
                         text_of({image.height, image.width, image.channels}),
                     "give width x height x channels bytes, channels 1 or 3"};
    }
    if (!is_interpolation(preparation.interpolation)) {
        return Error{"VIM-202", "unknown interpolation " + preparation.interpolation, "",
                     "valid names: bicubic, bilinear, box, hamming, lanczos, nearest"};
    }
    bool const sound = preparation.width > 0 && preparation.height > 0 &&
                       preparation.crop_ratio > 0 && preparation.crop_ratio <= 1;
    auto const longest = static_cast<double>(std::max(preparation.width, preparation.height));
    if (!sound || longest / preparation.crop_ratio > static_cast<double>(kMaxPixels)) {
        return Error{"VIM-202", "a preparation that cannot be done",
                     "sizes must be above 0, crop_ratio above 0 and at most 1",
                     "take the one of the engine's record"};
    }
    return Done{};
}

Result<Image> crop(Image const& image, ImagePreparation const& preparation) {
    VIM_DEPLOY_TRY(check_sizes(image, preparation));
    Size const size = resized_size(image, preparation);
    if (size.width > kMaxPixels || size.height > kMaxPixels ||
        size.width * size.height > kMaxPixels) {
        return Error{"VIM-411",
                     "the picture is too elongated to resize: " + std::to_string(image.width) +
                         " x " + std::to_string(image.height),
                     "it would become " + std::to_string(size.width) + " x " +
                         std::to_string(size.height) + "; at most " + std::to_string(kMaxPixels) +
                         " pixels are made",
                     "crop it closer to the model's shape first"};
    }
    // Half to even, as Python's and torchvision's round.
    auto const offset = [](std::int64_t whole, std::int64_t part) {
        return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(whole - part) / 2));
    };
    Window const window{offset(size.width, preparation.width),
                        offset(size.height, preparation.height), preparation.width,
                        preparation.height};
    if (image.channels == preparation.channels) {
        return resample(image, size.width, size.height, window, preparation.interpolation);
    }
    return resample(with_channels(image, preparation.channels), size.width, size.height, window,
                    preparation.interpolation);
}

// detectron2's ResizeShortestEdge(side, side): in double precision the shorter side is brought to
// `side`, then both made smaller until the longer one fits, then rounded; at least 1 is left.
PictureSize fitted_size(PictureSize const& own, std::int64_t side) {
    auto const shorter = std::min(own.height, own.width);
    auto const whole = static_cast<double>(side);
    double const scale = whole / static_cast<double>(shorter);
    auto const first = [&](std::int64_t edge) {
        return edge == shorter ? whole : scale * static_cast<double>(edge);
    };
    double height = first(own.height);
    double width = first(own.width);
    double const longer = std::max(height, width);
    if (longer > whole) {
        double const smaller = whole / longer;
        height *= smaller;
        width *= smaller;
    }
    auto const rounded = [](double edge) {
        return std::max(static_cast<std::int64_t>(edge + 0.5), std::int64_t{1});
    };
    return {rounded(height), rounded(width)};
}

Result<FittedImage> fit(Image const& image, ImagePreparation const& preparation) {
    VIM_DEPLOY_TRY(check_sizes(image, preparation));
    auto const side = preparation.height;
    if (side != preparation.width || side * side > kMaxPixels) {
        return Error{"VIM-415", "a detector takes a square input",
                     text_of({side, preparation.width}) + " was asked for",
                     "take the preparation of the engine's record"};
    }
    FittedImage result;
    result.own = {image.height, image.width};
    result.inside = fitted_size(result.own, side);
    Window const window{0, 0, result.inside.width, result.inside.height};
    Image const small =
        image.channels == preparation.channels
            ? resample(image, window.width, window.height, window, preparation.interpolation)
            : resample(with_channels(image, preparation.channels), window.width, window.height,
                       window, preparation.interpolation);
    auto const row = static_cast<std::size_t>(small.width * small.channels);
    auto const whole = static_cast<std::size_t>(side * small.channels);
    result.image = {side, side, small.channels, {}};
    result.image.pixels.resize(whole * static_cast<std::size_t>(side));
    for (std::size_t y = 0; y < static_cast<std::size_t>(small.height); ++y) {
        std::memcpy(result.image.pixels.data() + y * whole, small.pixels.data() + y * row, row);
    }
    return result;
}

// One crop as float32 [channels, height, width], scaled to [0, 1], normalised when asked for.
void write_planes(Image const& crop, ImagePreparation const& preparation, bool normalise,
                  float* out) {
    auto const count = static_cast<std::size_t>(crop.width * crop.height);
    auto const channels = static_cast<std::size_t>(crop.channels);
    for (std::size_t c = 0; c < channels; ++c) {
        float const mean = normalise ? static_cast<float>(preparation.mean[c]) : 0.0F;
        float const deviation = normalise ? static_cast<float>(preparation.std[c]) : 1.0F;
        for (std::size_t i = 0; i < count; ++i) {
            float const scaled = static_cast<float>(crop.pixels[i * channels + c]) / 255.0F;
            *out++ = normalise ? (scaled - mean) / deviation : scaled;
        }
    }
}

Status check_crop(Image const& crop, ImagePreparation const& preparation) {
    Shape const wanted{preparation.height, preparation.width, preparation.channels};
    Shape const found{crop.height, crop.width, crop.channels};
    if (found != wanted || crop.pixels.size() != bytes_of(DataType::kUint8, wanted)) {
        return Error{"VIM-415", "an image crop does not fit the model",
                     text_of(found) + ", expected " + text_of(wanted),
                     "prepare it with crop_image"};
    }
    return Done{};
}

Result<Tensor> stack(std::vector<Image> const& crops, ImagePreparation const& preparation,
                     std::string const& preprocess) {
    bool const raw = preprocess == "uint8";
    if (!raw && preprocess != "none" && preprocess != "normalize") {
        return Error{"VIM-202", "unknown preprocess mode " + preprocess, "",
                     "valid names: none, normalize, uint8"};
    }
    auto const channels = static_cast<std::size_t>(preparation.channels);
    if (crops.empty() || preparation.mean.size() != channels ||
        preparation.std.size() != channels) {
        return Error{"VIM-415", "no images, or no mean and deviation for each channel", "",
                     "give one image or more, and the preparation of the engine's record"};
    }
    if (!can_normalise(preparation)) {
        return Error{"VIM-202", "a preparation that cannot be done",
                     "mean and deviation must fit float32, the deviation be above 0",
                     "take the one of the engine's record"};
    }
    Tensor batch;
    batch.name = "image";
    batch.type = raw ? DataType::kUint8 : DataType::kFloat32;
    auto const count = static_cast<std::int64_t>(crops.size());
    batch.shape = {count, preparation.channels, preparation.height, preparation.width};
    if (raw) {
        batch.shape = {count, preparation.height, preparation.width, preparation.channels};
    }
    batch.bytes.resize(bytes_of(batch.type, batch.shape));
    std::byte* out = batch.bytes.data();
    std::size_t const step = batch.bytes.size() / crops.size();
    for (Image const& crop : crops) {
        VIM_DEPLOY_TRY(check_crop(crop, preparation));
        if (raw) {
            std::memcpy(out, crop.pixels.data(), step);
        } else {
            std::vector<float> planes(step / sizeof(float));
            write_planes(crop, preparation, preprocess == "none", planes.data());
            std::memcpy(out, planes.data(), step);
        }
        out += step;
    }
    return batch;
}

}  // namespace

Result<Image> crop_image(Image const& image, ImagePreparation const& preparation) {
    return guarded("resizing a picture", [&] { return crop(image, preparation); });
}

Result<FittedImage> fit_image(Image const& image, ImagePreparation const& preparation) {
    return guarded("resizing a picture", [&] { return fit(image, preparation); });
}

Result<Tensor> batch_of_crops(std::vector<Image> const& crops, ImagePreparation const& preparation,
                              std::string const& preprocess) {
    return guarded("making a batch", [&] { return stack(crops, preparation, preprocess); });
}

}  // namespace vim_deploy
