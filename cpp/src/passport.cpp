//! \file passport.cpp
#include "passport.h"

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <initializer_list>

#include "cuda_raii.h"
#include "sha256.h"

namespace vim_deploy {
namespace {

// The fields that trtexec of TensorRT 10 reads (vim_deploy/artifact/engine_file.py): magic, a zero, at
// byte 24 major, minor, patch and build.
constexpr std::size_t kHeaderBytes = 36;
constexpr std::size_t kVersionByte = 24;
constexpr char const* kBuildAgain = "build the engine again: vim-deploy build-engine MODEL.onnx";

std::string dotted(std::vector<int> const& parts) {
    std::string text;
    for (int const part : parts) {
        text += (text.empty() ? "" : ".") + std::to_string(part);
    }
    return text;
}

// The numbers of `10.14.1.48`; what does not begin with a number ends the list.
std::vector<int> parse_version(std::string const& text) {
    std::vector<int> parts;
    std::size_t at = 0;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0) {
        int part = 0;
        while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0) {
            part = std::min(part * 10 + (text[at++] - '0'), 1'000'000);
        }
        parts.push_back(part);
        at += at < text.size() && text[at] == '.' ? 1 : 0;
    }
    return parts;
}

Error not_an_engine(std::string const& path, std::string const& why) {
    return {"VIM-413", path + " is not a readable engine", why, kBuildAgain};
}

Error made_for_rtx(std::string const& path) {
    return {"VIM-901", path + " was built for TensorRT-RTX, this program runs TensorRT",
            "the two do not read each other's engines",
            "build it for TensorRT: vim-deploy build-engine MODEL.onnx --runtime tensorrt, or give "
            "the ONNX file to trtexec"};
}

Status check_header(std::string const& path, std::vector<char> const& plan) {
    if (plan.empty()) {
        return not_an_engine(path, "the file is empty");
    }
    std::string const magic(plan.data(), std::min<std::size_t>(4, plan.size()));
    if (magic == "vtrt") {
        return made_for_rtx(path);
    }
    if (magic != "ftrt") {
        return not_an_engine(path, "it does not begin with an engine's mark");
    }
    if (plan.size() < kHeaderBytes) {
        return not_an_engine(path, "it is truncated: " + std::to_string(plan.size()) +
                                       " bytes are less than a header");
    }
    return Done{};
}

Status check_identity(std::string const& path, std::vector<char> const& plan,
                      FileIdentity const& recorded, bool check_hash) {
    std::string why;
    if (plan.size() != static_cast<std::size_t>(recorded.bytes)) {
        why = "the engine has " + std::to_string(plan.size()) + " bytes, the record says " +
              std::to_string(recorded.bytes);
    } else if (check_hash) {
        std::string const hash = sha256_hex(plan.data(), plan.size());
        if (hash != recorded.sha256) {
            why = "the engine's SHA-256 is " + hash + ", the record's " + recorded.sha256;
        }
    }
    if (why.empty()) {
        return Done{};
    }
    return Error{"VIM-902", path + ".json is not the record of " + path, why,
                 "copy both files again, or build the engine again with --force"};
}

Error other_version(std::string const& path, std::string const& built, std::string const& here) {
    return {
        "VIM-901", path + " was built by TensorRT " + built + ", this program runs " + here,
        "an engine runs on the very version that built it",
        "build the engine with TensorRT " + here + ", or run this program with TensorRT " + built};
}

bool same_release(std::vector<int> const& one, std::vector<int> const& other) {
    return one.size() >= 3 && other.size() >= 3 &&
           std::equal(one.begin(), one.begin() + 3, other.begin());
}

Status check_version(std::string const& path, std::vector<char> const& plan,
                     EngineRecord const* record) {
    std::vector<int> const here = version_parts(getInferLibVersion());
    if (record != nullptr) {
        if (record->runtime == "tensorrt-rtx") {
            return made_for_rtx(path);
        }
        if (record->stripped) {
            return not_an_engine(path, "it was built without weights, to be refitted first");
        }
        auto const built = parse_version(record->runtime_version);
        bool const later = record->version_compatible && built < here;
        if (!later && !same_release(built, here)) {
            return other_version(path, record->runtime_version, dotted(here));
        }
    }
    // Where the version stands in plans of TensorRT 8 has not been verified.
    if (here.front() < 10) {
        return Done{};
    }
    std::vector<int> header;
    for (std::size_t i = 0; i < 4; ++i) {
        header.push_back(static_cast<unsigned char>(plan[kVersionByte + i]));
    }
    bool const recorded = record != nullptr;
    if (same_release(header, recorded ? parse_version(record->runtime_version) : here)) {
        return Done{};
    }
    if (recorded) {
        return Error{"VIM-902", path + ".json is not the record of " + path,
                     "the engine's header says TensorRT " + dotted(header) + ", the record " +
                         record->runtime_version,
                     "copy both files again, or build the engine again with --force"};
    }
    return other_version(path, dotted(header), dotted(here));
}

}  // namespace

std::vector<int> version_parts(std::int32_t number) {
    int const unit = number < 10000 ? 1000 : 10000;
    return {number / unit, number % unit / 100, number % 100};
}

std::string tensorrt_version() {
    return dotted(version_parts(getInferLibVersion()));
}

Status check_plan(std::string const& path, std::vector<char> const& plan,
                  EngineRecord const* record, bool check_hash) {
    auto status = check_header(path, plan);
    if (status.ok() && record != nullptr) {
        status = check_identity(path, plan, record->plan, check_hash);
    }
    return status.ok() ? check_version(path, plan, record) : status;
}

Status check_device(std::string const& path, EngineRecord const* record, int device) {
    int count = 0;
    cudaError_t const found = cudaGetDeviceCount(&count);
    if (found != cudaSuccess || device < 0 || device >= count) {
        auto const why = found == cudaSuccess
                             ? "device " + std::to_string(device) + " of " + std::to_string(count)
                             : cuda_error(found, "counting devices").why;
        return Error{"VIM-302", "no usable GPU", why,
                     "run it on a machine with an NVIDIA GPU and a driver that fits this CUDA "
                     "version"};
    }
    int major = 0;
    int minor = 0;
    for (auto const& [attribute, value] : {std::pair(cudaDevAttrComputeCapabilityMajor, &major),
                                           std::pair(cudaDevAttrComputeCapabilityMinor, &minor)}) {
        auto const status = cudaDeviceGetAttribute(value, attribute, device);
        if (status != cudaSuccess) {
            return cuda_error(status, "asking for the compute capability");
        }
    }
    // A record that names no GPU leaves the question to TensorRT.
    if (record == nullptr || record->compute_capabilities.empty()) {
        return Done{};
    }
    std::vector<int> const here{major, minor};
    bool newer_than_all = record->later_gpus;
    std::string built;
    for (std::string const& capability : record->compute_capabilities) {
        if (parse_version(capability) == here) {
            return Done{};
        }
        newer_than_all = newer_than_all && parse_version(capability) < here;
        built += (built.empty() ? "" : ", ") + capability;
    }
    if (newer_than_all) {
        return Done{};
    }
    return Error{"VIM-901",
                 path + " was built for compute capability " + built +
                     (record->later_gpus ? " and later" : "") + ", this GPU is " + dotted(here),
                 "an engine runs on the GPUs it was built for",
                 "build the engine on this GPU, or for it"};
}

// The texts are those that vim_deploy/runtimes/tensorrt/errors.py knows, in lower case.
Error deserialise_error(std::string const& path, std::string const& log, bool has_plugin) {
    std::string low = log;
    std::transform(low.begin(), low.end(), low.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    auto const says = [&low](std::initializer_list<char const*> texts) {
        return std::any_of(texts.begin(), texts.end(), [&low](char const* text) {
            return low.find(text) != std::string::npos;
        });
    };
    if (says({"cudaerror 35", "driver version is insufficient", "no cuda-capable device"})) {
        return {"VIM-302", "no usable GPU for " + path, log,
                "run it on a machine with an NVIDIA GPU and a driver for this CUDA version"};
    }
    if (says({"hostcodeallowed", "leanstubs"})) {
        return {"VIM-203", path + " carries code of its own, which was not allowed to run", log,
                "set EngineOptions::allow_embedded_code if you trust the engine like a program"};
    }
    if (says({"expecting library version", "version tag does not match",
              "incompatible serialization version", "incompatible device", "compute capability",
              "version of tensorrt"})) {
        return {"VIM-901", path + " does not fit this TensorRT or GPU", log, kBuildAgain};
    }
    if (says({"find plugin", "plugin registry", "plugin not found"})) {
        return {"VIM-903", path + " needs plugins that this process does not have", log,
                has_plugin ? "build the plugin library again with the tool that made the engine: "
                             "vim-deploy plugin build"
                           : std::string("put ") + kPluginLibraryName +
                                 " beside the engine, or name it in EngineOptions::plugin_library"};
    }
    if (says({"out of memory", "outofmemory", "bad_alloc", "cudaerrormemoryallocation",
              "requested amount of gpu memory"})) {
        return {"VIM-906", "not enough GPU memory: loading " + path, log,
                "free GPU memory, or build with a smaller --max-batch"};
    }
    return not_an_engine(path, log);
}

}  // namespace vim_deploy
