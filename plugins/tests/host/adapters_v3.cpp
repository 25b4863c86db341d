//! \file adapters_v3.cpp
//! Drives the IPluginV3 objects as TensorRT 10 does, without TensorRT and without a GPU.
#include "adapters_harness.h"

namespace {

using namespace nvinfer1;

IPluginCreatorV3One& creator_of(char const* op) {
    auto* creator = dynamic_cast<IPluginCreatorV3One*>(registry().getCreator(op, "1", ""));
    if (creator == nullptr) {
        std::printf("FAILED no creator for %s\n", op);
        std::exit(1);
    }
    return *creator;
}

// A plugin with its three capabilities.
struct Plugin {
    explicit Plugin(IPluginV3* object) : plugin(object) {
        if (object != nullptr) {
            core = static_cast<IPluginV3OneCore*>(
                object->getCapabilityInterface(PluginCapabilityType::kCORE));
            build = static_cast<IPluginV3OneBuild*>(
                object->getCapabilityInterface(PluginCapabilityType::kBUILD));
            runtime = static_cast<IPluginV3OneRuntime*>(
                object->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
        }
    }
    explicit Plugin(Case const& node)
        : Plugin(creator_of(node.op).createPlugin("node", Fields(node).collection(),
                                                  TensorRTPhase::kBUILD)) {}

    std::unique_ptr<IPluginV3> plugin;
    IPluginV3OneCore* core = nullptr;
    IPluginV3OneBuild* build = nullptr;
    IPluginV3OneRuntime* runtime = nullptr;
};

std::int32_t enqueue(Plugin const& node, std::vector<PluginTensorDesc> const& tensors,
                     Buffers const& buffers, void* workspace = nullptr) {
    auto const inputs = buffers.inputs();
    auto const outputs = buffers.outputs();
    return node.runtime->enqueue(tensors.data(), &tensors.back(), inputs.data(), outputs.data(),
                                 workspace, reinterpret_cast<cudaStream_t>(7));
}

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

void check_tactics() {
    for (bool const has_device : {true, false}) {
        launched().has_device = has_device;
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
                for (std::size_t j = 0; j < i; ++j) {
                    CHECK(ids[i] != ids[j]);
                }
            }
            CHECK(plugin.build->getWorkspaceSize(tensors.data(), count, &tensors.back(), 1) <
                  std::size_t{1} << 30);
            CHECK(logged_nothing());
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
            CHECK(plugin.runtime->setTactic(0) == 0);
            CHECK(logged_nothing());
            CHECK(plugin.runtime->setTactic(-1) != 0);
            CHECK(plugin.runtime->setTactic(1000) != 0);
            CHECK(logged_error("tactic"));
        }
    }
    launched().has_device = true;
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

void expect_refusal(Case const& node, Fields& fields, std::string const& message) {
    CHECK(creator_of(node.op).createPlugin("node", fields.collection(), TensorRTPhase::kBUILD) ==
          nullptr);
    CHECK(logged_error(message));
}

void check_bad_attributes() {
    std::int32_t const negative = -1;
    std::int32_t const two = 2;
    std::int32_t const foreign_contract = 999;
    std::int64_t const wide = std::int64_t{1} << 40;
    std::int64_t const narrow = 0;
    float const real = 1.0F;
    float const infinite = std::numeric_limits<float>::infinity();
    for (Case const& node : all_cases()) {
        IPluginCreatorV3One& creator = creator_of(node.op);
        CHECK(creator.createPlugin("node", nullptr, TensorRTPhase::kBUILD) == nullptr);
        CHECK(logged_error("no attributes"));
        PluginFieldCollection const broken{3, nullptr};
        CHECK(creator.createPlugin("node", &broken, TensorRTPhase::kBUILD) == nullptr);
        CHECK(logged_error("no attributes"));
        std::size_t const count = Fields(node).list().size();
        for (std::size_t i = 0; i < count; ++i) {
            Fields missing(node);
            std::string const name = missing.list()[i].name;
            missing.list().erase(missing.list().begin() + static_cast<std::ptrdiff_t>(i));
            expect_refusal(node, missing, "attribute " + name + " is missing");
            Fields twice(node);
            twice.list().push_back(twice.list()[i]);
            expect_refusal(node, twice, name + " is given twice");
            Fields empty(node);
            empty.list()[i].data = nullptr;
            expect_refusal(node, empty, name + " must have exactly one value");
            Fields longer(node);
            longer.list()[i].length = 2;
            expect_refusal(node, longer, name + " must have exactly one value");
            Fields nameless(node);
            nameless.list()[i].name = nullptr;
            expect_refusal(node, nameless, "no name");
        }
        Fields unknown(node);
        unknown.list().emplace_back("y_off", &two, PluginFieldType::kINT32, 1);
        expect_refusal(node, unknown, "y_off is not known");
        Fields foreign(node);
        foreign.list().emplace_back("contract_version", &foreign_contract, PluginFieldType::kINT32,
                                    1);
        expect_refusal(node, foreign, "another version of the plugin library");
        for (std::size_t i = 0; i < node.attributes.size(); ++i) {
            std::string const name = node.attributes[i].first;
            bool const is_flag = name.find("_off") == std::string::npos;
            Fields below(node);
            below.list()[i].data = &negative;
            expect_refusal(node, below, name + " is -1");
            if (is_flag) {
                Fields above(node);
                above.list()[i].data = &two;
                expect_refusal(node, above, "must be 0 or 1");
            }
            Fields too_wide(node);
            too_wide.list()[i].data = &wide;
            too_wide.list()[i].type = PluginFieldType::kINT64;
            expect_refusal(node, too_wide, "does not fit 32 bits");
            Fields floating(node);
            floating.list()[i].data = &real;
            floating.list()[i].type = PluginFieldType::kFLOAT32;
            expect_refusal(node, floating, "must be an integer");
            Fields long_integer(node);
            long_integer.list()[i].data = &narrow;
            long_integer.list()[i].type = PluginFieldType::kINT64;
            Plugin const accepted(
                creator.createPlugin("node", long_integer.collection(), TensorRTPhase::kBUILD));
            CHECK(accepted.plugin != nullptr);
        }
        if (node.has_scale) {
            Fields not_finite(node);
            not_finite.list().back().data = &infinite;
            expect_refusal(node, not_finite, "scale must be finite");
            Fields integer(node);
            integer.list().back().data = &two;
            integer.list().back().type = PluginFieldType::kINT32;
            expect_refusal(node, integer, "scale must be a float");
        }
    }
}

// Whether configurePlugin() and onShapeChange() both refuse these inputs with this message.
void expect_bad_shape(Case const& node, std::vector<Sizes> const& shapes,
                      std::string const& message) {
    Plugin const plugin(node);
    auto profile = describe_profile(node, DataType::kHALF, 197, 197);
    auto fixed = describe_tensors(node, DataType::kHALF, 8, 197);
    auto const count = static_cast<std::int32_t>(fixed.size()) - 1;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        fixed[i].dims = dims_of(shapes[i]);
        profile[i].min = profile[i].max = profile[i].opt = dims_of(shapes[i]);
    }
    CHECK(plugin.build->configurePlugin(profile.data(), count, &profile.back(), 1) != 0);
    CHECK(logged_error(message));
    CHECK(plugin.runtime->onShapeChange(fixed.data(), count, &fixed.back(), 1) != 0);
    CHECK(logged_error(message));
    std::int32_t const before = launched().count;
    CHECK(enqueue(plugin, fixed, Buffers(static_cast<std::size_t>(count))) != 0);
    CHECK(launched().count == before);
    CHECK(logged_error(message));
}

void check_bad_shapes() {
    for (Case const& node : all_cases()) {
        auto const good = node.inputs(8, 197);
        for (std::size_t i = 0; i < good.size(); ++i) {
            auto flat = good;
            flat[i] = {7};
            expect_bad_shape(node, flat, "input ");
            auto grown = good;
            grown[i].push_back(2);
            expect_bad_shape(node, grown, "input ");
            auto huge = good;
            huge[i][0] = std::int64_t{1} << 33;
            expect_bad_shape(node, huge, "input ");
        }
        expect_bad_shape(node, node.inputs(8, 0), "L is below 1");
        expect_bad_shape(node, node.inputs(0, 197), "B is below 1");
    }
    auto const scan = all_cases()[0];
    auto many_states = scan.inputs(8, 197);
    many_states[2] = {65, 64};
    many_states[3] = {8, 197, 200};
    expect_bad_shape(scan, many_states, "N is above 64");
    auto few_columns = scan.inputs(8, 197);
    few_columns[3] = {8, 197, 31};
    expect_bad_shape(scan, few_columns, "[c_off, c_off + N)");
    auto const gated = all_cases()[1];
    auto narrow_gate = gated.inputs(8, 197);
    narrow_gate[6] = {8, 197, 127};
    expect_bad_shape(gated, narrow_gate, "[z_off, z_off + D)");
}

void check_bad_calls() {
    for (Case const& node : all_cases()) {
        Plugin const plugin(node);
        auto const tensors = describe_tensors(node, DataType::kFLOAT, 2, 33);
        auto const count = static_cast<std::int32_t>(tensors.size()) - 1;
        Buffers const buffers(static_cast<std::size_t>(count));
        auto const inputs = buffers.inputs();
        auto const outputs = buffers.outputs();
        std::vector<std::max_align_t> workspace(1 << 16);
        std::int32_t const before = launched().count;
        auto* runtime = plugin.runtime;
        CHECK(runtime->enqueue(nullptr, &tensors.back(), inputs.data(), outputs.data(), nullptr,
                               nullptr) != 0);
        CHECK(runtime->enqueue(tensors.data(), nullptr, inputs.data(), outputs.data(), nullptr,
                               nullptr) != 0);
        CHECK(logged_error("no tensor descriptions"));
        CHECK(runtime->enqueue(tensors.data(), &tensors.back(), nullptr, outputs.data(), nullptr,
                               nullptr) != 0);
        CHECK(runtime->enqueue(tensors.data(), &tensors.back(), inputs.data(), nullptr, nullptr,
                               nullptr) != 0);
        CHECK(logged_error("no buffers"));
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            auto missing = inputs;
            missing[i] = nullptr;
            CHECK(runtime->enqueue(tensors.data(), &tensors.back(), missing.data(), outputs.data(),
                                   workspace.data(), nullptr) != 0);
            CHECK(logged_error("is a null pointer"));
            auto crooked = inputs;
            crooked[i] = static_cast<char const*>(crooked[i]) + 4;
            CHECK(runtime->enqueue(tensors.data(), &tensors.back(), crooked.data(), outputs.data(),
                                   workspace.data(), nullptr) != 0);
            CHECK(logged_error("not 16-byte aligned"));
        }
        void* nothing[] = {nullptr};
        CHECK(runtime->enqueue(tensors.data(), &tensors.back(), inputs.data(), nothing, nullptr,
                               nullptr) != 0);
        CHECK(logged_error("is a null pointer"));
        auto wrong_type = tensors;
        wrong_type[0].type = DataType::kINT32;
        CHECK(runtime->onShapeChange(wrong_type.data(), count, &wrong_type.back(), 1) != 0);
        CHECK(logged_error("type or format"));
        auto wrong_output = tensors;
        wrong_output.back().dims.d[0] += 1;
        CHECK(runtime->onShapeChange(wrong_output.data(), count, &wrong_output.back(), 1) != 0);
        CHECK(logged_error("the output has shape"));
        CHECK(runtime->onShapeChange(tensors.data(), count - 1, &tensors.back(), 1) != 0);
        CHECK(logged_error("expected"));
        CHECK(plugin.build->configurePlugin(nullptr, count, nullptr, 1) != 0);
        CHECK(logged_error("no input descriptions"));
        CHECK(launched().count == before);

        launched().status = cudaErrorLaunchFailure;
        CHECK(enqueue(plugin, tensors, buffers, workspace.data()) != 0);
        CHECK(logged_error("the kernel was not launched: cudaErrorFake"));
        launched().status = 0;
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
                        {"serialisation and clones", check_serialisation_and_clones},
                        {"bad attributes", check_bad_attributes},
                        {"bad shapes", check_bad_shapes},
                        {"bad calls", check_bad_calls}});
}
