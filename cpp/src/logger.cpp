//! \file logger.cpp
#include "logger.h"

#include <exception>
#include <utility>

#include "log.h"

namespace vim_deploy {
namespace {

constexpr std::size_t kMaxCaptured = 4096;

thread_local LogCapture* current_capture = nullptr;

class Logger : public nvinfer1::ILogger {
  public:
    void log(Severity severity, char const* message) noexcept override {
        auto const level = static_cast<vim_deploy::Severity>(static_cast<int>(severity));
        if (level <= vim_deploy::Severity::kError && current_capture != nullptr) {
            current_capture->add(message);
        }
        log_message(level, "TensorRT", message);
    }
};

Logger& logger() {
    static auto* instance = new Logger;
    return *instance;
}

}  // namespace

nvinfer1::ILogger& tensorrt_logger() {
    return logger();
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
