//! \file trt86_run.cpp
//! TensorRT 8.6 without Python, whose bindings of that release end at 3.10: builds an engine from
//! an ONNX file, and runs one.
//!
//!     trt86_run build MODEL.onnx PLAN --shape C,H,W --batches MIN,OPT,MAX [--plugin LIBRARY]
//!               [--plugins OP=COUNT,...] [--fp16 true] [--types FILE] [--level 0..5]
//!               [--timings FILE]
//!     trt86_run run PLAN --shape C,H,W --batch B [--plugin LIBRARY] [--in RAW] [--out PREFIX]
//!               [--layers FILE] [--seconds 2]
//!
//! Each prints one JSON object; the exit code is 0, 1 with {"error": ...}, or 2 for a wrong command
//! line. MODEL has one float32 input, a batch of images. FILE of --types has a line "tensor
//! float16|float32" for each tensor: layers get these precisions and must obey them, as vim-deploy
//! build-engine does with this release; without it TensorRT chooses among those that --fp16 allows.
//! --plugins says which plugin layers the network must have, before minutes go into its build. TF32
//! is off, and so are tactics of cuBLAS, cuDNN and NVRTC, which are libraries of their own.
//! RAW holds the input's float32 numbers; without it they are made from a fixed seed. Each output
//! goes to PREFIX-NAME.raw in the engine's type. --layers writes what the engine's inspector says.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <set>

#include "trt86_build.h"
#include "trt86_support.h"

namespace {

//! A plan has a header of TensorRT's; anything shorter was cut off.
constexpr std::size_t kSmallestPlan = 36;
constexpr std::size_t kFewestCalls = 10;

struct Io {
    std::string name;
    DataType type;
    Dims dims;
    std::size_t bytes;
    void* device;
};

std::size_t width_of(DataType type) {
    switch (type) {
        case DataType::kFLOAT:
        case DataType::kINT32:
            return 4;
        case DataType::kHALF:
            return 2;
        default:
            fail("a tensor of the engine is neither float32, float16 nor int32");
    }
}

//! Gives every input and output its memory; outputs begin as NaN, so that one that is not written
//! shows.
std::vector<Io> bind(ICudaEngine const& engine, IExecutionContext& context, Dims const& images) {
    std::vector<Io> tensors;
    for (int i = 0; i < engine.getNbIOTensors(); ++i) {
        char const* name = engine.getIOTensorName(i);
        bool const is_input = engine.getTensorIOMode(name) == TensorIOMode::kINPUT;
        DataType const type = engine.getTensorDataType(name);
        if (is_input) {
            need(type == DataType::kFLOAT, std::string(name) + " is no float32 input");
            need(context.setInputShape(name, images), "the engine does not take this shape");
        }
        tensors.insert(is_input ? tensors.begin() : tensors.end(), Io{name, type, {}, 0, nullptr});
    }
    need(tensors.size() > 1 &&
             engine.getTensorIOMode(tensors[1].name.c_str()) == TensorIOMode::kOUTPUT,
         "the engine has more than one input, or no output");
    for (Io& io : tensors) {
        io.dims = context.getTensorShape(io.name.c_str());
        io.bytes = width_of(io.type);
        for (int i = 0; i < io.dims.nbDims; ++i) {
            need(io.dims.d[i] > 0, "the shape of " + io.name + " is not known");
            io.bytes *= static_cast<std::size_t>(io.dims.d[i]);
        }
        cuda(cudaMalloc(&io.device, io.bytes), "memory of a tensor");
        need(context.setTensorAddress(io.name.c_str(), io.device), "an address is refused");
    }
    return tensors;
}

std::vector<char> input_of(Options const& options, std::size_t bytes) {
    if (options.count("in") != 0) {
        std::vector<char> given = bytes_of(options.at("in"));
        need(given.size() >= bytes, options.at("in") + " holds " + std::to_string(given.size()) +
                                        " bytes, the input has " + std::to_string(bytes));
        given.resize(bytes);
        return given;
    }
    std::vector<char> made(bytes);
    auto* numbers = reinterpret_cast<float*>(made.data());
    std::uint32_t seed = 1;
    for (std::size_t i = 0; i < bytes / sizeof(float); ++i) {
        seed = seed * 1664525U + 1013904223U;
        numbers[i] = static_cast<float>(seed >> 8) / 8388608.0F - 1.0F;
    }
    return made;
}

std::string percentiles(std::vector<float> ms) {
    std::sort(ms.begin(), ms.end());
    auto const at = [&](std::size_t percent) { return ms[(ms.size() - 1) * percent / 100]; };
    char text[160];
    std::snprintf(text, sizeof text,
                  "{\"p10_ms\": %.4f, \"p50_ms\": %.4f, \"p90_ms\": %.4f, \"p99_ms\": %.4f, "
                  "\"calls\": %zu}",
                  static_cast<double>(at(10)), static_cast<double>(at(50)),
                  static_cast<double>(at(90)), static_cast<double>(at(99)), ms.size());
    return text;
}

//! Single calls between two events, by enqueueV3 or, where `graph` is not null, by its replay.
std::string timed(IExecutionContext& context, cudaStream_t stream, cudaGraphExec_t graph,
                  double seconds) {
    cudaEvent_t start = nullptr;
    cudaEvent_t stop = nullptr;
    cuda(cudaEventCreateWithFlags(&start, cudaEventDefault), "an event");
    cuda(cudaEventCreateWithFlags(&stop, cudaEventDefault), "an event");
    std::vector<float> ms;
    for (double const end = now() + seconds; now() < end || ms.size() < kFewestCalls;) {
        cuda(cudaEventRecord(start, stream), "recording");
        if (graph == nullptr) {
            need(context.enqueueV3(stream), "TensorRT did not run the engine");
        } else {
            cuda(cudaGraphLaunch(graph, stream), "replaying");
        }
        cuda(cudaEventRecord(stop, stream), "recording");
        cuda(cudaEventSynchronize(stop), "running the engine");
        float took = 0;
        cuda(cudaEventElapsedTime(&took, start, stop), "timing");
        ms.push_back(took);
    }
    cuda(cudaEventDestroy(start), "an event");
    cuda(cudaEventDestroy(stop), "an event");
    return percentiles(ms);
}

std::string timed_graph(IExecutionContext& context, cudaStream_t stream, double seconds) {
    cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a capture");
    bool const enqueued = context.enqueueV3(stream);
    cudaGraph_t graph = nullptr;
    cudaError_t const ended = cudaStreamEndCapture(stream, &graph);
    if (!enqueued || ended != cudaSuccess) {
        static_cast<void>(cudaGetLastError());
        if (graph != nullptr) {
            cuda(cudaGraphDestroy(graph), "a graph");
        }
        std::string const why = enqueued ? cudaGetErrorString(ended) : logger.last;
        return "{\"error\": " + quoted("not captured: " + why) + "}";
    }
    cudaGraphExec_t replayed = nullptr;
    cuda(cudaGraphInstantiateWithFlags(&replayed, graph, 0), "making a graph");
    std::string const text = timed(context, stream, replayed, seconds);
    cuda(cudaGraphExecDestroy(replayed), "a graph");
    cuda(cudaGraphDestroy(graph), "a graph");
    return text;
}

std::string outputs_of(std::vector<Io> const& tensors, cudaStream_t stream,
                       std::string const& prefix) {
    std::string text;
    for (std::size_t i = 1; i < tensors.size(); ++i) {
        Io const& io = tensors[i];
        std::string dims;
        for (int k = 0; k < io.dims.nbDims; ++k) {
            dims += (k == 0 ? "" : ", ") + std::to_string(io.dims.d[k]);
        }
        text += (text.empty() ? "" : ", ") + quoted(io.name) + ": {\"shape\": [" + dims + "]";
        if (!prefix.empty()) {
            std::vector<char> host(io.bytes);
            cuda(cudaMemcpyAsync(host.data(), io.device, io.bytes, cudaMemcpyDeviceToHost, stream),
                 "copying an output");
            cuda(cudaStreamSynchronize(stream), "copying an output");
            std::string name = io.name;
            std::replace(name.begin(), name.end(), '/', '_');
            std::string const path = prefix + "-" + name + ".raw";
            write(path, host.data(), host.size());
            text += ", \"file\": " + quoted(path);
        }
        text += "}";
    }
    return text;
}

void write_layers(ICudaEngine const& engine, Options const& options) {
    if (options.count("layers") == 0) {
        return;
    }
    std::unique_ptr<IEngineInspector> const inspector(engine.createEngineInspector());
    need(inspector != nullptr, "TensorRT made no inspector");
    std::string const text = inspector->getEngineInformation(LayerInformationFormat::kJSON);
    write(options.at("layers"), text.data(), text.size());
}

int run(std::string const& plan, Options const& options) {
    auto const image = three(options, "shape");
    auto const batch = whole("batch", get(options, "batch"), 1, 1 << 16);
    double const seconds = whole("seconds", get(options, "seconds", "2"), 0, 600) / 2.0;
    require_gpu();
    open_plugin(options);
    auto const content = bytes_of(plan);
    need(content.size() > kSmallestPlan, plan + " is cut off");
    cuda(cudaSetDevice(0), "starting CUDA");
    std::size_t before = 0;
    std::size_t after = 0;
    std::size_t total = 0;
    cuda(cudaMemGetInfo(&before, &total), "reading the free memory");
    std::unique_ptr<IRuntime> const runtime(createInferRuntime(logger));
    need(runtime != nullptr, "TensorRT made no runtime");
    std::unique_ptr<ICudaEngine> const engine(
        runtime->deserializeCudaEngine(content.data(), content.size()));
    need(engine != nullptr, plan + " does not load");
    write_layers(*engine, options);
    // With memory of our own, whose size is then known exactly.
#if NV_TENSORRT_MAJOR >= 10
    std::unique_ptr<IExecutionContext> const context(
        engine->createExecutionContext(ExecutionContextAllocationStrategy::kUSER_MANAGED));
    auto const scratch = static_cast<std::size_t>(engine->getDeviceMemorySizeV2());
#else
    std::unique_ptr<IExecutionContext> const context(
        engine->createExecutionContextWithoutDeviceMemory());
    std::size_t const scratch = engine->getDeviceMemorySize();
#endif
    need(context != nullptr, "TensorRT made no context");
    void* room = nullptr;
    cuda(cudaMalloc(&room, std::max<std::size_t>(scratch, 1)), "the engine's working memory");
#if NV_TENSORRT_MAJOR >= 10
    context->setDeviceMemoryV2(room, static_cast<std::int64_t>(scratch));
#else
    context->setDeviceMemory(room);
#endif
    std::vector<Io> const tensors = bind(*engine, *context, shape(batch, image));
    cudaStream_t stream = nullptr;
    cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    auto const given = input_of(options, tensors[0].bytes);
    cuda(cudaMemcpyAsync(tensors[0].device, given.data(), given.size(), cudaMemcpyHostToDevice,
                         stream),
         "sending the input");
    std::vector<std::vector<char>> poison;
    for (std::size_t i = 1; i < tensors.size(); ++i) {
        poison.emplace_back(tensors[i].bytes, '\xff');
        cuda(cudaMemcpyAsync(tensors[i].device, poison.back().data(), tensors[i].bytes,
                             cudaMemcpyHostToDevice, stream),
             "preparing an output");
    }
    need(context->enqueueV3(stream), "TensorRT did not run the engine");
    cuda(cudaStreamSynchronize(stream), "running the engine");
    cuda(cudaMemGetInfo(&after, &total), "reading the free memory");
    std::string const outputs = outputs_of(tensors, stream, get(options, "out"));
    std::string const enqueued = timed(*context, stream, nullptr, seconds);
    std::string const replayed = timed_graph(*context, stream, seconds);
    std::printf(
        "{\"plan\": %s, \"batch\": %d, \"plan_bytes\": %zu, \"scratch_bytes\": %zu, "
        "\"taken_bytes\": %zu, \"outputs\": {%s}, \"enqueue\": %s, \"graph\": %s, "
        "\"trt_errors\": %d}\n",
        quoted(plan).c_str(), batch, content.size(), scratch, before > after ? before - after : 0,
        outputs.c_str(), enqueued.c_str(), replayed.c_str(), logger.errors);
    for (Io const& io : tensors) {
        cuda(cudaFree(io.device), "giving memory back");
    }
    cuda(cudaFree(room), "giving memory back");
    cuda(cudaStreamDestroy(stream), "a stream");
    return 0;
}

Options options_of(int count, char** words, std::set<std::string> const& known) {
    Options options;
    for (int i = 0; i < count; i += 2) {
        std::string const word = words[i];
        if (word.rfind("--", 0) != 0 || known.count(word.substr(2)) == 0) {
            usage(word + " is no option here");
        }
        if (i + 1 == count) {
            usage(word + " wants a value");
        }
        options[word.substr(2)] = words[i + 1];
    }
    return options;
}

}  // namespace

int main(int count, char** words) {
    std::string const command = count > 1 ? words[1] : "";
    if (command == "build" && count > 3) {
        return build(words[2], words[3],
                     options_of(count - 4, words + 4,
                                {"shape", "batches", "plugin", "plugins", "fp16", "types", "level",
                                 "timings"}));
    }
    if (command == "run" && count > 2) {
        return run(words[2],
                   options_of(count - 3, words + 3,
                              {"shape", "batch", "plugin", "in", "out", "layers", "seconds"}));
    }
    usage("a command and its files are missing");
}
