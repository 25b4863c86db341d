//! \file v2_creator.cpp
//! The creators and the entry points of the library for TensorRT 8.6.
#include "v2_creator.h"

#include <memory>

#include "attributes.h"
#include "creators.h"
#include "logging.h"
#include "v2_fields.h"
#include "v2_plugin.h"

namespace vim_plugins::adapters {

template <typename Params>
V2Creator<Params>::V2Creator()
    : name_(describe(Params{}).name), fields_(announce_attributes(describe(Params{}))) {
    collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
}

template <typename Params>
nvinfer1::IPluginV2* V2Creator<Params>::make(nvinfer1::PluginFieldCollection const* fields) const {
    auto plugin = std::make_unique<V2Plugin<Params>>(OpNode<Params>(fields));
    plugin->setPluginNamespace(namespace_.c_str());
    return plugin.release();
}

template <typename Params>
nvinfer1::IPluginV2* V2Creator<Params>::createPlugin(
    char const*, nvinfer1::PluginFieldCollection const* fields) noexcept {
    return guarded<nvinfer1::IPluginV2*>("createPlugin", nullptr, [&] { return make(fields); });
}

template <typename Params>
nvinfer1::IPluginV2* V2Creator<Params>::deserializePlugin(char const*, void const* serialData,
                                                          std::size_t serialLength) noexcept {
    return guarded<nvinfer1::IPluginV2*>("deserializePlugin", nullptr, [&] {
        UnpackedFields const fields(serialData, serialLength);
        return make(fields.collection());
    });
}

template <typename Params>
void V2Creator<Params>::setPluginNamespace(char const* pluginNamespace) noexcept {
    guarded("setPluginNamespace", 0, [&] {
        namespace_ = pluginNamespace == nullptr ? "" : pluginNamespace;
        return 0;
    });
}

#define VIM_PLUGINS_INSTANTIATE(Name, c_name) template class V2Creator<Name##Params>;
VIM_PLUGINS_OPS(VIM_PLUGINS_INSTANTIATE)
#undef VIM_PLUGINS_INSTANTIATE

namespace {

using CreatorList = std::vector<nvinfer1::IPluginCreator*>;

// Never destroyed: a registry may hold the creators until the process ends.
CreatorList const& creators() {
#define VIM_PLUGINS_CREATOR(Name, c_name) new V2Creator<Name##Params>,
    static auto const* list = new CreatorList{VIM_PLUGINS_OPS(VIM_PLUGINS_CREATOR)};
#undef VIM_PLUGINS_CREATOR
    return *list;
}

}  // namespace

std::vector<void*> creator_objects() {
    CreatorList const& list = creators();
    return {list.begin(), list.end()};
}

}  // namespace vim_plugins::adapters

//! TensorRT's loadLibrary() asks for the creators here.
extern "C" nvinfer1::IPluginCreator* const* getPluginCreators(std::int32_t& nbCreators) noexcept {
    using namespace vim_plugins::adapters;
    void const* caller = __builtin_return_address(0);
    return guarded<nvinfer1::IPluginCreator* const*>("getPluginCreators", nullptr, [&] {
        CreatorList const& list = creators();
        hand_over_to(caller);
        nbCreators = static_cast<std::int32_t>(list.size());
        return list.data();
    });
}

//! TensorRT's loadLibrary() hands the way to its logger over here.
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept {
    vim_plugins::adapters::take_logger_finder(finder, __builtin_return_address(0));
}
