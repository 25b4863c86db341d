//! \file ort_engine.cpp
//! Opening an ONNX file: what it says and holds is judged before ONNX Runtime is given it.
#include "ort_engine.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <limits>
#include <utility>

#include "description.h"
#include "file.h"
#include "guard.h"
#include "log.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace vim_deploy {
namespace {

// protobuf's limit of one message; larger models have their weights beside them.
constexpr std::size_t kMaxOnnxBytes = 2'147'483'647;
// For a size that the caller chooses.
constexpr std::int64_t kAnySize = std::numeric_limits<std::int32_t>::max();
// Entry of a session that native ops read when they are registered (plugins/onnxruntime).
constexpr char const* kOpsThreads = "vim_deploy.intra_op_num_threads";

// Entry of a session for files in int8 and fp8, and why: runtimes/onnxruntime/quantized.py and
// runtimes/processor.py.
constexpr char const* kAsItIs = "session.disable_quant_qdq";

struct ElementType {
    int element;
    DataType type;
};
constexpr ElementType kTypes[] = {
    {ort::kElementFloat, DataType::kFloat32},     {ort::kElementFloat16, DataType::kFloat16},
    {ort::kElementBFloat16, DataType::kBfloat16}, {ort::kElementInt8, DataType::kInt8},
    {ort::kElementInt32, DataType::kInt32},       {ort::kElementInt64, DataType::kInt64},
    {ort::kElementUint8, DataType::kUint8},       {ort::kElementBool, DataType::kBool}};

Status check_options(std::string const& path, EngineOptions const& options) {
    if (!options.plugin_library.empty() || options.allow_embedded_code) {
        return Error{"VIM-203", "an option of engines was given for the ONNX file " + path,
                     "ONNX Runtime runs it on the CPU, which takes no plugins of TensorRT",
                     "leave plugin_library and allow_embedded_code away, or open an engine"};
    }
    if (options.threads < 0 || (!options.native_ops && !options.ops_library.empty())) {
        return Error{"VIM-203", "options contradict each other for " + path,
                     "threads is below 0, or a library of native ops is named and none is wanted",
                     "leave one of them away"};
    }
    return Done{};
}

Result<TensorInfo> info_of(std::string const& path, OnnxValue const& value) {
    auto const type = type_of_element(value.element);
    if (!type) {
        return Error{"VIM-415", path + " has a tensor that this library does not pass on",
                     value.name + " is of ONNX's type " + std::to_string(value.element),
                     "export the model with --io-precision fp32"};
    }
    return TensorInfo{value.name, *type, value.shape};
}

// Whether sums of int8 products may be wrong in ONNX Runtime's kernels for this processor: it has
// neither AVX512-VNNI nor AVX-VNNI. Bits as in Intel's manual, volume 2A (CPUID).
bool saturates() {
#if defined(__x86_64__)
    constexpr unsigned kAvx512Vnni = 1U << 11;  // leaf 7.0, ECX
    constexpr unsigned kAvxVnni = 1U << 4;      // leaf 7.1, EAX
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c & kAvx512Vnni) != 0) {
        return false;
    }
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a & kAvxVnni) == 0;
#else
    return false;
#endif
}

// A model's words may be long, and go over several lines.
std::string first_line(std::string const& text) {
    return text.substr(0, text.find('\n'));
}

}  // namespace

int element_of(DataType type) noexcept {
    return std::find_if(std::begin(kTypes), std::end(kTypes),
                        [type](ElementType const& item) { return item.type == type; })
        ->element;
}

std::optional<DataType> type_of_element(std::uint64_t element) noexcept {
    for (ElementType const& item : kTypes) {
        if (static_cast<std::uint64_t>(item.element) == element) {
            return item.type;
        }
    }
    return std::nullopt;
}

Status OrtEngine::read_tensors(OnnxFile const& file) {
    std::vector<TensorInfo> inputs;
    for (auto const& [from, to] : {std::pair(&file.inputs, &inputs),
                                   std::pair(&file.outputs, &outputs)}) {
        for (OnnxValue const& value : *from) {
            auto info = info_of(path, value);
            if (!info) {
                return info.error();
            }
            to->push_back(std::move(info).value());
        }
    }
    std::string const flaw = sort_inputs(std::move(inputs));
    if (!flaw.empty()) {
        return Error{"VIM-415", path + " is not a file of pictures", flaw,
                     "give a model made by vim-deploy export"};
    }
    ProfileRange range{input.shape, input.shape, input.shape};
    std::replace(range.min.begin(), range.min.end(), std::int64_t{-1}, std::int64_t{1});
    range.opt = range.min;
    std::replace(range.max.begin(), range.max.end(), std::int64_t{-1}, kAnySize);
    profiles.push_back(std::move(range));
    return Done{};
}

Status OrtEngine::make(std::vector<char> const& bytes, bool has_files_beside,
                       std::string const& ops, int threads) {
    OrtApi const* const api = runtime->api;
    auto const refused = [&](std::string const& words) {
        return Error{"VIM-409", "ONNX Runtime " + runtime->version + " does not load " + path,
                     first_line(words), "export the model again with --opset 18"};
    };
    OrtSessionOptions* raw_options = nullptr;
    std::string words = words_of(api, ort::CreateSessionOptions(api)(&raw_options));
    if (!words.empty()) {
        return refused(words);
    }
    OwnedOptions const options(raw_options, {api});
    auto const chosen = chosen_severity();
    int const level = chosen ? 4 - static_cast<int>(*chosen) : ort::kLogFatal;
    words = words_of(api, ort::SetSessionLogSeverityLevel(api)(raw_options, level));
    if (words.empty()) {
        words = words_of(api, ort::SetIntraOpNumThreads(api)(raw_options, threads));
    }
    // Of a file without quantized products the entry changes nothing.
    if (words.empty() && (saturates() || (exported && exported->precision == "fp8"))) {
        words = words_of(api, ort::AddSessionConfigEntry(api)(raw_options, kAsItIs, "1"));
    }
    if (words.empty() && !ops.empty()) {
        if (threads != 0) {
            // ONNX Runtime does not tell ops how many threads there are.
            words = words_of(api, ort::AddSessionConfigEntry(api)(
                                      raw_options, kOpsThreads, std::to_string(threads).c_str()));
        }
        if (words.empty()) {
            words = words_of(api,
                             ort::RegisterCustomOpsLibrary_V2(api)(raw_options, ops.c_str()));
        }
    }
    if (!words.empty()) {
        return refused(words);
    }
    OrtSession* made = nullptr;
    // Of a file whose weights lie beside it, ONNX Runtime has to know the folder.
    words = words_of(
        api, has_files_beside
                 ? ort::CreateSession(api)(runtime->env, path.c_str(), raw_options, &made)
                 : ort::CreateSessionFromArray(api)(runtime->env, bytes.data(), bytes.size(),
                                                    raw_options, &made));
    if (!words.empty()) {
        return refused(words);
    }
    session = OwnedSession(made, {api});
    return Done{};
}

Status OrtEngine::load(std::vector<char> const& bytes, OnnxFile const& file,
                       EngineOptions const& options) {
    auto const loaded = load_onnxruntime(options.onnxruntime);
    if (!loaded) {
        return loaded.error();
    }
    runtime = *loaded;
    NativeOps ops;
    if (file.announces_ops && options.native_ops) {
        auto found = find_native_ops(options);
        if (!found) {
            return found.error();
        }
        ops = std::move(found).value();
    } else if (!options.ops_library.empty()) {
        return Error{"VIM-203", path + " takes no native ops",
                     "it holds standard operators only (export --standalone)",
                     "leave the library away, or export the model without --standalone"};
    }
    bool const beside = !file.outside.empty();
    auto made = make(bytes, beside, ops.path, options.threads);
    if (!made.ok() && !ops.path.empty() && options.ops_library.empty()) {
        ops = {"", "", made.error().why};
        made = make(bytes, beside, "", options.threads);
    }
    if (!ops.why.empty()) {
        notes.push_back("native ops not used, the functions in the file are: " + ops.why);
    }
    runs_with = "ONNX Runtime " + runtime->version + " CPU";
    runs_with += ops.path.empty() ? "" : ", " + ops.title;
    return made;
}

OpenedEngine open_onnx(std::string const& path, EngineOptions const& options) {
    VIM_DEPLOY_TRY(check_options(path, options));
    auto const bytes = read_file(path, "ONNX model", "VIM-409", kMaxOnnxBytes);
    if (!bytes) {
        return bytes.error();
    }
    auto const file = parse_onnx({bytes->data(), bytes->size()}, path);
    if (!file) {
        return file.error();
    }
    auto const impl = std::make_shared<OrtEngine>();
    impl->path = path;
    auto described = describe_onnx(*file, path);
    if (described) {
        impl->exported = std::move(described).value();
    } else if (!options.allow_missing_record) {
        return described.error();
    }
    VIM_DEPLOY_TRY(impl->read_tensors(*file));
    VIM_DEPLOY_TRY(check_outside(*file, path));
    VIM_DEPLOY_TRY(impl->load(*bytes, *file, options));
    return std::shared_ptr<Engine::Impl const>(impl);
}

}  // namespace vim_deploy
