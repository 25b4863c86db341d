//! \file decode.h
//! What the decoders of single formats share. A header's sizes are judged before anything of the
//! size they name is allocated.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vim_deploy/image.h"

namespace vim_deploy {

//! VIM-411 with a reason.
Error unreadable_picture(std::string const& name, std::string const& why);

//! VIM-411 for a small file that would take so many bytes.
Error too_much_memory(std::int64_t bytes, std::string const& name);

//! VIM-411 unless the picture has a pixel and at most kMaxPixels.
Status check_picture_size(std::int64_t width, std::int64_t height, std::string const& name);

#if VIM_DEPLOY_HAS_PNG
//! A PNG of at most 8 bits a channel, without its transparency, by libpng.
Result<Image> decode_png(std::string_view bytes, std::string const& name);
#endif

#if VIM_DEPLOY_HAS_JPEG
//! A JPEG in grey, colour or CMYK, by libjpeg.
Result<Image> decode_jpeg(std::string_view bytes, std::string const& name);
#endif

}  // namespace vim_deploy
