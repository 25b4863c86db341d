//! \file adapters_v2.cpp
//! Drives the IPluginV2DynamicExt objects as TensorRT 8.6 does, without TensorRT and without a GPU.
#include "adapters_harness.h"

namespace {

using namespace nvinfer1;

IPluginCreator& creator_of(char const* op) {
    auto* creator = dynamic_cast<IPluginCreator*>(registry().getCreator(op, "1", ""));
    if (creator == nullptr) {
        std::printf("FAILED no creator for %s\n", op);
        std::exit(1);
    }
    return *creator;
}

struct Destroy {
    void operator()(IPluginV2DynamicExt* plugin) const { plugin->destroy(); }
};

using Plugin = std::unique_ptr<IPluginV2DynamicExt, Destroy>;

Plugin owned(IPluginV2* plugin) {
    return Plugin(static_cast<IPluginV2DynamicExt*>(plugin));
}

Plugin make(Case const& node) {
    return owned(creator_of(node.op).createPlugin("node", Fields(node).collection()));
}

std::int32_t enqueue(Plugin const& plugin, std::vector<PluginTensorDesc> const& tensors,
                     Buffers const& buffers, void* workspace) {
    auto const inputs = buffers.inputs();
    auto const outputs = buffers.outputs();
    return plugin->enqueue(tensors.data(), &tensors.back(), inputs.data(), outputs.data(),
                           workspace, nullptr);
}

void check_identity() {
    for (Case const& node : all_cases()) {
        IPluginCreator& creator = creator_of(node.op);
        CHECK(std::string(creator.getPluginName()) == node.op);
        CHECK(std::string(creator.getPluginVersion()) == "1");
        CHECK(std::string(creator.getPluginNamespace()).empty());
        Plugin const plugin = make(node);
        CHECK(std::string(plugin->getPluginType()) == node.op);
        CHECK(std::string(plugin->getPluginVersion()) == "1");
        CHECK(plugin->getNbOutputs() == 1);
        CHECK(plugin->initialize() == 0);
        plugin->setPluginNamespace("mine");
        Plugin const copy(plugin->clone());
        CHECK(std::string(copy->getPluginNamespace()) == "mine");
        plugin->setPluginNamespace(nullptr);
        CHECK(std::string(plugin->getPluginNamespace()).empty());
        plugin->terminate();
        CHECK(logged_nothing());
    }
}

void check_types_shapes_and_formats() {
    FakeExprBuilder builder;
    for (Case const& node : all_cases()) {
        Plugin const plugin = make(node);
        auto tensors = describe_tensors(node, DataType::kHALF, 3, 197);
        auto const count = static_cast<std::int32_t>(tensors.size()) - 1;
        std::vector<std::unique_ptr<FakeDimension>> sizes;
        std::vector<DimsExprs> inputs;
        std::vector<DataType> types;
        for (std::int32_t i = 0; i < count; ++i) {
            PluginTensorDesc const& tensor = tensors[static_cast<std::size_t>(i)];
            DimsExprs dims{};
            for (std::int32_t d = 0; d < tensor.dims.nbDims; ++d) {
                sizes.push_back(std::make_unique<FakeDimension>(tensor.dims.d[d]));
                dims.d[dims.nbDims++] = sizes.back().get();
            }
            inputs.push_back(dims);
            types.push_back(tensor.type);
        }
        DimsExprs const output = plugin->getOutputDimensions(0, inputs.data(), count, builder);
        auto const expected = node.output(3, 197);
        CHECK(output.nbDims == static_cast<std::int32_t>(expected.size()));
        for (std::int32_t d = 0; d < output.nbDims; ++d) {
            CHECK(output.d[d]->getConstantValue() == expected[static_cast<std::size_t>(d)]);
        }
        CHECK(plugin->getOutputDataType(0, types.data(), count) == DataType::kHALF);
        CHECK(logged_nothing());
        CHECK(plugin->getOutputDimensions(1, inputs.data(), count, builder).nbDims == -1);
        CHECK(logged_error("expected"));
        CHECK(plugin->getOutputDimensions(0, nullptr, count, builder).nbDims == -1);
        CHECK(logged_error("no input shapes"));

        for (DataType const activation : all_types()) {
            for (std::int32_t pos = 0; pos <= count; ++pos) {
                auto const at = static_cast<std::size_t>(pos);
                bool const follows = pos == count || node.is_activation[at];
                for (DataType const type : all_types()) {
                    for (auto const format : {TensorFormat::kLINEAR, TensorFormat::kCHW4}) {
                        auto asked = describe_tensors(node, activation, 3, 197);
                        for (std::size_t i = at; i < asked.size(); ++i) {
                            asked[i].type = DataType::kBOOL;
                            asked[i].format = TensorFormat::kCHW32;
                        }
                        asked[at].type = type;
                        asked[at].format = format;
                        bool const right = format == TensorFormat::kLINEAR &&
                                           (pos == 0  ? is_activation_type(type)
                                            : follows ? type == activation
                                                      : type == DataType::kFLOAT);
                        CHECK(plugin->supportsFormatCombination(pos, asked.data(), count, 1) ==
                              right);
                    }
                }
            }
        }
        CHECK(!plugin->supportsFormatCombination(0, nullptr, count, 1));
        CHECK(!plugin->supportsFormatCombination(count + 1, tensors.data(), count, 1));
    }
}

void check_run() {
    for (Case const& node : all_cases()) {
        Plugin const plugin = make(node);
        auto const profile = describe_profile(node, DataType::kFLOAT);
        auto const tensors = describe_tensors(node, DataType::kFLOAT, 2, 197);
        auto const count = static_cast<std::int32_t>(tensors.size()) - 1;
        plugin->configurePlugin(profile.data(), count, &profile.back(), 1);
        CHECK(plugin->getWorkspaceSize(tensors.data(), count, &tensors.back(), 1) < std::size_t{1}
                                                                                        << 30);
        Buffers const buffers(static_cast<std::size_t>(count));
        std::vector<std::max_align_t> workspace(1 << 16);
        CHECK(enqueue(plugin, tensors, buffers, workspace.data()) == 0);
        CHECK(launched().output == buffers.outputs()[0]);
        CHECK(reads_its_inputs(node, buffers, 4));
        CHECK(launched().length == 197);
        CHECK(logged_nothing());

        auto const empty = describe_tensors(node, DataType::kFLOAT, 2, 0);
        CHECK(enqueue(plugin, empty, buffers, workspace.data()) != 0);
        CHECK(logged_error("L is below 1"));
        CHECK(plugin->getWorkspaceSize(empty.data(), count, &empty.back(), 1) == 0);
        CHECK(logged_error("L is below 1"));
        plugin->configurePlugin(nullptr, count, nullptr, 1);
        CHECK(logged_error("no input descriptions"));
        auto const integers = describe_tensors(node, DataType::kINT32, 2, 197);
        CHECK(enqueue(plugin, integers, buffers, workspace.data()) != 0);
        CHECK(logged_error("type or format"));
    }
}

void check_serialisation() {
    for (Case const& node : all_cases()) {
        Plugin const plugin = make(node);
        std::vector<unsigned char> bytes(plugin->getSerializationSize());
        plugin->serialize(bytes.data());
        IPluginCreator& creator = creator_of(node.op);
        Plugin const again = owned(creator.deserializePlugin("node", bytes.data(), bytes.size()));
        CHECK(again != nullptr);
        std::vector<unsigned char> same(again->getSerializationSize());
        again->serialize(same.data());
        CHECK(bytes == same);
        CHECK(logged_nothing());

        // Cut short anywhere, too long, or with any one byte changed: refused or equal in meaning,
        // never a crash.
        for (std::size_t size = 0; size < bytes.size(); ++size) {
            std::vector<unsigned char> const part(bytes.begin(),
                                                  bytes.begin() + static_cast<long>(size));
            CHECK(creator.deserializePlugin("node", part.data(), part.size()) == nullptr);
        }
        CHECK(logged_error("cut short"));
        auto longer = bytes;
        longer.push_back(0);
        CHECK(creator.deserializePlugin("node", longer.data(), longer.size()) == nullptr);
        CHECK(logged_error("too long"));
        CHECK(creator.deserializePlugin("node", nullptr, 100) == nullptr);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            auto damaged = bytes;
            damaged[i] ^= 0xFF;
            Plugin const survivor =
                owned(creator.deserializePlugin("node", damaged.data(), damaged.size()));
            static_cast<void>(survivor);
        }
        tensorrt().messages.clear();
    }
}

void check_bad_attributes() {
    for (Case const& node : all_cases()) {
        IPluginCreator& creator = creator_of(node.op);
        CHECK(creator.createPlugin("node", nullptr) == nullptr);
        CHECK(logged_error("no attributes"));
        Fields missing(node);
        missing.list().erase(missing.list().begin());
        CHECK(creator.createPlugin("node", missing.collection()) == nullptr);
        CHECK(logged_error("is missing"));
    }
}

}  // namespace

int main(int argc, char** argv) {
    return run_harness(argc, argv,
                       {{"identity", check_identity},
                        {"types, shapes and formats", check_types_shapes_and_formats},
                        {"run", check_run},
                        {"serialisation", check_serialisation},
                        {"bad attributes", check_bad_attributes}});
}
