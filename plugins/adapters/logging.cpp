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
    Generation finder_generation = Generation::kUnknown;
    void* (*get_logger)() = nullptr;
    Generation get_logger_generation = Generation::kUnknown;
};

// Never destroyed: TensorRT may log through a plugin while the process ends.
Sources& sources() {
    static auto* instance = new Sources;
    return *instance;
}

struct Logger {
    void* object = nullptr;
    Generation generation = Generation::kUnknown;
};

// The finder is TensorRT's own code and not declared noexcept.
Logger current_logger() {
    Sources& all = sources();
    std::lock_guard<std::mutex> const lock(all.mutex);
    Logger logger;
    if (all.finder != nullptr) {
        using FindLogger = void* (*)(void*);
        int const slot = abi_slots(all.finder_generation).find_logger;
        logger.object = virtual_function<FindLogger>(all.finder, slot)(all.finder);
        logger.generation = all.finder_generation;
    }
    if (logger.object == nullptr && all.get_logger != nullptr) {
        logger.object = all.get_logger();
        logger.generation = all.get_logger_generation;
    }
    return logger;
}

void write(Severity severity, std::string const& message) {
    Logger const logger = current_logger();
    if (logger.object != nullptr) {
        using Log = void (*)(void*, std::int32_t, char const*);
        int const slot = abi_slots(logger.generation).log;
        virtual_function<Log>(logger.object, slot)(
            logger.object, static_cast<std::int32_t>(severity), message.c_str());
    } else if (severity <= Severity::kWarning) {
        std::fprintf(stderr, "%s\n", message.c_str());
    }
}

}  // namespace

void set_logger_finder(void* finder, Generation generation) noexcept {
    guarded("setLoggerFinder", 0, [finder, generation] {
        Sources& all = sources();
        std::lock_guard<std::mutex> const lock(all.mutex);
        all.finder = finder;
        all.finder_generation = generation;
        return 0;
    });
}

void add_logger_source(void* (*get_logger)(), Generation generation) noexcept {
    guarded("add_logger_source", 0, [get_logger, generation] {
        Sources& all = sources();
        std::lock_guard<std::mutex> const lock(all.mutex);
        if (all.get_logger == nullptr) {
            all.get_logger = get_logger;
            all.get_logger_generation = generation;
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
