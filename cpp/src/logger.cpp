//! \file logger.cpp
#include "logger.h"

#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include "vim_deploy/runtime.h"
#include "vim_deploy/text.h"

namespace vim_deploy {
namespace {

constexpr std::size_t kMaxCaptured = 4096;

thread_local LogCapture* current_capture = nullptr;

void to_standard_error(Severity severity, char const* message) {
    static constexpr char const* kNames[] = {"internal error", "error", "warning", "info",
                                             "verbose"};
    try {
        std::fprintf(stderr, "TensorRT %s: %s\n", kNames[static_cast<int>(severity)],
                     printable(message).c_str());
    } catch (std::bad_alloc const&) {
        std::fprintf(stderr, "TensorRT %s: a message, and no memory for it\n",
                     kNames[static_cast<int>(severity)]);
    }
}

struct Sink {
    LogFunction log = to_standard_error;
    Severity least = Severity::kWarning;
};

class Logger : public nvinfer1::ILogger {
  public:
    void log(Severity severity, char const* message) noexcept override {
        auto const level = static_cast<vim_deploy::Severity>(static_cast<int>(severity));
        if (level <= vim_deploy::Severity::kError && current_capture != nullptr) {
            current_capture->add(message);
        }
        std::shared_ptr<Sink const> sink;
        {
            std::lock_guard<std::mutex> const lock(mutex_);
            sink = sink_;
        }
        if (level <= sink->least && sink->log) {
            sink->log(level, message);
        }
    }

    void set(std::shared_ptr<Sink const> sink) {
        std::lock_guard<std::mutex> const lock(mutex_);
        sink_ = std::move(sink);
    }

  private:
    std::mutex mutex_;
    std::shared_ptr<Sink const> sink_ = std::make_shared<Sink>();
};

Logger& logger() {
    static auto* instance = new Logger;
    return *instance;
}

}  // namespace

nvinfer1::ILogger& tensorrt_logger() {
    return logger();
}

void set_log(LogFunction log, Severity least) {
    logger().set(std::make_shared<Sink const>(Sink{std::move(log), least}));
}

LogCapture::LogCapture() : outer_(std::exchange(current_capture, this)) {}

LogCapture::~LogCapture() {
    current_capture = outer_;
}

std::string LogCapture::text(char const* otherwise) const {
    return text_.empty() ? otherwise : text_;
}

void LogCapture::add(char const* message) {
    try {
        if (text_.size() < kMaxCaptured) {
            text_ += (text_.empty() ? "" : "\n") + std::string(message);
        }
    } catch (std::exception const&) {
        // Out of memory: the message still goes to the log.
    }
}

}  // namespace vim_deploy
