//! \file log.cpp
#include "log.h"

#include <cstdio>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "vim_deploy/text.h"

namespace vim_deploy {
namespace {

struct Sink {
    LogFunction log;
    Severity least = Severity::kWarning;
    bool chosen = false;
};

class Log {
  public:
    std::shared_ptr<Sink const> sink() {
        std::lock_guard<std::mutex> const lock(mutex_);
        return sink_;
    }

    void set(std::shared_ptr<Sink const> sink) {
        std::lock_guard<std::mutex> const lock(mutex_);
        sink_ = std::move(sink);
    }

  private:
    std::mutex mutex_;
    std::shared_ptr<Sink const> sink_ = std::make_shared<Sink>();
};

// Lives as long as the process, as what logs does.
Log& the_log() {
    static auto* instance = new Log;
    return *instance;
}

void to_standard_error(Severity severity, char const* source, char const* message) noexcept {
    static constexpr char const* kNames[] = {"internal error", "error", "warning", "info",
                                             "verbose"};
    char const* const name = kNames[static_cast<int>(severity)];
    try {
        std::fprintf(stderr, "%s %s: %s\n", source, name, printable(message).c_str());
    } catch (std::bad_alloc const&) {
        std::fprintf(stderr, "%s %s: a message, and no memory for it\n", source, name);
    }
}

}  // namespace

void log_message(Severity severity, char const* source, char const* message) noexcept {
    auto const sink = the_log().sink();
    if (severity > sink->least) {
        return;
    }
    if (!sink->chosen) {
        to_standard_error(severity, source, message);
    } else if (sink->log) {
        sink->log(severity, message);
    }
}

std::optional<Severity> chosen_severity() {
    auto const sink = the_log().sink();
    return sink->chosen ? std::optional<Severity>(sink->least) : std::nullopt;
}

void set_log(LogFunction log, Severity least) {
    the_log().set(std::make_shared<Sink const>(Sink{std::move(log), least, true}));
}

}  // namespace vim_deploy
