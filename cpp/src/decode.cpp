//! \file decode.cpp
//! PPM and PGM by our own reader; PNG and JPEG by libraries where the build
//! found them. A picture is judged by its header before its pixels are decoded.
#include <cmath>
#include <cstring>
#include <string_view>

#include "decode.h"
#include "file.h"
#include "guard.h"
#include "image_limits.h"
#include "orientation.h"
#include "vim_deploy/image.h"

namespace vim_deploy {
Error unreadable_picture(std::string const& name, std::string const& why) {
    return {"VIM-411", name + " is not a readable image", why, "give a complete 8-bit image file"};
}

Status check_picture_size(std::int64_t width, std::int64_t height, std::string const& name) {
    if (width < 1 || height < 1 || width > kMaxPixels || height > kMaxPixels ||
        width * height > kMaxPixels) {
        return unreadable_picture(name, std::to_string(width) + " x " + std::to_string(height) +
                                            " pixels; at least 1, at most " +
                                            std::to_string(kMaxPixels) + " are decoded");
    }
    return Done{};
}

Error too_much_memory(std::int64_t bytes, std::string const& name) {
    return unreadable_picture(
        name, "decoding it takes " + std::to_string(bytes / 1'000'000) +
                  " MB; at most 4 times the file and 210 MB are unpacked");
}

namespace {

// Larger than any picture of kMaxPixels in a plain format.
constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30U;

bool is_space(char c) noexcept {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

// The numbers of a header, apart from each other by space and comments (netpbm's format page).
class Header {
  public:
    explicit Header(std::string_view bytes) : bytes_(bytes) {}

    // The next number, -1 when there is none or it has more than nine digits.
    std::int64_t number() {
        skip();
        std::int64_t value = 0;
        std::size_t const first = at_;
        while (at_ < bytes_.size() && bytes_[at_] >= '0' && bytes_[at_] <= '9' &&
               at_ - first < 10) {
            value = value * 10 + (bytes_[at_++] - '0');
        }
        return at_ > first && at_ - first < 10 ? value : -1;
    }

    // What follows the one space after the last number.
    bool rest(std::string_view& data) const {
        if (at_ >= bytes_.size() || !is_space(bytes_[at_])) {
            return false;
        }
        data = bytes_.substr(at_ + 1);
        return true;
    }

  private:
    void skip() {
        while (at_ < bytes_.size() && (is_space(bytes_[at_]) || bytes_[at_] == '#')) {
            if (bytes_[at_] == '#') {
                while (at_ < bytes_.size() && bytes_[at_] != '\n' && bytes_[at_] != '\r') {
                    ++at_;
                }
            } else {
                ++at_;
            }
        }
    }

    std::string_view bytes_;
    std::size_t at_ = 2;
};

Result<Image> decode_netpbm(std::string_view bytes, std::string const& name) {
    Header header(bytes);
    std::int64_t const width = header.number();
    std::int64_t const height = header.number();
    std::int64_t const most = header.number();
    std::string_view data;
    if (width < 0 || height < 0 || most < 1 || !header.rest(data)) {
        return unreadable_picture(name,
                                  "its header does not hold width, height and the largest value");
    }
    if (most > 255) {
        return unreadable_picture(
            name, "more than 8 bits a channel (largest value " + std::to_string(most) + ")");
    }
    VIM_DEPLOY_TRY(check_picture_size(width, height, name));
    Image image{width, height, bytes[1] == '6' ? 3 : 1, {}};
    auto const wanted = static_cast<std::size_t>(width * height * image.channels);
    if (data.size() < wanted) {
        return unreadable_picture(name, "it is truncated: " + std::to_string(data.size()) + " of " +
                                            std::to_string(wanted) + " bytes of pixels");
    }
    image.pixels.resize(wanted);
    std::memcpy(image.pixels.data(), data.data(), wanted);
    if (most != 255) {
        for (std::uint8_t& pixel : image.pixels) {
            double const value = std::nearbyint(pixel / static_cast<double>(most) * 255);
            pixel = static_cast<std::uint8_t>(value > 255 ? 255 : value);
        }
    }
    return image;
}

Result<Image> decode(std::string_view bytes, std::string const& name) {
    if (bytes.empty()) {
        return unreadable_picture(name, "the file is empty");
    }
    std::string_view const magic = bytes.substr(0, 2);
    if (magic == "P5" || magic == "P6") {
        return decode_netpbm(bytes, name);
    }
#if VIM_DEPLOY_HAS_PNG
    if (magic == "\x89P") {
        return decode_png(bytes, name);
    }
#endif
#if VIM_DEPLOY_HAS_JPEG
    if (magic == "\xFF\xD8") {
        return decode_jpeg(bytes, name);
    }
#endif
    return unreadable_picture(name, std::string("it is none of ") + image_formats());
}

}  // namespace

char const* image_formats() noexcept {
    return "PPM, PGM"
#if VIM_DEPLOY_HAS_PNG
           ", PNG"
#endif
#if VIM_DEPLOY_HAS_JPEG
           ", JPEG"
#endif
        ;
}

Result<Image> decode_image(void const* data, std::size_t size, std::string const& name) {
    return guarded("decoding a picture", [&]() -> Result<Image> {
        if (size > kMaxFileBytes) {
            return unreadable_picture(name, "it has " + std::to_string(size) + " bytes");
        }
        return decode({static_cast<char const*>(data), size}, name);
    });
}

Result<Image> read_image(std::string const& path) {
    return guarded("reading a picture", [&]() -> Result<Image> {
        auto const bytes = read_file(path, "image", "VIM-411", kMaxFileBytes);
        if (!bytes) {
            return bytes.error();
        }
        return decode_image(bytes->data(), bytes->size(), path);
    });
}

Result<Image> read_upright_image(std::string const& path) {
    return guarded("reading a picture", [&]() -> Result<Image> {
        auto const bytes = read_file(path, "image", "VIM-411", kMaxFileBytes);
        if (!bytes) {
            return bytes.error();
        }
        auto image = decode_image(bytes->data(), bytes->size(), path);
        int const orientation = orientation_of({bytes->data(), bytes->size()});
        if (!image || orientation == 1) {
            return image;
        }
        auto const both = 2 * static_cast<std::int64_t>(image->pixels.size());
        if (!may_take(both, bytes->size())) {
            return too_much_memory(both, path);
        }
        return turned(*image, orientation);
    });
}

}  // namespace vim_deploy
