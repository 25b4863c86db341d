//! \file image_limits.h
#pragma once

#include <cstdint>

namespace vim_deploy {

//! Largest picture that is decoded or made, in pixels (vim_deploy/images.py, MAX_PIXELS): a small
//! file can unpack to more than the memory.
constexpr std::int64_t kMaxPixels = 89'478'485;

}  // namespace vim_deploy
