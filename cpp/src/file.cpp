//! \file file.cpp
#include "file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <system_error>

#include "guard.h"

namespace vim_deploy {
namespace {

class Descriptor {
  public:
    explicit Descriptor(int number) noexcept : number_(number) {}
    Descriptor(Descriptor const&) = delete;
    Descriptor& operator=(Descriptor const&) = delete;
    ~Descriptor() {
        if (number_ >= 0) {
            // Nothing was written, so nothing is lost.
            static_cast<void>(::close(number_));
        }
    }

    int number() const noexcept { return number_; }

  private:
    int number_;
};

// How many bytes there were before the end, or before a failure.
std::size_t read_all(int file, std::vector<char>& bytes) noexcept {
    std::size_t done = 0;
    while (done < bytes.size()) {
        auto const count = ::read(file, bytes.data() + done, bytes.size() - done);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            break;
        }
        done += static_cast<std::size_t>(count);
    }
    return done;
}

}  // namespace

bool is_file(std::string const& path) noexcept {
    std::error_code ignored;
    return std::filesystem::is_regular_file(path, ignored);
}

Status require_file(std::string const& path, char const* what) {
    std::error_code ignored;
    if (is_file(path)) {
        return Done{};
    }
    bool const exists = std::filesystem::exists(path, ignored);
    return Error{"VIM-401", std::string(what) + " not found: " + path,
                 exists ? "it is not a regular file" : "there is no such file", "check the path"};
}

std::string first_bytes(std::string const& path, std::size_t count) {
    // A pipe would keep us waiting.
    Descriptor const file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat found {};
    if (file.number() < 0 || ::fstat(file.number(), &found) != 0 || !S_ISREG(found.st_mode)) {
        return "";
    }
    std::vector<char> bytes(count);
    bytes.resize(read_all(file.number(), bytes));
    return {bytes.begin(), bytes.end()};
}

Result<std::vector<char>> read_file(std::string const& path, char const* what,
                                    char const* unreadable, std::size_t limit) {
    std::error_code error;
    VIM_DEPLOY_TRY(require_file(path, what));
    // The file that is judged is the one that is read, whatever has the name by then; and one that
    // became a pipe does not keep us waiting.
    Descriptor const file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat found {};
    if (file.number() < 0 || ::fstat(file.number(), &found) != 0 || !S_ISREG(found.st_mode)) {
        error.assign(errno, std::generic_category());
        return Error{unreadable, path + " cannot be read", error.message(), "check its rights"};
    }
    auto const size = static_cast<std::uintmax_t>(found.st_size);
    if (size > limit) {
        return Error{unreadable, path + " is not a readable " + what,
                     "it has " + std::to_string(size) + " bytes, at most " + std::to_string(limit) +
                         " are read",
                     "check that it is the right file"};
    }
    std::vector<char> bytes(static_cast<std::size_t>(size));
    std::size_t const done = read_all(file.number(), bytes);
    char one_more = 0;
    if (done < bytes.size()) {
        return Error{unreadable, path + " cannot be read",
                     "reading stopped after " + std::to_string(done) + " of " +
                         std::to_string(size) + " bytes",
                     "check its rights and the disk"};
    }
    if (::read(file.number(), &one_more, 1) > 0) {
        return Error{unreadable, path + " cannot be read",
                     "it grew beyond its " + std::to_string(size) + " bytes meanwhile",
                     "wait until it is written"};
    }
    return bytes;
}

std::string folder_of(std::string const& path) {
    auto const slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

}  // namespace vim_deploy
