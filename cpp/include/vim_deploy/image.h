//! \file image.h
//! From a picture to the model's input, exactly as vim_deploy/images.py prepares it: the 8-bit crop
//! is the same, bit for bit, and so are the floats made of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vim_deploy/record.h"
#include "vim_deploy/result.h"
#include "vim_deploy/tensor.h"

namespace vim_deploy {

//! 8-bit pixels, height x width x channels; channels is 1 (grey) or 3 (RGB).
struct Image {
    std::int64_t width = 0;
    std::int64_t height = 0;
    std::int64_t channels = 3;
    std::vector<std::uint8_t> pixels;
};

//! Height and width in pixels.
struct PictureSize {
    std::int64_t height = 0;
    std::int64_t width = 0;
};

//! A picture as a detector takes it.
struct FittedImage {
    Image image;         //!< square, the picture at its top left, zeros beside and below it
    PictureSize inside;  //!< of the picture in it
    PictureSize own;     //!< of the picture as it was
};

//! Decodes a picture: PPM and PGM (P5, P6), and PNG and JPEG when the library was built with
//! libpng and libjpeg. EXIF orientation is not applied, because the official evaluation does not.
//! \return VIM-401 when there is no file, VIM-411 when it is not a picture of at most 8 bits a
//!         channel, is truncated or too large.
Result<Image> read_image(std::string const& path);

//! The same, turned upright as the EXIF orientation of a JPEG or PNG says: what detectors take.
//! \return as `read_image`.
Result<Image> read_upright_image(std::string const& path);

//! `read_image` from bytes in memory; `name` is for messages.
Result<Image> decode_image(void const* data, std::size_t size, std::string const& name);

//! Formats that `read_image` knows, such as `PPM, PGM`.
char const* image_formats() noexcept;

//! Resizes a picture and crops its centre to `preparation.height` x `width` x `channels`.
//! \return VIM-411 when it is too elongated, VIM-415 when pixels and sizes do not agree or the
//!         model takes neither grey nor RGB, VIM-202 for an unknown interpolation.
Result<Image> crop_image(Image const& image, ImagePreparation const& preparation);

//! Resizes a picture until its longer side is the square input's, as detectron2 does it, and fills
//! the rest with zeros. A detector's pictures are upright (`read_upright_image`).
//! \return as `crop_image`; VIM-415 also for an input that is not square.
Result<FittedImage> fit_image(Image const& image, ImagePreparation const& preparation);

//! Writes a picture as PPM, or PGM where it is grey.
//! \return VIM-415 when pixels and sizes do not agree, VIM-304 when it cannot be written.
Status write_image(Image const& image, std::string const& path);

//! Stacks crops into the input of a graph: float32 NCHW, normalised (`none`) or in [0, 1]
//! (`normalize`), or uint8 NHWC (`uint8`).
//! \return VIM-415 when there is none or a crop has other sizes, VIM-202 for an unknown mode.
Result<Tensor> batch_of_crops(std::vector<Image> const& crops, ImagePreparation const& preparation,
                              std::string const& preprocess);

}  // namespace vim_deploy
