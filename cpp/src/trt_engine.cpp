//! \file trt_engine.cpp
//! Opening an engine: the checks in order, then TensorRT, then what it holds.
#include <algorithm>
#include <utility>

#include "cuda_raii.h"
#include "file.h"
#include "guard.h"
#include "logger.h"
#include "passport.h"
#include "sha256.h"
#include "trt_engine.h"

namespace vim_deploy {
namespace {

// Plans of Vim are 10 to 500 MB; a path given by mistake should not fill the memory.
constexpr std::size_t kMaxPlanBytes = std::size_t{16} << 30U;

Result<std::optional<EngineRecord>> find_record(std::string const& path, bool may_be_missing) {
    if (may_be_missing && !is_file(path + ".json")) {
        return std::optional<EngineRecord>();
    }
    auto record = read_record(path);
    if (!record) {
        Error error = record.error();
        if (error.code == "VIM-401") {
            error.fix =
                "copy it with the engine; for a plan that vim-deploy did not build, set "
                "EngineOptions::allow_missing_record";
        }
        return error;
    }
    return std::optional<EngineRecord>(std::move(record).value());
}

// The library beside the engine that it was built with; the very one, by its hash.
Result<std::string> recorded_library(std::string const& plan_path, RecordedPlugin const& plugin) {
    std::string const path = folder_of(plan_path) + plugin.name;
    Error error{"VIM-903", plan_path + " needs the plugin library " + plugin.name, "",
                "put the library it was built with beside it, or name one in "
                "EngineOptions::plugin_library"};
    bool const plain = plugin.name.find('/') == std::string::npos;
    auto const bytes = plain ? read_file(path, "plugin library", "VIM-903", kMaxPlanBytes)
                             : Result<std::vector<char>>(error);
    if (!bytes) {
        error.why = plain ? bytes.error().why : "the record names no file beside it";
        return error;
    }
    std::string const hash = sha256_hex(bytes->data(), bytes->size());
    if (hash != plugin.sha256) {
        error.why = path + " has the SHA-256 " + hash + ", the record says " + plugin.sha256;
        return error;
    }
    return path;
}

// Loads the library that is named or recorded, or the one beside the engine. False: there is none.
Result<bool> find_plugin(std::string const& plan_path, EngineRecord const* record,
                         EngineOptions const& options) {
    bool const recorded = record != nullptr && record->plugin;
    if (recorded && record->plugin->contract_version != kContractVersion) {
        return Error{"VIM-903",
                     plan_path + " was built with plugins of contract " +
                         std::to_string(record->plugin->contract_version),
                     "this program has contract " + std::to_string(kContractVersion),
                     "build the engine again, or this program with the library of that release"};
    }
    std::string path = options.plugin_library;
    if (path.empty() && recorded && !record->plugin->embedded) {
        auto const found = recorded_library(plan_path, *record->plugin);
        if (!found) {
            return found.error();
        }
        path = *found;
    }
    if (path.empty()) {
        path = folder_of(plan_path) + kPluginLibraryName;
        if (!is_file(path)) {
            return false;
        }
    }
    VIM_DEPLOY_TRY(load_plugin(path));
    return true;
}

Error cannot_run(std::string const& path, std::string const& why) {
    return {"VIM-413", path + " is not an engine that this library runs", why,
            "use an engine of pictures, made by vim-deploy build-engine"};
}

Error not_its_record(std::string const& path, std::string const& why) {
    return {"VIM-902", path + ".json does not describe the engine", why,
            "put back the record that was written with the engine, or build it again with --force"};
}

std::string describe(std::string const& name, std::string const& type, Shape const& shape) {
    return name + ": " + type + " " + text_of(shape);
}

// Empty when the tensors are the recorded ones, in any order.
std::string difference(std::vector<TensorInfo> const& found,
                       std::vector<RecordedTensor> const& recorded) {
    if (found.size() != recorded.size()) {
        return "the engine has " + std::to_string(found.size()) + ", the record " +
               std::to_string(recorded.size());
    }
    for (TensorInfo const& tensor : found) {
        auto const same = std::find_if(recorded.begin(), recorded.end(), [&](auto const& other) {
            return other.name == tensor.name && other.dtype == name_of(tensor.type) &&
                   other.shape == tensor.shape;
        });
        if (same == recorded.end()) {
            return "the record has no " + describe(tensor.name, name_of(tensor.type), tensor.shape);
        }
    }
    return "";
}

}  // namespace

Shape shape_of(nvinfer1::Dims const& dims) {
    return Shape(dims.d, dims.d + std::max(dims.nbDims, 0));
}

nvinfer1::Dims dims_of(Shape const& shape) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    for (std::size_t i = 0; i < shape.size() && i < std::size_t{nvinfer1::Dims::MAX_DIMS}; ++i) {
        dims.d[i] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(shape[i]);
    }
    return dims;
}

std::optional<DataType> type_of(nvinfer1::DataType type) noexcept {
    switch (type) {
        case nvinfer1::DataType::kFLOAT:
            return DataType::kFloat32;
        case nvinfer1::DataType::kHALF:
            return DataType::kFloat16;
        case nvinfer1::DataType::kINT8:
            return DataType::kInt8;
        case nvinfer1::DataType::kINT32:
            return DataType::kInt32;
        case nvinfer1::DataType::kBOOL:
            return DataType::kBool;
        case nvinfer1::DataType::kUINT8:
            return DataType::kUint8;
#if NV_TENSORRT_MAJOR >= 10
        case nvinfer1::DataType::kBF16:
            return DataType::kBfloat16;
        case nvinfer1::DataType::kINT64:
            return DataType::kInt64;
#endif
        default:
            return std::nullopt;
    }
}

TensorRtEngine::~TensorRtEngine() {
    DeviceScope const scope(device);
    engine.reset();
    runtime.reset();
}

Status TensorRtEngine::load(std::vector<char> const& plan, EngineOptions const& options,
                          bool has_plugin) {
    LogCapture const log;
    runtime.reset(nvinfer1::createInferRuntime(tensorrt_logger()));
    // Where CUDA does not start, lean runtimes of 10.15 to 11.4 log errors and give a pointer that
    // is not null and leads to nothing.
    if (runtime == nullptr || !log.text("").empty()) {
        static_cast<void>(runtime.release());
        return Error{"VIM-901", "TensorRT does not start", log.text("it gave no reason"),
                     "check that TensorRT, CUDA and the driver fit together"};
    }
    runtime->setEngineHostCodeAllowed(options.allow_embedded_code);
    engine.reset(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    if (engine == nullptr) {
        static_cast<void>(cudaGetLastError());
        return deserialise_error(path, log.text("TensorRT gave no reason"), has_plugin);
    }
    return Done{};
}

Status TensorRtEngine::read_tensors() {
    std::vector<TensorInfo> inputs;
    for (std::int32_t i = 0; i < engine->getNbIOTensors(); ++i) {
        char const* name = engine->getIOTensorName(i);
        auto const type = type_of(engine->getTensorDataType(name));
        Shape const shape = shape_of(engine->getTensorShape(name));
        if (!type || engine->getTensorLocation(name) != nvinfer1::TensorLocation::kDEVICE ||
            engine->getTensorFormat(name) != nvinfer1::TensorFormat::kLINEAR) {
            return cannot_run(path, std::string(name) + " is not a dense array on the device");
        }
        if (engine->getTensorIOMode(name) == nvinfer1::TensorIOMode::kOUTPUT) {
            outputs.push_back({name, *type, shape});
        } else {
            inputs.push_back({name, *type, shape});
        }
    }
    std::string const flaw = sort_inputs(std::move(inputs));
    return flaw.empty() ? Status(Done{}) : Status(cannot_run(path, flaw));
}

Status TensorRtEngine::read_profiles() {
    // A fixed shape is its own profile.
    if (std::all_of(input.shape.begin(), input.shape.end(), [](auto side) { return side >= 0; })) {
        profiles.push_back({input.shape, input.shape, input.shape});
        return Done{};
    }
    for (std::int32_t i = 0; i < engine->getNbOptimizationProfiles(); ++i) {
        auto const shape = [&](nvinfer1::OptProfileSelector which) {
            return shape_of(engine->getProfileShape(input.name.c_str(), i, which));
        };
        profiles.push_back({shape(nvinfer1::OptProfileSelector::kMIN),
                            shape(nvinfer1::OptProfileSelector::kOPT),
                            shape(nvinfer1::OptProfileSelector::kMAX)});
        if (profiles.back().max.size() != input.shape.size() ||
            bytes_of(input.type, profiles.back().max) == 0) {
            return cannot_run(path, "its profile " + std::to_string(i) + " has no shapes");
        }
        for (auto const which :
             {nvinfer1::OptProfileSelector::kMIN, nvinfer1::OptProfileSelector::kMAX}) {
            Shape const wanted = shape_of_sizes(shape(which));
            if (size && shape_of(engine->getProfileShape(kSizeInput, i, which)) != wanted) {
                return cannot_run(path, "its profile " + std::to_string(i) +
                                            " takes other batches of sizes than of pictures");
            }
        }
    }
    return profiles.empty() ? Status(cannot_run(path, "it has no profile")) : Status(Done{});
}

Status TensorRtEngine::check_against_record() const {
    if (!record) {
        return Done{};
    }
    std::vector<TensorInfo> inputs{input};
    if (size) {
        inputs.push_back(*size);
    }
    for (auto const& [kind, found] : {std::pair("inputs", difference(inputs, record->inputs)),
                                      std::pair("outputs", difference(outputs, record->outputs))}) {
        if (!found.empty()) {
            return not_its_record(path, std::string(kind) + ": " + found);
        }
    }
    bool same = record->profiles.size() == profiles.size();
    for (std::size_t i = 0; same && i < profiles.size(); ++i) {
        auto const& ranges = record->profiles[i];
        same = ranges.size() == inputs.size() &&
               std::any_of(ranges.begin(), ranges.end(), [&](RecordedRange const& range) {
                   return range.input == input.name && range.min == profiles[i].min &&
                          range.max == profiles[i].max;
               });
    }
    if (!same) {
        return not_its_record(path, "the engine's profiles take other shapes");
    }
    if (record->exported) {
        Shape const prepared = prepared_shape(*record->exported);
        if (!std::equal(prepared.begin() + 1, prepared.end(), input.shape.begin() + 1,
                        input.shape.end())) {
            return not_its_record(path, "pictures are prepared as " + text_of(prepared) + ", " +
                                            describe(input.name, name_of(input.type), input.shape));
        }
    }
    return Done{};
}

OpenedEngine open_tensorrt(std::string const& path, EngineOptions const& options) {
    if (!options.ops_library.empty() || !options.onnxruntime.empty() || options.threads != 0) {
        return Error{"VIM-203", "an option of ONNX files was given for the engine " + path,
                     "TensorRT runs it, with the kernels inside it or of its plugin library",
                     "leave ops_library, onnxruntime and threads away, or open the ONNX file"};
    }
    auto const plan = read_file(path, "engine", "VIM-413", kMaxPlanBytes);
    if (!plan) {
        return plan.error();
    }
    auto record = find_record(path, options.allow_missing_record);
    if (!record) {
        return record.error();
    }
    EngineRecord const* known = record->has_value() ? &record->value() : nullptr;
    VIM_DEPLOY_TRY(check_plan(path, *plan, known, options.check_hash));
    VIM_DEPLOY_TRY(check_device(path, known, options.device));
    DeviceScope const scope(options.device);
    VIM_DEPLOY_TRY(scope.status());
    auto const has_plugin = find_plugin(path, known, options);
    if (!has_plugin) {
        return has_plugin.error();
    }
    auto const impl = std::make_shared<TensorRtEngine>();
    impl->path = path;
    impl->device = options.device;
    impl->record = std::move(record).value();
    impl->exported = impl->record ? impl->record->exported : std::nullopt;
    impl->runs_with = "TensorRT " + tensorrt_version();
    VIM_DEPLOY_TRY(impl->load(*plan, options, *has_plugin));
    VIM_DEPLOY_TRY(impl->read_tensors());
    VIM_DEPLOY_TRY(impl->read_profiles());
    VIM_DEPLOY_TRY(impl->check_against_record());
    return std::shared_ptr<Engine::Impl const>(impl);
}

}  // namespace vim_deploy
