//! \file trt86_support.h
//! What both commands of trt86_run use: the command line, files, JSON and failures.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace nvinfer1;

std::string quoted(std::string const& text) {
    std::string out = "\"";
    for (char const c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char code[8];
            std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
            out += code;
        } else {
            out += c;
        }
    }
    return out + '"';
}

class Log : public ILogger {
  public:
    void log(Severity severity, char const* text) noexcept override {
        if (severity <= Severity::kERROR) {
            ++errors;
            last = text;
        }
        if (severity <= Severity::kWARNING) {
            std::fprintf(stderr, "[%d] %s\n", static_cast<int>(severity), text);
        }
    }
    int errors = 0;
    std::string last;
} logger;

//! Ends at once: engines and memory are still held, and the libraries' own ends may wait for them.
[[noreturn]] void fail(std::string const& what) {
    std::printf("{\"error\": %s, \"trt_errors\": %d}\n", quoted(what).c_str(), logger.errors);
    std::fflush(nullptr);
    std::_Exit(1);
}

void need(bool good, std::string const& what) {
    if (!good) {
        fail(logger.last.empty() ? what : what + ": " + logger.last);
    }
}

void cuda(cudaError_t status, char const* what) {
    if (status != cudaSuccess) {
        fail(std::string(what) + ": " + cudaGetErrorString(status));
    }
}

[[noreturn]] void usage(std::string const& what) {
    std::fprintf(stderr, "%s\nusage: trt86_run build MODEL.onnx PLAN OPTIONS | run PLAN OPTIONS\n",
                 what.c_str());
    std::exit(2);
}

//! Options by name, as the command line gave them: each has a value.
using Options = std::map<std::string, std::string>;

std::string get(Options const& options, std::string const& name, std::string const& other = "") {
    auto const found = options.find(name);
    return found == options.end() ? other : found->second;
}

std::vector<std::string> parts(std::string const& text) {
    std::vector<std::string> found;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) {
        found.push_back(part);
    }
    return found;
}

std::int32_t whole(std::string const& name, std::string const& text, long low, long high) {
    char* end = nullptr;
    long const value = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || value < low || value > high) {
        usage("--" + name + " " + text + ": not a whole number from " + std::to_string(low) +
              " to " + std::to_string(high));
    }
    return static_cast<std::int32_t>(value);
}

std::vector<std::int32_t> three(Options const& options, std::string const& name) {
    std::vector<std::int32_t> found;
    for (std::string const& part : parts(get(options, name))) {
        found.push_back(whole(name, part, 1, 1 << 16));
    }
    if (found.size() != 3) {
        usage("--" + name + " takes three numbers");
    }
    return found;
}

Dims4 shape(std::int32_t batch, std::vector<std::int32_t> const& image) {
    return Dims4(batch, image[0], image[1], image[2]);
}

std::vector<char> bytes_of(std::string const& path) {
    std::ifstream file(path, std::ios::binary);
    need(bool(file), "cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

//! Under a name of its own first, so that no reader and no later call meets half a file.
void write(std::string const& path, void const* data, std::size_t size) {
    std::string const part = path + ".part";
    std::ofstream file(part, std::ios::binary);
    file.write(static_cast<char const*>(data), static_cast<std::streamsize>(size));
    file.close();
    need(bool(file) && std::rename(part.c_str(), path.c_str()) == 0, "cannot write " + path);
}

double now() {
    auto const since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(since).count();
}

void require_gpu() {
    int number = 0;
    cuda(cudaGetDeviceCount(&number), "no GPU");
    need(number > 0, "no GPU");
}

//! The library's ops register themselves with TensorRT when it is opened.
void open_plugin(Options const& options) {
    std::string const path = get(options, "plugin");
    if (!path.empty() && dlopen(path.c_str(), RTLD_NOW) == nullptr) {
        fail(dlerror());
    }
}

}  // namespace
