//! \file detections.h
//! From a detector's outputs to what is in each picture, in the picture's own pixels.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "vim_deploy/image.h"
#include "vim_deploy/record.h"
#include "vim_deploy/result.h"
#include "vim_deploy/tensor.h"

namespace vim_deploy {

struct Detection {
    std::int64_t index = 0;
    std::string label;           //!< `class 7` when the record has no labels
    float score = 0;             //!< the class's probability
    std::array<float, 4> box{};  //!< left, top, right, bottom in the picture's pixels
    //! Probabilities in parts of the box, `mask_side` x `mask_side`; empty without a mask head.
    std::vector<float> mask;
    std::int64_t mask_side = 0;
};

//! The detections of each picture of a batch, the best first. Boxes are scaled from the network's
//! input to the picture, clipped to it, and dropped where nothing of them is left (detectron2's
//! detector_postprocess). `pictures` are those that `fit_image` gave, in the batch's order; there
//! may be fewer than rows, as a fixed batch is filled up.
//! \return VIM-415 when the outputs are not those of the head `detections`, VIM-430 when NaN or Inf
//!         is among them.
Result<std::vector<std::vector<Detection>>> find_detections(
    std::vector<Tensor> const& outputs, ExportInfo const& exported,
    std::vector<FittedImage> const& pictures);

//! A mask on its picture; nothing is set outside this part.
struct PastedMask {
    std::int64_t top = 0;
    std::int64_t left = 0;
    std::int64_t height = 0;
    std::int64_t width = 0;
    std::vector<std::uint8_t> pixels;  //!< height x width, 1 where the object is
};

//! The pixels of a detection in a picture of this size, as detectron2's paste_masks_in_image:
//! the mask is stretched over the box and read at each pixel's centre, bilinearly, zero outside; a
//! pixel belongs to the object from 0.5 on. Nothing for a detection without a mask.
//! \return VIM-415 when box and mask do not fit the picture.
Result<PastedMask> paste_mask(Detection const& detection, PictureSize const& picture);

//! The mask as a grey picture of the whole size, 255 where the object is.
//! \return VIM-415 when it does not fit the picture.
Result<Image> mask_image(PastedMask const& mask, PictureSize const& picture);

}  // namespace vim_deploy
