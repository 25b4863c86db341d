//! \file logging.h
//! Messages to TensorRT's logger, and the guard that keeps exceptions out of TensorRT.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

namespace vim_plugins::adapters {

//! The values of nvinfer1::ILogger::Severity.
enum class Severity : std::int32_t { kError = 1, kWarning = 2, kInfo = 3, kVerbose = 4 };

//! Takes the logger finder that TensorRT hands over when it loads the library; `version` is the
//! caller's, as getInferLibVersion() states it. A null finder takes the last one away.
void set_logger_finder(void* finder, std::int32_t version) noexcept;

//! Takes the function that returns the logger of a TensorRT found in the process.
void add_logger_source(void* (*get_logger)(), std::int32_t version) noexcept;

//! Sends `message` to the first logger there is: the finder's, that of a TensorRT found in the
//! process, or stderr for errors and warnings.
void report(Severity severity, std::string const& message) noexcept;

//! Reports an error as "vim_plugins: where: what".
void report_error(char const* where, char const* what) noexcept;

//! What `body` returns; `failure`, with a message in the log, when it throws. Every override that
//! TensorRT calls goes through here, because all of them are noexcept.
template <typename Result, typename Body>
Result guarded(char const* where, Result failure, Body&& body) noexcept {
    try {
        return body();
    } catch (std::exception const& error) {
        report_error(where, error.what());
    } catch (...) {
        report_error(where, "unknown exception");
    }
    return failure;
}

}  // namespace vim_plugins::adapters
