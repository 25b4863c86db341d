//! \file logging.cpp
#include "logging.h"

#include <cstdio>
#include <mutex>

#include "abi.h"

namespace vim_plugins::adapters {
namespace {

struct Sources {
    std::mutex mutex;
    void* finder = nullptr;
    std::int32_t finder_version = 0;
    void* (*get_logger)() = nullptr;
    std::int32_t get_logger_version = 0;
};

// Never destroyed: TensorRT may log through a plugin while the process ends.
Sources& sources() {
    static auto* instance = new Sources;
    return *instance;
}

struct Logger {
    void* object = nullptr;
    std::int32_t version = 0;
};

// The finder is TensorRT's own code and not declared noexcept.
Logger current_logger() {
    Sources& all = sources();
    std::lock_guard<std::mutex> const lock(all.mutex);
    Logger logger;
    if (all.finder != nullptr) {
        using FindLogger = void* (*)(void*);
        int const slot = abi_slots(all.finder_version).find_logger;
        logger.object = virtual_function<FindLogger>(all.finder, slot)(all.finder);
        logger.version = all.finder_version;
    }
    if (logger.object == nullptr && all.get_logger != nullptr) {
        logger.object = all.get_logger();
        logger.version = all.get_logger_version;
    }
    return logger;
}

void write(Severity severity, std::string const& message) {
    Logger const logger = current_logger();
    if (logger.object != nullptr) {
        using Log = void (*)(void*, std::int32_t, char const*);
        int const slot = abi_slots(logger.version).log;
        virtual_function<Log>(logger.object, slot)(
            logger.object, static_cast<std::int32_t>(severity), message.c_str());
    } else if (severity <= Severity::kWarning) {
        std::fprintf(stderr, "%s\n", message.c_str());
    }
}

}  // namespace

void set_logger_finder(void* finder, std::int32_t version) noexcept {
    guarded("setLoggerFinder", 0, [finder, version] {
        Sources& all = sources();
        std::lock_guard<std::mutex> const lock(all.mutex);
        all.finder = finder;
        all.finder_version = version;
        return 0;
    });
}

void add_logger_source(void* (*get_logger)(), std::int32_t version) noexcept {
    guarded("add_logger_source", 0, [get_logger, version] {
        Sources& all = sources();
        std::lock_guard<std::mutex> const lock(all.mutex);
        if (all.get_logger == nullptr) {
            all.get_logger = get_logger;
            all.get_logger_version = version;
        }
        return 0;
    });
}

void report(Severity severity, std::string const& message) noexcept {
    try {
        write(severity, message);
    } catch (...) {
        std::fputs("vim_plugins: a message was lost: the logger failed\n", stderr);
    }
}

void report_error(char const* where, char const* what) noexcept {
    try {
        report(Severity::kError, std::string("vim_plugins: ") + where + ": " + what);
    } catch (...) {
        std::fputs("vim_plugins: out of memory while reporting an error\n", stderr);
    }
}

}  // namespace vim_plugins::adapters
