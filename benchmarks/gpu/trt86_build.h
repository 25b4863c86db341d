//! \file trt86_build.h
//! trt86_run's first command: an engine from an ONNX file.
#pragma once

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "trt86_support.h"

namespace {

bool without_precision(LayerType type) {
    static std::set<LayerType> const kinds{LayerType::kCONSTANT,   LayerType::kCAST,
                                           LayerType::kIDENTITY,   LayerType::kQUANTIZE,
                                           LayerType::kDEQUANTIZE, LayerType::kSHAPE,
                                           LayerType::kTRIP_LIMIT, LayerType::kRECURRENCE,
                                           LayerType::kITERATOR,   LayerType::kLOOP_OUTPUT,
                                           LayerType::kCONDITION,  LayerType::kCONDITIONAL_INPUT,
                                           LayerType::kPLUGIN,     LayerType::kCONDITIONAL_OUTPUT,
                                           LayerType::kPLUGIN_V2};
    return kinds.count(type) != 0;
}

//! As runtimes/tensorrt/worker.py: half only where all float outputs are half in the graph.
int constrain(INetworkDefinition& network, std::string const& path) {
    std::map<std::string, std::string> types;
    auto const content = bytes_of(path);
    std::istringstream text(std::string(content.begin(), content.end()));
    for (std::string name, type; text >> name >> type;) {
        need(type == "float16" || type == "float32", path + ": " + type + " is not a type");
        types[name] = type;
    }
    int constrained = 0;
    for (int i = 0; i < network.getNbLayers(); ++i) {
        ILayer& layer = *network.getLayer(i);
        bool known = !without_precision(layer.getType()) && layer.getNbOutputs() > 0;
        bool half = true;
        for (int o = 0; known && o < layer.getNbOutputs(); ++o) {
            ITensor const& tensor = *layer.getOutput(o);
            DataType const type = tensor.getType();
            auto const asked = types.find(tensor.getName());
            known = asked != types.end() && (type == DataType::kFLOAT || type == DataType::kHALF);
            half = half && known && asked->second == "float16";
        }
        if (!known) {
            continue;
        }
        layer.setPrecision(half ? DataType::kHALF : DataType::kFLOAT);
        for (int o = 0; o < layer.getNbOutputs(); ++o) {
            bool const wide = types[layer.getOutput(o)->getName()] == "float32";
            layer.setOutputType(o, wide ? DataType::kFLOAT : DataType::kHALF);
        }
        ++constrained;
    }
    return constrained;
}

//! Plugin layers by type, as a JSON object; fails when they are not those that were asked for.
std::string plugins_of(INetworkDefinition const& network, std::string const& asked) {
    std::map<std::string, int> found;
    std::map<std::string, int> wanted;
    for (int i = 0; i < network.getNbLayers(); ++i) {
        ILayer* layer = network.getLayer(i);
        if (layer->getType() == LayerType::kPLUGIN_V2) {
            ++found[static_cast<IPluginV2Layer*>(layer)->getPlugin().getPluginType()];
        }
    }
    for (std::string const& part : parts(asked)) {
        std::size_t const equals = part.find('=');
        if (equals == std::string::npos) {
            usage("--plugins " + part + ": write OP=COUNT");
        }
        wanted[part.substr(0, equals)] = whole("plugins", part.substr(equals + 1), 0, 1 << 16);
    }
    std::string text;
    for (auto const& [name, count] : found) {
        text += (text.empty() ? "" : ", ") + quoted(name) + ": " + std::to_string(count);
    }
    need(found == wanted, "plugin layers are {" + text + "}, asked was " + asked);
    return "{" + text + "}";
}

int build(std::string const& model, std::string const& plan, Options const& options) {
    double const began = now();
    auto const image = three(options, "shape");
    auto const batches = three(options, "batches");
    int const level = whole("level", get(options, "level", "3"), 0, 5);
    require_gpu();
    open_plugin(options);
    std::unique_ptr<IBuilder> const builder(createInferBuilder(logger));
    need(builder != nullptr, "TensorRT made no builder");
    auto const batch_flag = static_cast<int>(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
    std::unique_ptr<INetworkDefinition> const network(builder->createNetworkV2(1U << batch_flag));
    std::unique_ptr<nvonnxparser::IParser> const parser(
        nvonnxparser::createParser(*network, logger));
    need(network != nullptr && parser != nullptr, "TensorRT made no network or parser");
    int const warnings = static_cast<int>(ILogger::Severity::kWARNING);
    bool const parsed = parser->parseFromFile(model.c_str(), warnings);
    std::string said;
    for (int i = 0; i < parser->getNbErrors(); ++i) {
        said += std::string("; ") + parser->getError(i)->desc();
    }
    need(parsed, "the parser refused " + model + said);
    need(network->getNbInputs() == 1, "the model has more than one input");
    std::string const plugins = plugins_of(*network, get(options, "plugins"));
    std::unique_ptr<IBuilderConfig> const config(builder->createBuilderConfig());
    config->setProfilingVerbosity(ProfilingVerbosity::kDETAILED);
    config->clearFlag(BuilderFlag::kTF32);
    config->setTacticSources(1U << static_cast<int>(TacticSource::kEDGE_MASK_CONVOLUTIONS));
    config->setBuilderOptimizationLevel(level);
    int constrained = 0;
    if (get(options, "fp16") == "true") {
        config->setFlag(BuilderFlag::kFP16);
        if (options.count("types") != 0) {
            config->setFlag(BuilderFlag::kOBEY_PRECISION_CONSTRAINTS);
            constrained = constrain(*network, options.at("types"));
        }
    }
    IOptimizationProfile& profile = *builder->createOptimizationProfile();
    char const* input = network->getInput(0)->getName();
    bool fits = profile.setDimensions(input, OptProfileSelector::kMIN, shape(batches[0], image));
    fits = profile.setDimensions(input, OptProfileSelector::kOPT, shape(batches[1], image)) && fits;
    fits = profile.setDimensions(input, OptProfileSelector::kMAX, shape(batches[2], image)) && fits;
    need(fits && config->addOptimizationProfile(&profile) >= 0, "the batches do not fit the model");
    std::string const timings = get(options, "timings");
    std::vector<char> known;
    if (!timings.empty() && std::ifstream(timings)) {
        known = bytes_of(timings);
    }
    std::unique_ptr<ITimingCache> const cache(
        config->createTimingCache(known.data(), known.size()));
    // Without it a build takes longer, and is right.
    bool const cached = cache != nullptr && config->setTimingCache(*cache, false);
    std::unique_ptr<IHostMemory> const made(builder->buildSerializedNetwork(*network, *config));
    need(made != nullptr, "the build failed");
    write(plan, made->data(), made->size());
    if (cached && !timings.empty()) {
        std::unique_ptr<IHostMemory> const measured(cache->serialize());
        need(measured != nullptr, "the timing cache was not serialised");
        write(timings, measured->data(), measured->size());
    }
    std::printf(
        "{\"built\": %s, \"seconds\": %.1f, \"bytes\": %zu, \"network_layers\": %d, "
        "\"constrained_layers\": %d, \"plugins\": %s, \"trt_errors\": %d}\n",
        quoted(plan).c_str(), now() - began, made->size(), network->getNbLayers(), constrained,
        plugins.c_str(), logger.errors);
    return 0;
}

}  // namespace
