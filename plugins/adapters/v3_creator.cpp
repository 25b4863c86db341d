//! \file v3_creator.cpp
//! The creators and the entry points of the library for TensorRT 10 and 11.
#include "v3_creator.h"

#include "attributes.h"
#include "creators.h"
#include "logging.h"
#include "v3_plugin.h"

namespace vim_plugins::adapters {

template <typename Params>
V3Creator<Params>::V3Creator()
    : name_(describe(Params{}).name), fields_(announce_attributes(describe(Params{}))) {
    collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
}

template <typename Params>
nvinfer1::IPluginV3* V3Creator<Params>::createPlugin(char const*,
                                                     nvinfer1::PluginFieldCollection const* fields,
                                                     nvinfer1::TensorRTPhase) noexcept {
    return guarded<nvinfer1::IPluginV3*>(
        "createPlugin", nullptr, [fields] { return new V3Plugin<Params>(OpNode<Params>(fields)); });
}

#define VIM_PLUGINS_INSTANTIATE(Name, c_name) template class V3Creator<Name##Params>;
VIM_PLUGINS_OPS(VIM_PLUGINS_INSTANTIATE)
#undef VIM_PLUGINS_INSTANTIATE

namespace {

using CreatorList = std::vector<nvinfer1::IPluginCreatorInterface*>;

// Never destroyed: a registry may hold the creators until the process ends.
CreatorList const& creators() {
#define VIM_PLUGINS_CREATOR(Name, c_name) new V3Creator<Name##Params>,
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
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(
    std::int32_t& nbCreators) noexcept {
    using namespace vim_plugins::adapters;
    void const* caller = __builtin_return_address(0);
    return guarded<nvinfer1::IPluginCreatorInterface* const*>("getCreators", nullptr, [&] {
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
