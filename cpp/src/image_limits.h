//! \file image_limits.h
//! What a picture file may ask of the machine; vim_deploy/image_bounds.py has the reasons.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vim_deploy {

//! Largest picture that is decoded or made, in pixels (MAX_PIXELS there): a small file can unpack to
//! more than the memory.
constexpr std::int64_t kMaxPixels = 89'478'485;

//! Whether decoding may take `needed` bytes for a file of `size` bytes (FREE_BYTES there).
constexpr bool may_take(std::int64_t needed, std::size_t size) noexcept {
    constexpr std::int64_t kFreeBytes = std::int64_t{200} << 20U;
    constexpr std::int64_t kFreeTimes = 4;
    return needed <= kFreeBytes + kFreeTimes * static_cast<std::int64_t>(size);
}

}  // namespace vim_deploy
