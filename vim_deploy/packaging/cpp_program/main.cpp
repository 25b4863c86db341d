// A program around the model, to start your own from: one picture in, the best classes out.
// vim_deploy/classify.cpp is the longer one, with options and batches.
#include <cstddef>
#include <cstdio>
#include <vector>

#include <vim_deploy/classification.h>
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
    auto const image = vim_deploy::read_image(picture);
    if (!image) {
        return image.error();
    }
    auto const crop = vim_deploy::crop_image(*image, exported.image);
    if (!crop) {
        return crop.error();
    }
    // A model of a fixed batch wants all of it.
    std::vector<vim_deploy::Image> const crops(static_cast<std::size_t>(engine->batch_for(1)),
                                               *crop);
    auto const batch = vim_deploy::batch_of_crops(crops, exported.image, exported.preprocess);
    if (!batch) {
        return batch.error();
    }
    auto const outputs = session->infer(*batch);
    if (!outputs) {
        return outputs.error();
    }
    auto const classes = vim_deploy::best_classes(*outputs, exported, 5);
    if (!classes) {
        return classes.error();
    }
    for (vim_deploy::Class const& entry : classes->front()) {
        // A label is somebody else's text; a terminal would obey what it hides.
        std::printf("%.4f  %s\n", entry.probability,
                    vim_deploy::printable_line(entry.label).c_str());
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
