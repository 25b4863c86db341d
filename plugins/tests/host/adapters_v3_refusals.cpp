//! \file adapters_v3_refusals.cpp
//! What the IPluginV3 objects must refuse, with a message and without a crash.
#include "adapters_v3.h"

using namespace nvinfer1;

namespace {

void expect_refusal(Case const& node, Fields& fields, std::string const& message) {
    CHECK(creator_of(node.op).createPlugin("node", fields.collection(), TensorRTPhase::kBUILD) ==
          nullptr);
    CHECK(logged_error(message));
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

}  // namespace

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
