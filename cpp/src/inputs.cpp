//! \file inputs.cpp
//! What an engine is given: which input is which, and what does not fit.
#include <algorithm>

#include "engine_impl.h"

namespace vim_deploy {
namespace {

// Height and width of the pictures that fill an input.
PictureSize full_size(TensorInfo const& input) {
    std::size_t const first = input.type == DataType::kUint8 ? 1 : 2;  // bytes have channels last
    return {input.shape[first], input.shape[first + 1]};
}

}  // namespace

Shape shape_of_sizes(Shape const& batch) {
    return {batch.empty() ? 0 : batch.front(), 2};
}

Shape prepared_shape(ExportInfo const& exported) {
    ImagePreparation const& image = exported.image;
    if (exported.preprocess == "uint8") {
        return {-1, image.height, image.width, image.channels};
    }
    return {-1, image.channels, image.height, image.width};
}

std::string Engine::Impl::sort_inputs(std::vector<TensorInfo> inputs) {
    auto const sizes = std::find_if(inputs.begin(), inputs.end(), [](TensorInfo const& tensor) {
        return tensor.name == kSizeInput && tensor.shape.size() == 2 && tensor.shape[1] == 2 &&
               (tensor.type == DataType::kInt64 || tensor.type == DataType::kInt32);
    });
    if (inputs.size() == 2 && sizes != inputs.end()) {
        size = *sizes;
        inputs.erase(sizes);
    }
    if (inputs.size() > 1) {
        return "it has a second input, " + inputs[1].name;
    }
    if (inputs.empty() || outputs.empty() || inputs[0].shape.empty()) {
        return "it has no input or no output";
    }
    input = std::move(inputs[0]);
    bool const fixed = std::all_of(input.shape.begin() + 1, input.shape.end(),
                                   [](std::int64_t side) { return side > 0; });
    if (size && (input.shape.size() != 4 || !fixed || size->shape[0] != input.shape[0])) {
        return "its sizes of pictures do not belong to its pictures";
    }
    return "";
}

Status Engine::Impl::check_batch(TensorView const& batch) const {
    if (batch.type != input.type || batch.data == nullptr) {
        return Error{"VIM-415", "the batch does not fit the input " + input.name,
                     batch.data == nullptr ? std::string("it is a null pointer")
                                           : std::string("it holds ") + name_of(batch.type) +
                                                 ", the engine takes " + name_of(input.type),
                     "prepare it as the engine's record says"};
    }
    return Done{};
}

Status Engine::Impl::check_sizes(TensorView const& batch,
                                 std::vector<PictureSize> const* given) const {
    if (given == nullptr) {
        return Done{};
    }
    if (!size) {
        return Error{"VIM-415", "the engine takes no sizes of pictures",
                     "its only input is " + input.name, "give the batch alone"};
    }
    PictureSize const full = full_size(input);
    if (batch.shape.empty() || static_cast<std::int64_t>(given->size()) != batch.shape[0]) {
        return Error{"VIM-415", "there is not one size for each picture",
                     std::to_string(given->size()) + " sizes for the batch " + text_of(batch.shape),
                     "give height and width of each picture within the input"};
    }
    for (PictureSize const& own : *given) {
        if (own.height < 0 || own.width < 0 || own.height > full.height || own.width > full.width) {
            return Error{"VIM-415", "a size is not within the input",
                         text_of({own.height, own.width}) + ", the input has " +
                             text_of({full.height, full.width}),
                         "give height and width of each picture within the input"};
        }
    }
    return Done{};
}

void Engine::Impl::write_sizes(void* to, std::int64_t batch,
                               std::vector<PictureSize> const* given) const {
    PictureSize const full = full_size(input);
    for (std::int64_t i = 0; i < batch; ++i) {
        PictureSize const& own = given == nullptr ? full : (*given)[static_cast<std::size_t>(i)];
        if (size->type == DataType::kInt64) {
            auto* out = static_cast<std::int64_t*>(to) + 2 * i;
            out[0] = own.height;
            out[1] = own.width;
        } else {
            auto* out = static_cast<std::int32_t*>(to) + 2 * i;
            out[0] = static_cast<std::int32_t>(own.height);
            out[1] = static_cast<std::int32_t>(own.width);
        }
    }
}

}  // namespace vim_deploy
