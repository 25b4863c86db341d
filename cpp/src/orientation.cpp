//! \file orientation.cpp
#include "orientation.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace vim_deploy {
namespace {

constexpr unsigned kOrientationTag = 0x0112, kShort = 3;

// Numbers of a file, in either byte order; 0 beyond its end.
class Bytes {
  public:
    Bytes(std::string_view bytes, bool little) : bytes_(bytes), little_(little) {}

    std::uint32_t number(std::size_t at, std::size_t width) const noexcept {
        if (at > bytes_.size() || bytes_.size() - at < width) {
            return 0;
        }
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < width; ++i) {
            std::size_t const from = little_ ? at + width - 1 - i : at + i;
            value = value << 8U | static_cast<unsigned char>(bytes_[from]);
        }
        return value;
    }

  private:
    std::string_view bytes_;
    bool little_;
};

// Of a TIFF header with its first directory, which is what EXIF is.
int orientation_in(std::string_view exif) noexcept {
    std::string_view const order = exif.substr(0, 2);
    if (order != "II" && order != "MM") {
        return 1;
    }
    Bytes const bytes(exif, order == "II");
    std::size_t const directory = bytes.number(4, 4);
    std::size_t const entries = bytes.number(2, 2) == 42 ? bytes.number(directory, 2) : 0;
    for (std::size_t i = 0; i < entries; ++i) {
        std::size_t const entry = directory + 2 + 12 * i;
        if (bytes.number(entry, 2) == kOrientationTag && bytes.number(entry + 2, 2) == kShort) {
            auto const value = static_cast<int>(bytes.number(entry + 8, 2));
            return value >= 1 && value <= 8 ? value : 1;
        }
    }
    return 1;
}

// The segment APP1 of a JPEG that holds EXIF; empty where there is none before the pixels.
std::string_view exif_of_jpeg(std::string_view bytes) noexcept {
    constexpr std::string_view kName("Exif\0\0", 6);
    Bytes const numbers(bytes, false);
    for (std::size_t at = 2; numbers.number(at, 1) == 0xFF;) {
        std::uint32_t const marker = numbers.number(at + 1, 1);
        std::size_t const size = numbers.number(at + 2, 2);
        if (marker == 0xFF) {
            ++at;  // filled up
            continue;
        }
        if (marker == 0xDA || size < 2) {
            break;
        }
        std::string_view const segment = bytes.substr(std::min(at + 4, bytes.size()), size - 2);
        if (marker == 0xE1 && segment.substr(0, kName.size()) == kName) {
            return segment.substr(kName.size());
        }
        at += 2 + size;
    }
    return {};
}

std::string_view exif_of_png(std::string_view bytes) noexcept {
    Bytes const numbers(bytes, false);
    for (std::size_t at = 8; at < bytes.size();) {
        std::size_t const size = numbers.number(at, 4);
        std::string_view const kind = bytes.substr(std::min(at + 4, bytes.size()), 4);
        std::string_view const rest = bytes.substr(std::min(at + 8, bytes.size()));
        if (kind == "eXIf") {
            return rest.substr(0, size);
        }
        if (kind == "IEND" || size > rest.size()) {
            break;
        }
        at += 12 + size;
    }
    return {};
}

}  // namespace

int orientation_of(std::string_view bytes) noexcept {
    if (bytes.substr(0, 2) == "\xFF\xD8") {
        return orientation_in(exif_of_jpeg(bytes));
    }
    return bytes.substr(0, 8) == "\x89PNG\r\n\x1A\n" ? orientation_in(exif_of_png(bytes)) : 1;
}

Image turned(Image const& image, int orientation) {
    // From 5 on rows and columns change places. Which of the picture's own axes run backwards:
    bool const swapped = orientation >= 5;
    bool const mirrored =
        orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool const upended =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    Image result{swapped ? image.height : image.width,
                 swapped ? image.width : image.height,
                 image.channels,
                 {}};
    result.pixels.reserve(image.pixels.size());
    for (std::int64_t y = 0; y < result.height; ++y) {
        for (std::int64_t x = 0; x < result.width; ++x) {
            std::int64_t const column = swapped ? y : x;
            std::int64_t const row = swapped ? x : y;
            std::int64_t const from = (upended ? image.height - 1 - row : row) * image.width +
                                      (mirrored ? image.width - 1 - column : column);
            auto const* pixel = image.pixels.data() + from * image.channels;
            result.pixels.insert(result.pixels.end(), pixel, pixel + image.channels);
        }
    }
    return result;
}

}  // namespace vim_deploy
