//! \file result.cpp
#include "vim_deploy/result.h"

#include "vim_deploy/text.h"

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
    std::string lines = "error " + code + ": " + printable_line(message);
    if (!why.empty()) {
        lines += "\nwhy: " + printable(why);
    }
    if (!fix.empty()) {
        lines += "\nfix: " + printable(fix);
    }
    return lines;
}

}  // namespace vim_deploy
