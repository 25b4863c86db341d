//! \file decode_jpeg.cpp
//! JPEG by libjpeg (libjpeg-turbo is the one that Pillow has): its accurate integer transform and
//! smooth upsampling, which are Pillow's settings too.
#include "decode.h"

#if VIM_DEPLOY_HAS_JPEG
#include <cstddef>
#include <cstdio>
// Needs size_t and FILE before it.
#include <jerror.h>
#include <jpeglib.h>

#include <csetjmp>
#include <new>

#include "image_limits.h"

namespace vim_deploy {
namespace {

// An encoder makes about ten scans of a progressive picture; a file of many thousand empty ones
// takes hours.
constexpr int kMaxScans = 100;

// libjpeg jumps out of a failed call to the `setjmp` of the step that made it. So the steps hold
// nothing that has a destructor.
struct Decoding {
    jpeg_decompress_struct jpeg{};
    jpeg_error_mgr errors{};
    jpeg_progress_mgr progress{};
    std::jmp_buf on_failure{};
    char message[JMSG_LENGTH_MAX] = "";
    bool out_of_memory = false;

    Decoding() = default;
    Decoding(Decoding const&) = delete;
    Decoding& operator=(Decoding const&) = delete;
    // Also right when nothing was created: libjpeg asks the memory manager, which is null then.
    ~Decoding() { jpeg_destroy_decompress(&jpeg); }
};

Decoding& of(j_common_ptr jpeg) {
    return *static_cast<Decoding*>(jpeg->client_data);
}

[[noreturn]] void fail(j_common_ptr jpeg) {
    Decoding& decoding = of(jpeg);
    decoding.out_of_memory = jpeg->err->msg_code == JERR_OUT_OF_MEMORY;
    jpeg->err->format_message(jpeg, decoding.message);
    std::longjmp(decoding.on_failure, 1);
}

// libjpeg goes on where data are damaged, as Pillow does; but what a cut file lacks would be grey.
void on_message(j_common_ptr jpeg, int level) {
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) {
        fail(jpeg);
    }
}

void on_progress(j_common_ptr jpeg) {
    if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number > kMaxScans) {
        Decoding& decoding = of(jpeg);
        std::snprintf(decoding.message, sizeof decoding.message, "more than %d scans", kMaxScans);
        std::longjmp(decoding.on_failure, 1);
    }
}

void on_output(j_common_ptr) {}

bool read_header(Decoding& decoding, std::string_view bytes) {
    jpeg_decompress_struct& jpeg = decoding.jpeg;
    jpeg.err = jpeg_std_error(&decoding.errors);
    decoding.errors.error_exit = fail;
    decoding.errors.emit_message = on_message;
    decoding.errors.output_message = on_output;
    jpeg.client_data = &decoding;
    if (setjmp(decoding.on_failure) != 0) {
        return false;
    }
    // Keeps `err` and `client_data`.
    jpeg_create_decompress(&jpeg);
    decoding.progress.progress_monitor = on_progress;
    jpeg.progress = &decoding.progress;
    // Headers that are older than libjpeg 9 take a pointer to what they do not change.
    auto* data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
    jpeg_mem_src(&jpeg, data, static_cast<unsigned long>(bytes.size()));
    return jpeg_read_header(&jpeg, TRUE) == JPEG_HEADER_OK;
}

// Rows of the picture into `pixels`, which has place for all of them.
bool read_rows(Decoding& decoding, std::uint8_t* pixels) {
    jpeg_decompress_struct& jpeg = decoding.jpeg;
    if (setjmp(decoding.on_failure) != 0) {
        return false;
    }
    jpeg_start_decompress(&jpeg);
    std::size_t const width =
        std::size_t{jpeg.output_width} * static_cast<std::size_t>(jpeg.output_components);
    while (jpeg.output_scanline < jpeg.output_height) {
        JSAMPROW row = pixels + jpeg.output_scanline * width;
        jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_decompress(&jpeg);
    return true;
}

// a * b / 255, rounded as Pillow rounds it.
unsigned scaled(unsigned a, unsigned b) noexcept {
    unsigned const product = a * b + 128;
    return ((product >> 8U) + product) >> 8U;
}

// CMYK as Adobe's programs write it, inverted, becomes RGB as in Pillow: each colour takes its
// share of what black leaves.
void to_rgb(Image& image) {
    std::size_t const count = image.pixels.size() / 4;
    for (std::size_t i = 0; i < count; ++i) {
        unsigned const left = image.pixels[4 * i + 3];
        for (std::size_t c = 0; c < 3; ++c) {
            unsigned const ink = 255U - image.pixels[4 * i + c];
            image.pixels[3 * i + c] = static_cast<std::uint8_t>(left - scaled(ink, left));
        }
    }
    image.pixels.resize(3 * count);
    image.channels = 3;
}

// Bytes that decoding takes: the picture, and of one that comes in parts, progressive or a channel
// after the other, all its 16-bit coefficients, which libjpeg keeps until the last scan.
std::int64_t needed(jpeg_decompress_struct& jpeg) {
    auto const pixels = std::int64_t{jpeg.image_width} * jpeg.image_height;
    std::int64_t bytes = pixels * jpeg.num_components;
    if (jpeg_has_multiple_scans(&jpeg) != FALSE) {
        std::int64_t const whole =
            std::int64_t{jpeg.max_h_samp_factor} * jpeg.max_v_samp_factor;
        for (int i = 0; i < jpeg.num_components; ++i) {
            jpeg_component_info const& channel = jpeg.comp_info[i];
            bytes += 2 * pixels * channel.h_samp_factor * channel.v_samp_factor / whole;
        }
    }
    return bytes;
}

Error failure(Decoding const& decoding, std::string const& name) {
    if (decoding.out_of_memory) {
        throw std::bad_alloc();
    }
    return unreadable_picture(name, decoding.message);
}

}  // namespace

Result<Image> decode_jpeg(std::string_view bytes, std::string const& name) {
    Decoding decoding;
    if (!read_header(decoding, bytes)) {
        return failure(decoding, name);
    }
    jpeg_decompress_struct& jpeg = decoding.jpeg;
    Status const size = check_picture_size(jpeg.image_width, jpeg.image_height, name);
    if (!size) {
        return size.error();
    }
    if (!may_take(needed(jpeg), bytes.size())) {
        return too_much_memory(needed(jpeg), name);
    }
    bool const grey = jpeg.num_components == 1;
    if (!grey && jpeg.num_components != 3 && jpeg.num_components != 4) {
        return unreadable_picture(
            name, std::to_string(jpeg.num_components) + " channels; 1, 3 or 4 are known");
    }
    jpeg.out_color_space = grey ? JCS_GRAYSCALE : jpeg.num_components == 3 ? JCS_RGB : JCS_CMYK;
    Image image{jpeg.image_width, jpeg.image_height, jpeg.num_components, {}};
    image.pixels.resize(static_cast<std::size_t>(image.width * image.height * image.channels));
    if (!read_rows(decoding, image.pixels.data())) {
        return failure(decoding, name);
    }
    if (image.channels == 4) {
        to_rgb(image);
    }
    return image;
}

}  // namespace vim_deploy
#endif
