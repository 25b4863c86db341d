//! \file write_image.cpp
//! Pictures as Netpbm files.
#include <cstdio>
#include <memory>

#include "guard.h"
#include "vim_deploy/image.h"

namespace vim_deploy {
namespace {

Status write(Image const& image, std::string const& path) {
    bool const known = image.channels == 1 || image.channels == 3;
    Shape const shape{image.height, image.width, image.channels};
    if (!known || image.pixels.empty() ||
        image.pixels.size() != bytes_of(DataType::kUint8, shape)) {
        return Error{"VIM-415", "the picture is not an 8-bit grey or RGB array",
                     std::to_string(image.pixels.size()) + " bytes for " + text_of(shape),
                     "give width x height x channels bytes, channels 1 or 3"};
    }
    Error const refused{"VIM-304", "cannot write " + path, "the file or its folder does not let us",
                        "name a file in a folder that may be written, and free space"};
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"),
                                                         std::fclose);
    if (file == nullptr) {
        return refused;
    }
    std::string const header = (image.channels == 1 ? "P5\n" : "P6\n") +
                               std::to_string(image.width) + " " + std::to_string(image.height) +
                               "\n255\n";
    bool good = std::fwrite(header.data(), 1, header.size(), file.get()) == header.size();
    good = good && std::fwrite(image.pixels.data(), 1, image.pixels.size(), file.get()) ==
                       image.pixels.size();
    good = std::fclose(file.release()) == 0 && good;
    return good ? Status(Done{}) : Status(refused);
}

}  // namespace

Status write_image(Image const& image, std::string const& path) {
    return guarded("writing a picture", [&] { return write(image, path); });
}

}  // namespace vim_deploy
