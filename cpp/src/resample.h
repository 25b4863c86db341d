//! \file resample.h
//! Pillow's resize of 8-bit pictures, reproduced bit for bit: separable filters whose support grows
//! with the reduction, coefficients rounded to fixed point, an 8-bit picture between the passes.
#pragma once

#include <cstdint>
#include <string>

#include "vim_deploy/image.h"

namespace vim_deploy {

//! A rectangle of the resized picture.
struct Window {
    std::int64_t left, top, width, height;
};

//! Whether there is a filter of that name (`PIL.Image.Resampling`, lower case).
bool is_interpolation(std::string const& name) noexcept;

//! The part `window` of `image` resized to `width` x `height`.
Image resample(Image const& image, std::int64_t width, std::int64_t height, Window const& window,
               std::string const& interpolation);

}  // namespace vim_deploy
