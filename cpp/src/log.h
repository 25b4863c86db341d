//! \file log.h
//! Where messages of the runtimes go: one place for the whole process (`set_log`).
#pragma once

#include <optional>

#include "vim_deploy/runtime.h"

namespace vim_deploy {

//! Hands a message on, where it is severe enough; `source` is who says it.
void log_message(Severity severity, char const* source, char const* message) noexcept;

//! The least severity that `set_log` was called with; nothing before that.
std::optional<Severity> chosen_severity();

}  // namespace vim_deploy
