//! \file harness.cpp
#include "harness.h"

#include <cstring>

#include "common/small_float.h"

int failures = 0;

namespace harness {
namespace {

namespace ort = vim_plugins::ort;
using vim_tests::DataType;
using vim_tests::Op;
using vim_tests::Problem;
using vim_tests::Spec;

using Sizes = std::vector<std::int64_t>;

int element_of(DataType type) {
    return type == DataType::kFloat32   ? ort::kElementFloat
           : type == DataType::kFloat16 ? ort::kElementFloat16
                                        : ort::kElementBFloat16;
}

void append(std::vector<unsigned char>& bytes, float value, int element) {
    if (element == ort::kElementFloat) {
        unsigned char four[4];
        std::memcpy(four, &value, sizeof(four));
        bytes.insert(bytes.end(), four, four + sizeof(four));
        return;
    }
    std::uint16_t const bits =
        element == ort::kElementFloat16 ? vim_shim::half_from(value) : vim_shim::bfloat_from(value);
    bytes.push_back(static_cast<unsigned char>(bits & 0xFFU));
    bytes.push_back(static_cast<unsigned char>(bits >> 8U));
}

OrtValue tensor(std::vector<float> const& values, Sizes sizes, int element) {
    OrtValue value;
    value.info.element = element;
    value.info.names.resize(sizes.size());
    value.info.sizes = std::move(sizes);
    for (float const number : values) {
        append(value.bytes, number, element);
    }
    return value;
}

}  // namespace

std::string words_of(OrtStatus* status) {
    if (status == nullptr) {
        return {};
    }
    OrtApi const* api = reinterpret_cast<ort::ApiBase const*>(fake_base())->GetApi(17);
    std::string const words = ort::GetErrorMessage(api)(status);
    ort::ReleaseStatus(api)(status);
    return words.empty() ? "a status without words" : words;
}

std::vector<ort::CustomOp const*> registered_ops() {
    OrtSessionOptions options;
    CHECK(words_of(RegisterCustomOps(&options, fake_base())).empty());
    std::vector<ort::CustomOp const*> ops;
    for (OrtCustomOpDomain const* domain : options.domains) {
        for (OrtCustomOp const* op : domain->ops) {
            ops.push_back(reinterpret_cast<ort::CustomOp const*>(op));
        }
    }
    return ops;
}

ort::CustomOp const& op_for(Spec const& spec) {
    char const* const name = spec.op == Op::kScan   ? "VimSelectiveScan"
                             : spec.op == Op::kConv ? "VimBiCausalConv"
                                                    : "VimBiSelectiveScan";
    for (ort::CustomOp const* op : registered_ops()) {
        auto const* handle = reinterpret_cast<OrtCustomOp const*>(op);
        if (std::strcmp(op->GetName(handle), name) == 0 &&
            op->GetOutputType(handle, 0) == element_of(spec.type)) {
            return *op;
        }
    }
    std::printf("FAILED no op %s\n", name);
    std::abort();
}

NodeCase::NodeCase(Problem const& p) {
    Spec const& s = p.spec;
    int const t = element_of(s.type);
    int const f = ort::kElementFloat;
    std::int64_t const b = s.batch, l = s.length, d = s.channels, n = s.states, r = s.rank;
    output.info.element = t;
    if (s.op == Op::kConv) {
        info.integers = {{"x_off", p.z_off}};
        inputs = {tensor(p.z, {b, l, p.z_columns}, t), tensor(p.w, {2, s.width, d}, f),
                  tensor(p.bias, {2, d}, f)};
        return;
    }
    info.integers = {{"delta_softplus", s.softplus ? 1 : 0},
                     {"b_off", p.b_off},
                     {"c_off", p.c_off},
                     {"z_off", p.z_off}};
    OrtValue z = tensor(p.z, {b, l, p.z_columns}, t);
    if (s.op == Op::kScan) {
        info.integers["reverse"] = s.reverse ? 1 : 0;
        info.integers["has_z"] = s.gate ? 1 : 0;
        inputs = {tensor(p.u, {b, l, d}, t), tensor(p.dt, {b, l, d}, t),
                  tensor(p.A, {n, d}, f),    tensor(p.bc, {b, l, p.bc_columns}, t),
                  tensor(p.skip, {d}, f),    tensor(p.bias, {d}, f)};
        if (s.gate) {
            inputs.push_back(std::move(z));
        }
        return;
    }
    info.integers["dt_off"] = p.dt_off;
    info.integers["low_rank"] = r > 0 ? 1 : 0;
    info.floats = {{"scale", s.scale}};
    inputs = {tensor(p.u, {2, b, l, d}, t),
              tensor(p.dt, r > 0 ? Sizes{2, d, r} : Sizes{2, b, l, d}, t),
              tensor(p.bc, {2, b, l, p.bc_columns}, t),
              tensor(p.A, {2, n, d}, f),
              tensor(p.skip, {2, d}, f),
              tensor(p.bias, {2, d}, f),
              std::move(z)};
}

OrtKernelContext NodeCase::context(std::size_t threads) {
    OrtKernelContext context;
    for (OrtValue const& input : inputs) {
        context.inputs.push_back(&input);
    }
    context.output = &output;
    context.threads = threads;
    context.stream = this;  // some address: the kernels of the tests are not on a GPU
    return context;
}

std::vector<double> NodeCase::result() const {
    std::size_t const size = element_size(output.info.element);
    std::vector<double> values(output.bytes.size() / size);
    for (std::size_t i = 0; i < values.size(); ++i) {
        unsigned char const* from = output.bytes.data() + i * size;
        if (size == 4) {
            float value;
            std::memcpy(&value, from, sizeof(value));
            values[i] = double{value};
            continue;
        }
        std::uint16_t bits;
        std::memcpy(&bits, from, sizeof(bits));
        bool const half = output.info.element == ort::kElementFloat16;
        values[i] = double{half ? vim_shim::half_to(bits) : vim_shim::bfloat_to(bits)};
    }
    return values;
}

Kernel::Kernel(ort::CustomOp const& op, OrtKernelInfo const& info) : op_(op) {
    auto const* handle = reinterpret_cast<OrtCustomOp const*>(&op);
    fault_ = words_of(op.CreateKernelV2(handle, nullptr, &info, &kernel_));
}

Kernel::~Kernel() {
    op_.KernelDestroy(kernel_);
}

std::string Kernel::compute(OrtKernelContext& context) const {
    return words_of(op_.KernelComputeV2(kernel_, &context));
}

double distance(Problem const& problem, std::size_t threads) {
    NodeCase node(problem);
    Kernel const kernel(op_for(problem.spec), node.info);
    CHECK(kernel.fault().empty());
    OrtKernelContext context = node.context(threads);
    std::string const fault = kernel.compute(context);
    if (!fault.empty()) {
        std::printf("FAILED %s: %s\n", describe(problem.spec).c_str(), fault.c_str());
        ++failures;
        return 0.0;
    }
    return vim_tests::relative_l2(node.result(), vim_tests::reference(problem));
}

std::vector<Spec> specs() {
    std::vector<Spec> all;
    for (DataType const type : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
        for (int const length : {1, 2, 33}) {
            for (Op const op : {Op::kScan, Op::kConv, Op::kBiScan}) {
                Spec spec;
                spec.op = op;
                spec.type = type;
                spec.batch = 2;
                spec.length = length;
                spec.channels = 24;
                spec.reverse = length == 2;
                spec.gate = length != 2;
                spec.margin = length == 33 ? 3 : 0;
                spec.rank = op == Op::kBiScan && length == 2 ? 5 : 0;
                spec.scale = op == Op::kBiScan ? 0.5F : 1.0F;
                all.push_back(spec);
            }
        }
    }
    return all;
}

}  // namespace harness
