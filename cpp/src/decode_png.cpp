//! \file decode_png.cpp
//! PNG by libpng's progressive reader. That one ends when the last row is complete, whatever the
//! compressed stream still holds, so no more is inflated than width, height and channels need; the
//! other reader inflates a bomb behind the last row to its end. Chunks that hold no pixels are
//! passed over: they are neither inflated nor kept.
#include "decode.h"

#if VIM_DEPLOY_HAS_PNG
#include <png.h>

#include <csetjmp>
#include <cstring>
#include <new>

#include "image_limits.h"

namespace vim_deploy {
namespace {

// What the callbacks work on. libpng jumps over their frames when it fails, so those hold nothing
// that has a destructor; what has one lives here, outside.
struct Decoding {
    png_structp png = nullptr;
    png_infop info = nullptr;
    Image image;
    std::int64_t width = 0;
    std::int64_t height = 0;
    std::size_t file_bytes = 0;
    std::int64_t too_many_bytes = 0;
    bool size_refused = false;
    bool out_of_memory = false;
    bool complete = false;
    char message[160] = "";

    Decoding() = default;
    Decoding(Decoding const&) = delete;
    Decoding& operator=(Decoding const&) = delete;
    ~Decoding() { png_destroy_read_struct(&png, &info, nullptr); }
};

Decoding& of(png_structp png) {
    return *static_cast<Decoding*>(png_get_progressive_ptr(png));
}

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
    auto& decoding = *static_cast<Decoding*>(png_get_error_ptr(png));
    std::strncpy(decoding.message, message, sizeof decoding.message - 1);
    png_longjmp(png, 1);
}

// Pillow reads pictures that libpng only warns about.
void on_warning(png_structp, png_const_charp) {}

bool allocate(Decoding& decoding, std::size_t bytes) noexcept {
    try {
        decoding.image.pixels.resize(bytes);
    } catch (std::bad_alloc const&) {
        return false;
    }
    return true;
}

void on_header(png_structp png, png_infop info) {
    Decoding& decoding = of(png);
    decoding.width = png_get_image_width(png, info);
    decoding.height = png_get_image_height(png, info);
    decoding.size_refused = decoding.width > kMaxPixels || decoding.height > kMaxPixels ||
                            decoding.width * decoding.height > kMaxPixels;
    if (decoding.size_refused) {
        png_error(png, "too many pixels");
    }
    if (png_get_bit_depth(png, info) > 8) {
        png_error(png, "more than 8 bits a channel");
    }
    // Colours of a palette, and grey of less than 8 bits, become bytes.
    png_set_expand(png);
    png_set_strip_alpha(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    decoding.image.width = decoding.width;
    decoding.image.height = decoding.height;
    decoding.image.channels = png_get_channels(png, info);
    std::int64_t const all = decoding.width * decoding.height * decoding.image.channels;
    if (!may_take(all, decoding.file_bytes)) {
        decoding.too_many_bytes = all;
        png_error(png, "too much memory");
    }
    auto const row = static_cast<std::size_t>(decoding.width * decoding.image.channels);
    if (png_get_rowbytes(png, info) != row) {
        png_error(png, "a form of pixels that is not known");
    }
    if (!allocate(decoding, row * static_cast<std::size_t>(decoding.height))) {
        decoding.out_of_memory = true;
        png_error(png, "out of memory");
    }
}

void on_row(png_structp png, png_bytep row, png_uint_32 number, int) {
    Decoding& decoding = of(png);
    // Null when a pass of an interlaced picture has nothing new for this row.
    if (row != nullptr && static_cast<std::int64_t>(number) < decoding.height) {
        auto const width = static_cast<std::size_t>(decoding.width * decoding.image.channels);
        png_progressive_combine_row(png, decoding.image.pixels.data() + number * width, row);
    }
}

// libpng takes a stream that ends before the last row for a picture.
void on_end(png_structp png, png_infop info) {
    bool const interlaced = png_get_interlace_type(png, info) != PNG_INTERLACE_NONE;
    Decoding& decoding = of(png);
    decoding.complete = interlaced
                            ? png_get_current_pass_number(png) >= PNG_INTERLACE_ADAM7_PASSES
                            : png_get_current_row_number(png) >= png_get_image_height(png, info);
}

// Whether libpng went through all of it; otherwise `message` says why not.
bool run(Decoding& decoding, std::string_view bytes) {
    if (setjmp(png_jmpbuf(decoding.png)) != 0) {
        return false;
    }
    constexpr auto kLargest = static_cast<png_uint_32>(kMaxPixels);
    png_set_user_limits(decoding.png, kLargest, kLargest);
    // Minus one: all chunks that libpng knows and no picture needs.
    png_set_keep_unknown_chunks(decoding.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_set_keep_unknown_chunks(decoding.png, PNG_HANDLE_CHUNK_NEVER, nullptr, 0);
    png_set_progressive_read_fn(decoding.png, &decoding, on_header, on_row, on_end);
    // libpng does not write to what it is given.
    auto* data = reinterpret_cast<png_bytep>(const_cast<char*>(bytes.data()));
    png_process_data(decoding.png, decoding.info, data, bytes.size());
    return true;
}

}  // namespace

Result<Image> decode_png(std::string_view bytes, std::string const& name) {
    Decoding decoding;
    decoding.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &decoding, on_error, on_warning);
    decoding.info = decoding.png == nullptr ? nullptr : png_create_info_struct(decoding.png);
    if (decoding.info == nullptr) {
        throw std::bad_alloc();
    }
    decoding.file_bytes = bytes.size();
    bool const went_through = run(decoding, bytes);
    if (decoding.out_of_memory) {
        throw std::bad_alloc();
    }
    if (decoding.size_refused) {
        return check_picture_size(decoding.width, decoding.height, name).error();
    }
    if (decoding.too_many_bytes > 0) {
        return too_much_memory(decoding.too_many_bytes, name);
    }
    if (!went_through) {
        return unreadable_picture(name, decoding.message);
    }
    if (!decoding.complete) {
        return unreadable_picture(name, "it is truncated: rows or its end are missing");
    }
    return std::move(decoding.image);
}

}  // namespace vim_deploy
#endif
