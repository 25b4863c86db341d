//! \file ort_library.cpp
#include "ort_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>

#include "file.h"
#include "guard.h"
#include "json.h"
#include "log.h"

namespace vim_deploy {
namespace {

namespace fs = std::filesystem;

constexpr char const* kRuntimeName = "libonnxruntime.so";
constexpr char const* kGetRuntime =
    "python3 -m pip install --no-deps --target DIR onnxruntime and name DIR in "
    "EngineOptions::onnxruntime or VIM_DEPLOY_ONNXRUNTIME; or put the library beside the program, or "
    "install the system's (Debian: libonnxruntime1.21 or later)";

Error no_runtime(std::string const& why) {
    return {"VIM-301", "ONNX Runtime is not to be had", why, kGetRuntime};
}

std::string last_problem() {
    char const* text = ::dlerror();
    return text == nullptr ? "the loader gave no reason" : text;
}

// Libraries of ONNX Runtime in a folder: of itself, an archive of Microsoft's, a wheel that was
// unpacked or installed there. `libonnxruntime.so` and with a version; not those of its providers.
std::string runtime_in(std::string const& folder) {
    for (char const* inner : {"", "lib", "capi", "onnxruntime/capi"}) {
        std::error_code ignored;
        std::vector<std::string> found;
        for (auto const& entry : fs::directory_iterator(fs::path(folder) / inner, ignored)) {
            std::string const name = entry.path().filename().string();
            std::string const rest = name.substr(0, std::string(kRuntimeName).size());
            bool const versioned = name.size() == rest.size() || name[rest.size()] == '.';
            if (rest == kRuntimeName && versioned && is_file(entry.path().string())) {
                found.push_back(entry.path().string());
            }
        }
        if (!found.empty()) {
            return *std::max_element(found.begin(), found.end());
        }
    }
    return "";
}

// What is named: a file, or a folder that holds one.
Result<std::string> named_runtime(std::string const& named) {
    std::error_code ignored;
    if (!fs::is_directory(named, ignored)) {
        VIM_DEPLOY_TRY(require_file(named, "ONNX Runtime's library"));
        return named;
    }
    std::string found = runtime_in(named);
    if (found.empty()) {
        return Error{"VIM-401", "ONNX Runtime's library not found: " + named,
                     "no libonnxruntime.so in the folder, nor in lib, capi or onnxruntime/capi "
                     "below it; wheels have one from 1.19 on",
                     kGetRuntime};
    }
    return found;
}

std::string variable(char const* name) {
    char const* const value = std::getenv(name);
    return value == nullptr ? "" : value;
}

// The file to open; a name without a slash is for the loader to look for. Empty: it finds none.
Result<std::string> place_of_runtime(std::string const& named) {
    std::string const chosen = named.empty() ? variable(kRuntimeVariable) : named;
    if (!chosen.empty()) {
        return named_runtime(chosen);
    }
    std::string const beside = program_folder();
    // Never the folder that somebody works in.
    return beside.empty() ? "" : runtime_in(beside);
}

Severity severity_of(int level) noexcept {
    // Verbose, info, warning, error, fatal.
    return static_cast<Severity>(std::clamp(4 - level, 0, 4));
}

void pass_on(void*, int level, char const*, char const*, char const*, char const* message) {
    log_message(severity_of(level), "ONNX Runtime", message);
}

Result<OnnxRuntime> start(void* handle, std::string const& place) {
    using GetBase = ort::ApiBase const* (*)();
    auto const get_base = reinterpret_cast<GetBase>(::dlsym(handle, "OrtGetApiBase"));
    if (get_base == nullptr) {
        return no_runtime(place + " is no ONNX Runtime: " + last_problem());
    }
    OnnxRuntime runtime;
    runtime.version = get_base()->GetVersionString();
    runtime.api = get_base()->GetApi(ort::kApiVersion);
    if (runtime.api == nullptr) {
        return no_runtime(place + " is ONNX Runtime " + runtime.version +
                          ", and 1.17 or later is needed");
    }
    // What is said of a file comes as an error; everything else is for who asks for it (set_log).
    std::string const words = words_of(
        runtime.api, ort::CreateEnvWithCustomLogger(runtime.api)(pass_on, nullptr, ort::kLogFatal,
                                                                 "vim_deploy", &runtime.env));
    if (!words.empty()) {
        return no_runtime(place + " does not start: " + words);
    }
    static_cast<void>(
        words_of(runtime.api, ort::DisableTelemetryEvents(runtime.api)(runtime.env)));
    return runtime;
}

Result<OnnxRuntime> open_runtime(std::string const& place) {
    // From 1.29 on its Linux builds send names of models and hashes of weights to Microsoft, unless
    // this is set when they are loaded; who wants that sets it to 0.
    ::setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    std::vector<std::string> names{place};
    if (place.empty()) {
        names = {"libonnxruntime.so.1", kRuntimeName};
    }
    std::string why;
    for (std::string const& name : names) {
        // A path without a slash would be looked for in the system's folders.
        std::string const file = place.empty() ? name : fs::absolute(name).string();
        // Never closed: sessions may outlive everything that is known here.
        void* const handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (handle != nullptr) {
            return start(handle, name);
        }
        why += (why.empty() ? "" : "; ") + last_problem();
    }
    return no_runtime(place.empty() ? "none was named, none lies beside the program, and the loader "
                                      "finds none: " + why
                                    : why);
}

Error no_ops(std::string const& path, std::string const& why) {
    return {"VIM-417", "not a library of native ops: " + path, why,
            "build one with vim-deploy plugin build --target onnxruntime"};
}

// What a library says of itself, without ONNX Runtime.
Result<NativeOps> ops_of(std::string const& path) {
    VIM_DEPLOY_TRY(require_file(path, "library of native ops"));
    std::string const place = fs::absolute(path).string();
    void* const handle = ::dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        return no_ops(path, last_problem());
    }
    auto const contract = reinterpret_cast<std::int32_t (*)()>(
        ::dlsym(handle, "vim_plugins_contract_version"));
    auto const info =
        reinterpret_cast<char const* (*)()>(::dlsym(handle, "vim_plugins_build_info"));
    if (contract == nullptr || info == nullptr || ::dlsym(handle, "RegisterCustomOps") == nullptr) {
        return no_ops(path, last_problem());
    }
    auto const said = Json::parse(info());
    auto const text = [&said](char const* key) {
        Json const* const value = said ? said->find(key) : nullptr;
        return value != nullptr && value->kind() == Json::Kind::kText ? value->text() : "";
    };
    std::string const provider = text("provider");
    if (contract() != kContractVersion || provider != "cpu") {
        return Error{"VIM-903", path + " does not fit this program",
                     "its ops follow contract " + std::to_string(contract()) + ", for " +
                         (provider.empty() ? "no provider" : provider) + "; expected " +
                         std::to_string(kContractVersion) + ", for cpu",
                     "build it again: vim-deploy plugin build --target onnxruntime"};
    }
    std::string const set = text("instruction_set");
    return NativeOps{place, "native ops" + (set.empty() ? "" : " (" + set + ")"), ""};
}

}  // namespace

std::string program_folder() {
    std::error_code error;
    auto const program = fs::read_symlink("/proc/self/exe", error);
    return error ? "" : program.parent_path().string();
}

Result<OnnxRuntime const*> load_onnxruntime(std::string const& named) {
    // Opened libraries, for as long as the process lives.
    static std::mutex mutex;
    static auto& opened = *new std::map<std::string, OnnxRuntime>;
    std::lock_guard<std::mutex> const lock(mutex);
    auto const place = place_of_runtime(named);
    if (!place) {
        return place.error();
    }
    auto const known = opened.find(*place);
    if (known != opened.end()) {
        return &known->second;
    }
    auto runtime = open_runtime(*place);
    if (!runtime) {
        return runtime.error();
    }
    return &opened.emplace(*place, std::move(runtime).value()).first->second;
}

Result<NativeOps> find_native_ops(EngineOptions const& options) {
    if (!options.ops_library.empty()) {
        return ops_of(options.ops_library);
    }
    char const* const named = std::getenv(kOpsVariable);
    std::string path = named == nullptr ? program_folder() : named;
    std::error_code ignored;
    if (!path.empty() && fs::is_directory(path, ignored)) {
        path = (fs::path(path) / kOpsLibraryName).string();
    }
    if (path.empty() || (named == nullptr && !is_file(path))) {
        return NativeOps{};
    }
    auto found = ops_of(path);
    if (!found) {
        return NativeOps{"", "", found.error().message + ": " + found.error().why};
    }
    return found;
}

}  // namespace vim_deploy
