//! \file result.cpp
#include "vim_deploy/result.h"

namespace vim_deploy {

int Error::exit_code() const noexcept {
    int number = 0;
    for (char const digit : code) {
        if (digit >= '0' && digit <= '9') {
            number = number * 10 + (digit - '0');
        }
    }
    return number / 100;
}

std::string Error::text() const {
    std::string lines = "error " + code + ": " + message;
    if (!why.empty()) {
        lines += "\nwhy: " + why;
    }
    if (!fix.empty()) {
        lines += "\nfix: " + fix;
    }
    return lines;
}

}  // namespace vim_deploy
