//! \file orientation.h
//! EXIF orientations (EXIF 2.3, 4.6.4, tag 0x0112): how a photograph is turned upright.
#pragma once

#include <string_view>

#include "vim_deploy/image.h"

namespace vim_deploy {

//! 1 to 8 as a JPEG's APP1 segment or a PNG's eXIf chunk has it; 1, upright, where there is none
//! or it cannot be read.
int orientation_of(std::string_view bytes) noexcept;

//! The picture as it is seen, of one that is stored in an orientation from 1 to 8.
Image turned(Image const& image, int orientation);

}  // namespace vim_deploy
