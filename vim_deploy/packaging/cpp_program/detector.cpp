// A program around the model, to start your own from: one picture in, what is in it out.
// vim_deploy/detect.cpp is the longer one, with options, batches, masks and overlays as files.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <vector>

#include <vim_deploy/detections.h>
#include <vim_deploy/image.h>
#include <vim_deploy/runtime.h>
#include <vim_deploy/text.h>

namespace {

vim_deploy::Status run(char const* file, char const* picture) {
    auto const engine = vim_deploy::Engine::open(file);
    if (!engine) {
        return engine.error();
    }
    auto session = engine->create_session();
    if (!session) {
        return session.error();
    }
    // The ONNX file, or the engine's record, says how pictures are prepared and what the classes are
    // called.
    if (!engine->exported()) {
        return vim_deploy::Error{"VIM-410", "the file does not say how pictures are prepared", "",
                                 "take the file that was packaged"};
    }
    vim_deploy::ExportInfo const& exported = *engine->exported();
    auto const image = vim_deploy::read_upright_image(picture);
    if (!image) {
        return image.error();
    }
    // As large as fits into the square input, with zeros around.
    auto const fitted = vim_deploy::fit_image(*image, exported.image);
    if (!fitted) {
        return fitted.error();
    }
    // A model of a fixed batch wants all of it.
    auto const rows = static_cast<std::size_t>(engine->batch_for(1));
    std::vector<vim_deploy::Image> const images(rows, fitted->image);
    std::vector<vim_deploy::PictureSize> const sizes(rows, fitted->inside);
    auto const batch = vim_deploy::batch_of_crops(images, exported.image, exported.preprocess);
    if (!batch) {
        return batch.error();
    }
    auto const outputs = session->infer(*batch, sizes);
    if (!outputs) {
        return outputs.error();
    }
    auto const found = vim_deploy::find_detections(*outputs, exported, {*fitted});
    if (!found) {
        return found.error();
    }
    for (vim_deploy::Detection const& thing : found->front()) {
        auto const mask = vim_deploy::paste_mask(thing, fitted->own);
        if (!mask) {
            return mask.error();
        }
        // A label is somebody else's text; a terminal would obey what it hides.
        std::printf("%.4f  [%.1f, %.1f, %.1f, %.1f]  %td pixels  %s\n",
                    static_cast<double>(thing.score), static_cast<double>(thing.box[0]),
                    static_cast<double>(thing.box[1]), static_cast<double>(thing.box[2]),
                    static_cast<double>(thing.box[3]),
                    std::count(mask->pixels.begin(), mask->pixels.end(), 1),
                    vim_deploy::printable_line(thing.label).c_str());
    }
    return vim_deploy::Done{};
}

}  // namespace

int main(int count, char** words) {
    if (count != 3) {
        std::fprintf(stderr, "usage: example FILE PICTURE\n");
        return 2;
    }
    auto status = run(words[1], words[2]);
    if (status && std::fflush(stdout) != 0) {
        status = vim_deploy::Error{"VIM-304", "the results cannot be written",
                                   "standard output takes no more", "free space"};
    }
    if (!status) {
        std::fprintf(stderr, "%s\n", status.error().text().c_str());
        return status.error().exit_code();
    }
    return 0;
}
