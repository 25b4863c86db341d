//! \file checks.cpp
//! The checks that every provider passes, and the program.
#include <cstring>
#include <set>
#include <thread>

#include "harness.h"

namespace {

namespace ort = vim_plugins::ort;
using namespace harness;
using vim_tests::DataType;
using vim_tests::Op;
using vim_tests::Spec;

Spec bi_scan() {
    Spec spec;
    spec.op = Op::kBiScan;
    spec.batch = 2;
    spec.length = 7;
    spec.channels = 40;
    return spec;
}

OrtCustomOp const* handle(ort::CustomOp const* op) {
    return reinterpret_cast<OrtCustomOp const*>(op);
}

void check_registration() {
    std::vector<ort::CustomOp const*> const ops = registered_ops();
    std::size_t const wanted = 9 + region_ops();
    CHECK(ops.size() == wanted);
    std::set<std::pair<std::string, int>> kinds;
    for (ort::CustomOp const* op : ops) {
        auto const* own = handle(op);
        kinds.emplace(op->GetName(own), op->GetOutputType(own, 0));
        CHECK(op->version == 17);
        CHECK(std::string(op->GetExecutionProviderType(own)) == provider());
        CHECK(op->CreateKernel == nullptr && op->KernelCompute == nullptr);
        CHECK(op->GetOutputTypeCount(own) == 1 && op->GetOutputCharacteristic(own, 0) == 0);
        CHECK(op->GetStartVersion(own) == 1 && op->GetEndVersion(own) == 1);
        CHECK(op->GetInputType(own, 0) == op->GetOutputType(own, 0));
        std::size_t const count = op->GetInputTypeCount(own);
        bool const scan = std::string(op->GetName(own)) == "VimSelectiveScan";
        for (std::size_t i = 0; i < count; ++i) {
            CHECK(op->GetInputMemoryType(own, i) == 0);
            bool const optional = scan && i == 6;
            CHECK(op->GetInputCharacteristic(own, i) == (optional ? 1 : 0));
        }
    }
    CHECK(kinds.size() == wanted);
    CHECK(registered_ops() == ops);  // made once
}

void check_session_options() {
    OrtSessionOptions twice;
    CHECK(words_of(RegisterCustomOps(&twice, fake_base())).empty());
    CHECK(words_of(RegisterCustomOps(&twice, fake_base())).empty());
    CHECK(twice.domains.size() == 1);
    CHECK(twice.domains.at(0)->name == "vim_deploy");

    OrtSessionOptions other;
    other.entries["vim_deploy.native_ops"] = "vim_ort_other";
    CHECK(words_of(RegisterCustomOps(&other, fake_base()))
              .find("the session has the ops of vim_ort_other already") != std::string::npos);
    CHECK(other.domains.empty());

    for (char const* text : {"x", "-1", "1.5", "12345678"}) {
        OrtSessionOptions bad;
        bad.entries["vim_deploy.intra_op_num_threads"] = text;
        CHECK(words_of(RegisterCustomOps(&bad, fake_base())).find("must be a number of threads") !=
              std::string::npos);
        CHECK(bad.domains.empty());
    }
    std::set<OrtCustomOpDomain*> domains;
    for (char const* text : {"0", "3", "4", "3"}) {
        OrtSessionOptions options;
        options.entries["vim_deploy.intra_op_num_threads"] = text;
        CHECK(words_of(RegisterCustomOps(&options, fake_base())).empty());
        domains.insert(options.domains.at(0));
    }
    CHECK(domains.size() == 3);

    OrtSessionOptions old;
    fake_ort().newest_api = 16;
    CHECK(words_of(RegisterCustomOps(&old, fake_base())).empty());
    CHECK(old.domains.empty() && old.entries.empty());
    fake_ort().newest_api = 32;
}

void check_registration_at_once() {
    std::vector<std::thread> threads;
    std::vector<OrtSessionOptions> options(8);
    std::vector<OrtStatus*> statuses(options.size(), nullptr);
    for (std::size_t i = 0; i < options.size(); ++i) {
        options[i].entries["vim_deploy.intra_op_num_threads"] = i % 2 == 0 ? "5" : "6";
        threads.emplace_back([&statuses, &options, i] {
            statuses[i] = RegisterCustomOps(&options[i], fake_base());
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    for (std::size_t i = 0; i < options.size(); ++i) {
        CHECK(words_of(statuses[i]).empty());
        CHECK(options[i].domains.size() == 1 && options[i].domains[0] == options[i % 2].domains[0]);
    }
}

void check_answers() {
    double worst = 0.0;
    for (Spec const& spec : specs()) {
        vim_tests::Problem const problem = make_problem(spec, 7);
        for (std::size_t const threads : {1, 3}) {
            double const far = distance(problem, threads);
            if (!(far <= vim_tests::tolerance(spec.type))) {
                std::printf("FAILED %s: %g\n", describe(spec).c_str(), far);
                ++failures;
            }
            worst = far > worst ? far : worst;
        }
    }
    CHECK(worst > 0.0);
    CHECK(fake_ort().live == 0);
}

void check_runs_at_once() {
    vim_tests::Problem const problem = make_problem(bi_scan(), 3);
    std::vector<NodeCase> nodes(4, NodeCase(problem));
    Kernel const kernel(op_for(problem.spec), nodes[0].info);
    std::vector<std::thread> threads;
    std::vector<std::string> faults(nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        threads.emplace_back([&kernel, &nodes, &faults, i] {
            OrtKernelContext context = nodes[i].context(2);
            faults[i] = kernel.compute(context);
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        CHECK(faults[i].empty());
        CHECK(nodes[i].output.bytes == nodes[0].output.bytes);
    }
}

// Every call of ONNX Runtime that can fail, failing in turn: the op says so, and keeps nothing.
void check_failing_calls() {
    for (Op const op : {Op::kScan, Op::kConv, Op::kBiScan}) {
        Spec spec = bi_scan();
        spec.op = op;
        NodeCase node(make_problem(spec, 5));
        ort::CustomOp const& found = op_for(spec);
        int count = 0;
        for (int at = 1;; ++at) {
            fake_ort().calls = 0;
            fake_ort().fail_at = at;
            std::string fault;
            {
                Kernel const kernel(found, node.info);
                fault = kernel.fault();
                if (fault.empty()) {
                    OrtKernelContext context = node.context(2);
                    fault = kernel.compute(context);
                }
            }
            int const calls = fake_ort().calls;
            fake_ort().fail_at = 0;
            CHECK(fake_ort().live == 0);
            if (calls < at) {
                CHECK(fault.empty());
                break;
            }
            CHECK(fault.find("the fake fails in ") != std::string::npos);
            ++count;
        }
        CHECK(count >= 15);
    }
}

void check_failing_registration() {
    int const domains = fake_ort().domains;
    int count = 0;
    bool reached = true;
    for (int at = 1; reached; ++at) {
        OrtSessionOptions options;
        // A number that no session has had, so that the ops are made anew: a set that was made
        // before the failure is kept for the next session.
        options.entries["vim_deploy.intra_op_num_threads"] = std::to_string(100 + at);
        fake_ort().calls = 0;
        fake_ort().fail_at = at;
        std::string const fault = words_of(RegisterCustomOps(&options, fake_base()));
        reached = fake_ort().calls >= at;
        fake_ort().fail_at = 0;
        CHECK(fault.empty() != reached);
        CHECK(options.entries.count("vim_deploy.native_ops") == (reached ? 0U : 1U));
        count += reached ? 1 : 0;
    }
    CHECK(count >= 12);
    // Sets of those that failed behind them, in the last two calls, and of the one that did not.
    CHECK(fake_ort().domains == domains + 3);
    CHECK(fake_ort().live == 0);
}

std::string fault_of(NodeCase& node, Spec const& spec) {
    Kernel const kernel(op_for(spec), node.info);
    if (!kernel.fault().empty()) {
        return kernel.fault();
    }
    OrtKernelContext context = node.context();
    return kernel.compute(context);
}

void check_refusals() {
    Spec const spec = bi_scan();
    NodeCase const good(make_problem(spec, 5));
    auto const said = [&](auto&& change) {
        NodeCase node(good);
        change(node);
        return fault_of(node, spec);
    };
    CHECK(said([](NodeCase&) {}).empty());
    CHECK(said([](NodeCase& n) { n.info.integers["b_off"] = 1000; }) ==
          "VimBiSelectiveScan: columns [b_off, b_off + N) lie outside the rows of xdbl");
    CHECK(said([](NodeCase& n) { n.info.integers["low_rank"] = 2; }) ==
          "VimBiSelectiveScan: attribute low_rank is 2, must be 0 or 1");
    CHECK(said([](NodeCase& n) { n.info.integers["z_off"] = -1; }) ==
          "VimBiSelectiveScan: attribute z_off is -1, must lie between 0 and 2^31 - 1");
    CHECK(said([](NodeCase& n) { n.info.floats["scale"] = 1.0F / 0.0F; }) ==
          "VimBiSelectiveScan: attribute scale must be finite and not 0");
    CHECK(said([](NodeCase& n) { n.info.integers.erase("c_off"); }) ==
          "VimBiSelectiveScan: attribute c_off is missing or not an integer: no attribute c_off");
    CHECK(said([](NodeCase& n) { n.inputs.pop_back(); }) ==
          "VimBiSelectiveScan: input xz is missing");
    CHECK(said([](NodeCase& n) { n.inputs[3].info.sizes[2] = 41; }) ==
          "VimBiSelectiveScan: input A has shape [2, 16, 41], expected [2, 16, 40]");
    CHECK(said([](NodeCase& n) { n.inputs[6].info.sizes[2] = std::int64_t{1} << 31; }) ==
          "VimBiSelectiveScan: input xz has shape [2, 7, 2147483648]; every size must lie between "
          "0 and 2^31 - 1");
    CHECK(said([](NodeCase& n) { n.inputs[0].info.sizes.resize(9, 1); }) ==
          "VimBiSelectiveScan: input u2 has 9 dimensions");
    CHECK(said([](NodeCase& n) {
              n.inputs[0].info.sizes[1] = n.inputs[1].info.sizes[1] = 0;
              n.inputs[2].info.sizes[1] = n.inputs[6].info.sizes[0] = 0;
          }).empty());
    CHECK(fake_ort().live == 0);
}

void check_missing_memory() {
    NodeCase node(make_problem(bi_scan(), 5));
    fake_ort().no_memory = true;
    std::string const fault = fault_of(node, bi_scan());
    fake_ort().no_memory = false;
    CHECK(fault.find("no memory for ") == 0);
    CHECK(fake_ort().live == 0);
}

OrtTensorTypeAndShapeInfo infer(Spec const& spec, OrtShapeInferContext& context) {
    ort::CustomOp const& op = op_for(spec);
    CHECK(words_of(op.InferOutputShapeFn(handle(&op), &context)).empty());
    CHECK(context.answered);
    return context.output;
}

void check_inference() {
    Spec spec = bi_scan();
    spec.op = Op::kConv;
    spec.type = DataType::kBFloat16;
    OrtShapeInferContext known;
    known.inputs = {{ort::kElementBFloat16, {-1, 9, 12}, {"batch", "", ""}},
                    {ort::kElementFloat, {2, 4, 6}, {"", "", ""}},
                    {ort::kElementFloat, {2, 6}, {"", ""}}};
    OrtTensorTypeAndShapeInfo const told = infer(spec, known);
    CHECK(told.element == ort::kElementBFloat16);
    CHECK((told.sizes == std::vector<std::int64_t>{2, -1, 9, 6}));
    CHECK((told.names == std::vector<std::string>{"", "batch", "", ""}));

    OrtShapeInferContext unknown;
    unknown.inputs = {{ort::kElementBFloat16, {}, {}},
                      {ort::kElementFloat, {2, 4, -1}, {"", "", ""}},
                      {ort::kElementFloat, {}, {}}};
    OrtTensorTypeAndShapeInfo const made = infer(spec, unknown);
    CHECK(made.element == ort::kElementBFloat16);
    CHECK((made.sizes == std::vector<std::int64_t>{2, -1, -1, -1}));
    std::set<std::string> names(made.names.begin(), made.names.end());
    std::vector<std::string> const again = infer(spec, unknown).names;
    names.insert(again.begin(), again.end());
    CHECK(names.size() == 7);  // "" for the 2, and six that are all different

    for (int at = 1;; ++at) {
        OrtShapeInferContext context = known;
        context.answered = false;
        ort::CustomOp const& op = op_for(spec);
        fake_ort().calls = 0;
        fake_ort().fail_at = at;
        std::string const fault = words_of(op.InferOutputShapeFn(handle(&op), &context));
        bool const reached = fake_ort().calls >= at;
        fake_ort().fail_at = 0;
        CHECK(fault.empty() != reached && context.answered != reached);
        if (!reached) {
            CHECK(at > 10);
            break;
        }
    }
    CHECK(fake_ort().live == 0);
}

}  // namespace

int main() {
    std::pair<char const*, void (*)()> const checks[] = {
        {"registration", check_registration},
        {"session options", check_session_options},
        {"registration at once", check_registration_at_once},
        {"answers", check_answers},
        {"runs at once", check_runs_at_once},
        {"failing calls", check_failing_calls},
        {"failing registration", check_failing_registration},
        {"refusals", check_refusals},
        {"missing memory", check_missing_memory},
        {"inference", check_inference},
        {"provider", check_provider},
    };
    for (auto const& check : checks) {
        int const before = failures;
        check.second();
        std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", check.first);
    }
    return failures == 0 ? 0 : 1;
}
