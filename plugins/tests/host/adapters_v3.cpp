//! \file adapters_v3.cpp
//! Drives the IPluginV3 objects as TensorRT 10 does, without TensorRT and without a GPU.
#include "adapters_v3.h"

namespace {

using namespace nvinfer1;

void check_creators() {
    for (Case const& node : all_cases()) {
        IPluginCreatorV3One& creator = creator_of(node.op);
        CHECK(std::string(creator.getPluginVersion()) == "1");
        CHECK(std::string(creator.getPluginNamespace()).empty());
        PluginFieldCollection const* fields = creator.getFieldNames();
        auto const expected = node.attributes.size() + (node.has_scale ? 1 : 0);
        CHECK(static_cast<std::size_t>(fields->nbFields) == expected);
        for (std::size_t i = 0; i < node.attributes.size(); ++i) {
            CHECK(std::string(fields->fields[i].name) == node.attributes[i].first);
            CHECK(fields->fields[i].type == PluginFieldType::kINT32);
        }
    }
}

void check_identity() {
    for (Case const& node : all_cases()) {
        Plugin const plugin(node);
        CHECK(plugin.core != nullptr && plugin.build != nullptr && plugin.runtime != nullptr);
        CHECK(std::string(plugin.core->getPluginName()) == node.op);
        CHECK(std::string(plugin.core->getPluginVersion()) == "1");
        CHECK(std::string(plugin.core->getPluginNamespace()).empty());
        CHECK(plugin.build->getNbOutputs() == 1);
        CHECK(plugin.plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(9)) ==
              nullptr);
        CHECK(logged_error("unknown plugin capability"));
    }
}

void check_output_types_and_shapes() {
    FakeExprBuilder builder;
    for (Case const& node : all_cases()) {
        Plugin const plugin(node);
        auto const shapes = node.inputs(3, 197);
        std::vector<std::vector<std::unique_ptr<FakeDimension>>> owned;
        std::vector<DimsExprs> inputs;
        std::vector<DataType> types;
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            DimsExprs dims{};
            owned.emplace_back();
            for (std::int64_t const size : shapes[i]) {
                owned.back().push_back(std::make_unique<FakeDimension>(size));
                dims.d[dims.nbDims++] = owned.back().back().get();
            }
            inputs.push_back(dims);
            types.push_back(node.is_activation[i] ? DataType::kHALF : DataType::kFLOAT);
        }
        auto const count = static_cast<std::int32_t>(inputs.size());
        DimsExprs output{};
        CHECK(plugin.build->getOutputShapes(inputs.data(), count, nullptr, 0, &output, 1,
                                            builder) == 0);
        auto const expected = node.output(3, 197);
        CHECK(output.nbDims == static_cast<std::int32_t>(expected.size()));
        for (std::int32_t d = 0; d < output.nbDims; ++d) {
            CHECK(output.d[d]->getConstantValue() == expected[static_cast<std::size_t>(d)]);
        }
        DataType type = DataType::kINT8;
        CHECK(plugin.build->getOutputDataTypes(&type, 1, types.data(), count) == 0);
        CHECK(type == DataType::kHALF);
        CHECK(logged_nothing());

        types[0] = DataType::kINT32;
        CHECK(plugin.build->getOutputDataTypes(&type, 1, types.data(), count) != 0);
        CHECK(logged_error("must have type float32"));
        CHECK(plugin.build->getOutputDataTypes(nullptr, 1, types.data(), count) != 0);
        CHECK(plugin.build->getOutputDataTypes(&type, 1, nullptr, count) != 0);
        CHECK(plugin.build->getOutputDataTypes(&type, 1, types.data(), count - 1) != 0);
        CHECK(logged_error("expected"));
        CHECK(plugin.build->getOutputShapes(nullptr, count, nullptr, 0, &output, 1, builder) != 0);
        CHECK(plugin.build->getOutputShapes(inputs.data(), count, nullptr, 0, nullptr, 1,
                                            builder) != 0);
        inputs[0].nbDims = 1;
        CHECK(plugin.build->getOutputShapes(inputs.data(), count, nullptr, 0, &output, 1,
                                            builder) != 0);
        CHECK(logged_error("cannot be told"));
    }
}

// Every type at every position, for every legal beginning: the answer, and that nothing after the
// position asked for is looked at.
void check_format_combinations() {
    for (Case const& node : all_cases()) {
        Plugin const plugin(node);
        auto tensors = describe_profile(node, DataType::kFLOAT);
        auto const count = static_cast<std::int32_t>(tensors.size()) - 1;
        for (DataType const activation : all_types()) {
            for (std::int32_t pos = 0; pos <= count; ++pos) {
                auto const at = static_cast<std::size_t>(pos);
                bool const follows = pos == count || node.is_activation[at];
                for (DataType const type : all_types()) {
                    for (auto const format :
                         {TensorFormat::kLINEAR, TensorFormat::kCHW2, TensorFormat::kHWC8}) {
                        for (std::size_t i = 0; i < tensors.size(); ++i) {
                            bool const before = i < at;
                            bool const is_t = i == tensors.size() - 1 || node.is_activation[i];
                            // What lies behind `pos` is set to what must never be accepted.
                            tensors[i].desc.type = !before ? DataType::kBOOL
                                                   : is_t  ? activation
                                                           : DataType::kFLOAT;
                            tensors[i].desc.format =
                                before ? TensorFormat::kLINEAR : TensorFormat::kCHW32;
                        }
                        tensors[at].desc.type = type;
                        tensors[at].desc.format = format;
                        bool const expected = format == TensorFormat::kLINEAR &&
                                              (pos == 0  ? is_activation_type(type)
                                               : follows ? type == activation
                                                         : type == DataType::kFLOAT);
                        CHECK(plugin.build->supportsFormatCombination(pos, tensors.data(), count,
                                                                      1) == expected);
                    }
                }
            }
        }
        CHECK(logged_nothing());
        CHECK(!plugin.build->supportsFormatCombination(0, nullptr, count, 1));
        CHECK(!plugin.build->supportsFormatCombination(-1, tensors.data(), count, 1));
        CHECK(!plugin.build->supportsFormatCombination(count + 1, tensors.data(), count, 1));
        CHECK(!plugin.build->supportsFormatCombination(0, tensors.data(), count - 1, 1));
        CHECK(logged_error("expected"));
    }
}

constexpr std::int32_t kFirstClusterTactic = 7;
constexpr std::int32_t kLastClusterTactic = 8;

void check_tactics() {
    for (bool const has_device : {true, false}) {
        launched().has_device = has_device;
        launched().has_clusters = has_device;
        for (Case const& node : all_cases()) {
            Plugin const plugin(node);
            auto const tensors = describe_profile(node, DataType::kHALF);
            auto const count = static_cast<std::int32_t>(tensors.size()) - 1;
            CHECK(plugin.build->getNbTactics() == 0);
            CHECK(plugin.build->configurePlugin(tensors.data(), count, &tensors.back(), 1) == 0);
            std::int32_t const number = plugin.build->getNbTactics();
            CHECK(number >= 1);
            std::vector<std::int32_t> ids(static_cast<std::size_t>(number));
            CHECK(plugin.build->getValidTactics(ids.data(), number) == 0);
            for (std::size_t i = 0; i < ids.size(); ++i) {
                CHECK(ids[i] > 0);
                CHECK(has_device || ids[i] < kFirstClusterTactic || ids[i] > kLastClusterTactic);
                for (std::size_t j = 0; j < i; ++j) {
                    CHECK(ids[i] != ids[j]);
                }
            }
            CHECK(plugin.build->getWorkspaceSize(tensors.data(), count, &tensors.back(), 1) <
                  std::size_t{1} << 30);
            // A shape without a profile, as while an engine runs.
            auto fixed_shape = tensors;
            auto const longest = describe_tensors(node, DataType::kHALF, 8, 256);
            for (std::size_t i = 0; i < fixed_shape.size(); ++i) {
                fixed_shape[i] = {longest[i], {}, {}, {}};
            }
            CHECK(
                plugin.build->getWorkspaceSize(fixed_shape.data(), count, &fixed_shape.back(), 1) ==
                plugin.build->getWorkspaceSize(tensors.data(), count, &tensors.back(), 1));
            std::int32_t first = 0;
            CHECK(plugin.build->getValidTactics(&first, 1) == 0);
            CHECK(first == ids[0]);
            CHECK(logged_nothing());
            fixed_shape[0].desc.dims.d[0] = -1;
            CHECK(plugin.build->getWorkspaceSize(fixed_shape.data(), count, &fixed_shape.back(),
                                                 1) == 0);
            CHECK(logged_error("no input shapes are known"));
            CHECK(plugin.build->getValidTactics(ids.data(), number + 1) != 0);
            CHECK(plugin.build->getValidTactics(nullptr, number) != 0);
            CHECK(logged_error("room for tactics"));

            // Every tactic launches, at both ends of the profile.
            Buffers const buffers(static_cast<std::size_t>(count));
            std::vector<std::max_align_t> workspace(1 << 16);
            for (std::int32_t const id : ids) {
                CHECK(plugin.runtime->setTactic(id) == 0);
                for (std::int64_t const length : {std::int64_t{1}, std::int64_t{256}}) {
                    std::int32_t const before = launched().count;
                    auto const fixed = describe_tensors(node, DataType::kHALF, 8, length);
                    CHECK(enqueue(plugin, fixed, buffers, workspace.data()) == 0);
                    CHECK(launched().count == before + 1);
                }
            }
            // One that was timed on a GPU with thread block clusters, on a GPU without: the
            // default.
            launched().has_clusters = false;
            CHECK(plugin.runtime->setTactic(kFirstClusterTactic) == 0);
            auto const fixed = describe_tensors(node, DataType::kHALF, 8, 1);
            CHECK(enqueue(plugin, fixed, buffers, workspace.data()) == 0);
            CHECK(launched().kernel.rfind("cluster", 0) != 0);
            launched().has_clusters = has_device;
            CHECK(plugin.runtime->setTactic(0) == 0);
            CHECK(logged_nothing());
            CHECK(plugin.runtime->setTactic(-1) != 0);
            CHECK(plugin.runtime->setTactic(1000) != 0);
            CHECK(logged_error("tactic"));
        }
    }
    launched().has_device = true;
    launched().has_clusters = true;
}

void check_timing_id() {
    std::vector<std::string> ids;
    for (Case const& node : all_cases()) {
        Plugin const plugin(node);
        Plugin const twin(node);
        std::string const id = plugin.build->getTimingCacheID();
        CHECK(id == twin.build->getTimingCacheID());
        CHECK(id.find("kernels=") != std::string::npos);
        CHECK(std::string(plugin.build->getMetadataString()).find(node.op) != std::string::npos);
        for (std::string const& other : ids) {
            CHECK(id != other);
        }
        ids.push_back(id);
        CHECK(plugin.build->getFormatCombinationLimit() == 100);
    }
}

// What a call returned is still there, and still the same, after others: under AddressSanitizer,
// which sees a read of what one of them freed.
void check_answers_stay() {
    for (Case const& node : all_cases()) {
        Plugin const plugin(node);
        char const* const name = plugin.core->getPluginName();
        char const* const version = plugin.core->getPluginVersion();
        char const* const place = plugin.core->getPluginNamespace();
        char const* const id = plugin.build->getTimingCacheID();
        char const* const metadata = plugin.build->getMetadataString();
        PluginFieldCollection const* const fields = plugin.runtime->getFieldsToSerialize();
        PluginField const* const first = fields->fields;
        std::string const text = id;

        auto const tensors = describe_profile(node, DataType::kHALF);
        auto const count = static_cast<std::int32_t>(tensors.size()) - 1;
        CHECK(plugin.build->configurePlugin(tensors.data(), count, &tensors.back(), 1) == 0);
        CHECK(plugin.runtime->setTactic(0) == 0);
        CHECK(plugin.build->getTimingCacheID() == text);
        CHECK(plugin.build->getMetadataString() == text);
        CHECK(plugin.runtime->getFieldsToSerialize() == fields && fields->fields == first);
        Plugin const clone(plugin.plugin->clone());
        CHECK(clone.build->getTimingCacheID() == text);
        CHECK(clone.runtime->getFieldsToSerialize() != fields);

        CHECK(std::string(name) == node.op && std::string(version) == "1");
        CHECK(std::string(place).empty() && id == text && metadata == text);
        CHECK(creator_of(node.op).getFieldNames() == creator_of(node.op).getFieldNames());
        Plugin const again(
            creator_of(node.op).createPlugin("node", fields, TensorRTPhase::kRUNTIME));
        CHECK(again.build->getTimingCacheID() == text);
    }
}

void check_serialisation_and_clones() {
    for (Case const& node : all_cases()) {
        Plugin plugin(node);
        PluginFieldCollection const* fields = plugin.runtime->getFieldsToSerialize();
        CHECK(fields != nullptr);
        Plugin const again(
            creator_of(node.op).createPlugin("node", fields, TensorRTPhase::kRUNTIME));
        Plugin const clone(plugin.plugin->clone());
        Plugin const attached(plugin.runtime->attachToContext(nullptr));
        std::string const id = plugin.build->getTimingCacheID();
        plugin.plugin.reset();  // the copies must not lean on the original
        for (Plugin const* copy : {&again, &clone, &attached}) {
            CHECK(copy->plugin != nullptr);
            CHECK(id == copy->build->getTimingCacheID());
            auto const count = node.is_activation.size();
            Buffers const buffers(count);
            std::vector<std::max_align_t> workspace(1 << 16);
            auto const tensors = describe_tensors(node, DataType::kBF16, 2, 197);
            CHECK(copy->runtime->onShapeChange(tensors.data(), static_cast<std::int32_t>(count),
                                               &tensors.back(), 1) == 0);
            CHECK(enqueue(*copy, tensors, buffers, workspace.data()) == 0);
            CHECK(launched().output == buffers.outputs()[0]);
            CHECK(reads_its_inputs(node, buffers, 2));
            CHECK(launched().stream == reinterpret_cast<void*>(7));
            CHECK(launched().batch == 2 && launched().length == 197 && launched().channels == 64);
            CHECK(launched().kernel.find("bf16") != std::string::npos);
            CHECK(launched().reverse_only == (std::string(node.op) == "VimSelectiveScan") ||
                  std::string(node.op) == "VimBiCausalConv");
            CHECK(!node.has_scale || launched().scale == 0.5F);
        }
        CHECK(logged_nothing());
    }
}

}  // namespace

int main(int argc, char** argv) {
    return run_harness(argc, argv,
                       {{"creators", check_creators},
                        {"identity", check_identity},
                        {"output types and shapes", check_output_types_and_shapes},
                        {"format combinations", check_format_combinations},
                        {"tactics", check_tactics},
                        {"timing cache id", check_timing_id},
                        {"answers stay", check_answers_stay},
                        {"serialisation and clones", check_serialisation_and_clones},
                        {"bad attributes", check_bad_attributes},
                        {"bad shapes", check_bad_shapes},
                        {"bad calls", check_bad_calls}});
}
