//! \file result.h
//! Errors as values: a code, a reason and a remedy, the same codes as those of the command line.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace vim_deploy {

//! What went wrong. Codes are those of docs/errors.md.
struct Error {
    std::string code;     //!< `VIM-<exit code><two digits>`
    std::string message;  //!< one line, naming the file, key or value
    std::string why;      //!< what was found and what was expected; may be empty
    std::string fix;      //!< the command or change that mends it; may be empty

    //! The digits of the code before the last two: what a program should exit with.
    int exit_code() const noexcept;

    //! `error VIM-903: ...`, and lines with the reason and the fix when there are some;
    //! fit for a terminal (text.h), while the fields are as they were found.
    std::string text() const;
};

//! A value, or the error that came instead. Nothing of this library throws.
template <typename T>
class [[nodiscard]] Result {
  public:
    Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : content_(std::in_place_index<1>, std::move(error)) {}

    bool ok() const noexcept { return content_.index() == 0; }
    explicit operator bool() const noexcept { return ok(); }

    //! The value. Asking a failed result for it ends the program with the error's text: ask `ok()`.
    T& value() & { return *checked(); }
    T const& value() const& { return *const_cast<Result*>(this)->checked(); }
    T&& value() && { return std::move(*checked()); }
    T& operator*() & { return *checked(); }
    T const& operator*() const& { return value(); }
    T* operator->() { return checked(); }
    T const* operator->() const { return &value(); }

    //! The error; only of a result that is not `ok()`.
    Error const& error() const {
        Error const* error = std::get_if<1>(&content_);
        if (error == nullptr) {
            std::fputs("vim_deploy: error() of a result that holds a value\n", stderr);
            std::abort();
        }
        return *error;
    }

  private:
    T* checked() {
        T* value = std::get_if<0>(&content_);
        if (value == nullptr) {
            std::fprintf(stderr, "vim_deploy: value() of a failed result\n%s\n",
                         error().text().c_str());
            std::abort();
        }
        return value;
    }

    std::variant<T, Error> content_;
};

//! The value of a call that gives nothing.
struct Done {};
using Status = Result<Done>;

}  // namespace vim_deploy
