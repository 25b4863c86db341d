//! \file guard.h
//! The border between code that may throw (the standard library's allocations) and the API.
#pragma once

#include <exception>
#include <new>

#include "vim_deploy/result.h"

namespace vim_deploy {

//! Returns the error of a failed expression to the caller.
#define VIM_DEPLOY_TRY(expression)                        \
    do {                                                  \
        if (auto status_ = (expression); !status_.ok()) { \
            return status_.error();                       \
        }                                                 \
    } while (false)

//! Calls `body`; memory that ran out becomes an error instead of an exception.
template <typename Body>
auto guarded(char const* what, Body const& body) noexcept -> decltype(body()) {
    try {
        return body();
    } catch (std::bad_alloc const&) {
        return Error{"VIM-904", std::string("out of memory: ") + what, "the host has none left",
                     "use a smaller batch, or free memory"};
    } catch (std::exception const& error) {
        return Error{"VIM-904", std::string("the system refused a call: ") + what, error.what(),
                     "free memory, handles or threads of this process"};
    }
}

}  // namespace vim_deploy
