//! \file file.cpp
#include "file.h"

#include <filesystem>
#include <fstream>
#include <system_error>

namespace vim_deploy {

bool is_file(std::string const& path) noexcept {
    std::error_code ignored;
    return std::filesystem::is_regular_file(path, ignored);
}

Result<std::vector<char>> read_file(std::string const& path, char const* what,
                                    char const* unreadable, std::size_t limit) {
    std::error_code error;
    if (!is_file(path)) {
        bool const exists = std::filesystem::exists(path, error);
        return Error{"VIM-401", std::string(what) + " not found: " + path,
                     exists ? "it is not a regular file" : "there is no such file",
                     "check the path"};
    }
    auto const size = std::filesystem::file_size(path, error);
    if (error) {
        return Error{unreadable, path + " cannot be read", error.message(), "check its rights"};
    }
    if (size > limit) {
        return Error{unreadable, path + " is not a readable " + what,
                     "it has " + std::to_string(size) + " bytes, at most " + std::to_string(limit) +
                         " are read",
                     "check that it is the right file"};
    }
    std::vector<char> bytes(static_cast<std::size_t>(size));
    std::ifstream stream(path, std::ios::binary);
    stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!stream) {
        return Error{unreadable, path + " cannot be read",
                     "reading stopped after " + std::to_string(stream.gcount()) + " of " +
                         std::to_string(size) + " bytes",
                     "check its rights and the disk"};
    }
    return bytes;
}

std::string folder_of(std::string const& path) {
    auto const slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

}  // namespace vim_deploy
