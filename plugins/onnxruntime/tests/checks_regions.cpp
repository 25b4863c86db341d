//! \file checks_regions.cpp
#include "checks_regions.h"

#include <cstring>
#include <string>
#include <vector>

#include "harness.h"

namespace harness {
namespace {

namespace ort = vim_plugins::ort;
using Sizes = std::vector<std::int64_t>;

template <typename T>
OrtValue tensor(std::vector<T> const& values, Sizes sizes) {
    OrtValue value;
    value.info.element = sizeof(T) == 8 ? ort::kElementInt64 : ort::kElementFloat;
    value.info.names.resize(sizes.size());
    value.info.sizes = std::move(sizes);
    value.bytes.resize(values.size() * sizeof(T));
    if (!values.empty()) {
        std::memcpy(value.bytes.data(), values.data(), value.bytes.size());
    }
    return value;
}

ort::CustomOp const& op_named(std::string const& name) {
    for (ort::CustomOp const* op : registered_ops()) {
        if (op->GetName(reinterpret_cast<OrtCustomOp const*>(op)) == name) {
            return *op;
        }
    }
    std::printf("FAILED no op %s\n", name.c_str());
    std::abort();
}

struct RegionNode {
    std::string name;
    OrtKernelInfo info;
    std::vector<OrtValue> inputs;
    OrtValue output{{ort::kElementFloat, {}, {}}, {}};

    //! What is wrong, when it runs on so many threads; the output is there when nothing is.
    std::string fault(std::size_t threads = 1) {
        Kernel const kernel(op_named(name), info);
        if (!kernel.fault().empty()) {
            return kernel.fault();
        }
        OrtKernelContext context;
        for (OrtValue const& input : inputs) {
            context.inputs.push_back(&input);
        }
        context.output = &output;
        context.threads = threads;
        return kernel.compute(context);
    }

    std::vector<float> values() const {
        std::vector<float> found(output.bytes.size() / sizeof(float));
        if (!found.empty()) {
            std::memcpy(found.data(), output.bytes.data(), output.bytes.size());
        }
        return found;
    }
};

//! Two images of three boxes: the second overlaps the first by 80 %, the third is on its own.
RegionNode suppression() {
    RegionNode node{"VimSortedNms", {}, {}};
    node.info.integers = {{"groups", 2}};
    node.info.floats = {{"iou_threshold", 0.5F}};
    std::vector<float> const boxes = {0, 0, 10, 10, 0, 0, 10, 8, 20, 0, 30, 10};
    std::vector<float> both = boxes;
    both.insert(both.end(), boxes.begin(), boxes.end());
    node.inputs = {tensor(both, {2, 3, 4}), tensor<std::int64_t>({0, 0, 1, 0, 1, 1}, {2, 3}),
                   tensor<float>({1, 1, 1, 1, 1, 0}, {2, 3})};
    return node;
}

//! Maps that are 2, 3, 4 and 5 everywhere, of 17 channels; a box for each level, and one for none.
RegionNode pooling() {
    RegionNode node{"VimPyramidRoiAlign", {}, {}};
    node.info.integers = {{"output_size", 2}};
    node.info.floats = {{"canonical_size", 32.0F}, {"spatial_scale", 0.25F}};
    for (int level = 2; level < 6; ++level) {
        std::int64_t const side = 128 >> level;
        node.inputs.push_back(
            tensor(std::vector<float>(static_cast<std::size_t>(17 * side * side), float(level)),
                   {1, 17, side, side}));
    }
    node.inputs.push_back(tensor<float>(
        {8, 8, 20, 20, 8, 8, 30, 30, 8, 8, 50, 50, 8, 8, 90, 90, 8, 8, 8, 20}, {1, 5, 4}));
    return node;
}

void check_answers_of_regions() {
    for (std::size_t const threads : {1, 3}) {
        RegionNode node = suppression();
        CHECK(node.fault(threads).empty());
        CHECK((node.output.info.sizes == Sizes{2, 3}));
        CHECK((node.values() == std::vector<float>{1, 0, 1, 1, 1, 0}));

        RegionNode pooled = pooling();
        CHECK(pooled.fault(threads).empty());
        CHECK((pooled.output.info.sizes == Sizes{5, 17, 2, 2}));
        std::vector<float> const values = pooled.values();
        for (std::size_t i = 0; i < values.size(); ++i) {
            std::size_t const box = i / (17 * 4);
            CHECK(values[i] == (box < 4 ? float(box + 2) : 0.0F));
        }
    }
}

template <typename Change>
std::string fault_after(RegionNode node, Change&& change) {
    change(node);
    return node.fault();
}

void check_refusals_of_regions() {
    auto const nms = [](auto&& change) { return fault_after(suppression(), change); };
    CHECK(nms([](RegionNode& n) { n.info.integers["groups"] = 0; }) ==
          "VimSortedNms: groups is below 1");
    CHECK(nms([](RegionNode& n) { n.info.floats["iou_threshold"] = 0.0F / 0.0F; }) ==
          "VimSortedNms: iou_threshold must lie between 0 and 1");
    CHECK(nms([](RegionNode& n) {
              n.info.floats.erase("iou_threshold");
          }).find("attribute iou_threshold is missing or not a float") != std::string::npos);
    CHECK(nms([](RegionNode& n) { n.inputs[0].info.sizes[2] = 5; }) ==
          "VimSortedNms: input boxes has shape [2, 3, 5], expected [2, 3, 4]");
    CHECK(nms([](RegionNode& n) { n.inputs[1].info.sizes = {6}; }) ==
          "VimSortedNms: input group has shape [6], expected [2, 3]");
    CHECK(nms([](RegionNode& n) { n.inputs.pop_back(); }) ==
          "VimSortedNms: input valid is missing");
    auto const pool = [](auto&& change) { return fault_after(pooling(), change); };
    CHECK(pool([](RegionNode& n) { n.info.integers["output_size"] = 0; }) ==
          "VimPyramidRoiAlign: output_size is below 1");
    CHECK(pool([](RegionNode& n) { n.info.integers["output_size"] = 65; }) ==
          "VimPyramidRoiAlign: output_size is above 64");
    CHECK(pool([](RegionNode& n) { n.info.floats["canonical_size"] = -1.0F; }) ==
          "VimPyramidRoiAlign: canonical_size and spatial_scale must be finite and above 0");
    CHECK(pool([](RegionNode& n) { n.inputs[2].info.sizes[1] = 16; }) ==
          "VimPyramidRoiAlign: input p4 has shape [1, 16, 8, 8], expected [1, 17, 8, 8]");
    CHECK(pool([](RegionNode& n) { n.inputs[3].info.sizes[3] = 0; }) ==
          "VimPyramidRoiAlign: a map has no cells");
    CHECK(pool([](RegionNode& n) { n.inputs[3].info.sizes[3] = 65537; }) ==
          "VimPyramidRoiAlign: a map has more than 65536 rows or columns");
    CHECK(pool([](RegionNode& n) {
              for (OrtValue& input : n.inputs) {
                  input.info.sizes[0] = 65536;
              }
              n.inputs[4].info.sizes[1] = 65536;
          }) == "VimPyramidRoiAlign: B * N is above 2^31 - 1");
}

void check_empty_regions() {
    for (std::size_t const place : {0, 1}) {
        RegionNode nms = suppression();
        RegionNode pool = pooling();
        for (OrtValue& input : nms.inputs) {
            input.info.sizes[place] = 0;
        }
        for (std::size_t i = place == 0 ? 0 : 4; i < 5; ++i) {
            pool.inputs[i].info.sizes[place] = 0;
        }
        CHECK(nms.fault().empty() && nms.output.bytes.empty());
        CHECK(pool.fault().empty() && pool.output.bytes.empty());
        CHECK((pool.output.info.sizes == Sizes{0, 17, 2, 2}));
    }
    RegionNode pool = pooling();
    for (std::size_t i = 0; i < 4; ++i) {
        pool.inputs[i].info.sizes[1] = 0;
    }
    CHECK(pool.fault().empty() && pool.output.bytes.empty());
}

void check_failing_regions() {
    for (RegionNode node : {suppression(), pooling()}) {
        ort::CustomOp const& op = op_named(node.name);
        CHECK(op.version == 17);
        bool reached = true;
        for (int at = 1; reached; ++at) {
            registered_ops();  // made before; the calls of registration are not counted
            fake_ort().calls = 0;
            fake_ort().fail_at = at;
            std::string fault;
            {
                Kernel const kernel(op, node.info);
                fault = kernel.fault();
                if (fault.empty()) {
                    OrtKernelContext context;
                    for (OrtValue const& input : node.inputs) {
                        context.inputs.push_back(&input);
                    }
                    context.output = &node.output;
                    context.threads = 2;
                    fault = kernel.compute(context);
                }
            }
            reached = fake_ort().calls >= at;
            fake_ort().fail_at = 0;
            CHECK(fault.empty() != reached);
        }
    }
}

void check_region_shapes() {
    ort::CustomOp const& op = op_named("VimPyramidRoiAlign");
    auto const* handle = reinterpret_cast<OrtCustomOp const*>(&op);
    CHECK(op.GetInputTypeCount(handle) == 5);
    ort::CustomOp const& nms = op_named("VimSortedNms");
    CHECK(nms.GetInputType(reinterpret_cast<OrtCustomOp const*>(&nms), 1) == ort::kElementInt64);
    OrtShapeInferContext context;
    for (OrtValue const& input : pooling().inputs) {
        context.inputs.push_back(input.info);
    }
    CHECK(words_of(op.InferOutputShapeFn(handle, &context)).empty());
    CHECK(context.output.element == ort::kElementFloat);
    // How many boxes and bins there are is known when the node runs.
    CHECK((context.output.sizes == Sizes{-1, 17, -1, -1}));
    CHECK(context.output.names[0] != context.output.names[2]);
}

}  // namespace

void check_region_ops() {
    int const live = fake_ort().live;
    check_answers_of_regions();
    check_refusals_of_regions();
    check_empty_regions();
    check_failing_regions();
    check_region_shapes();
    CHECK(fake_ort().live == live);
}

}  // namespace harness
