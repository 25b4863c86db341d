//! \file native_op.cpp
#include "native_op.h"

#include "adapters/op_model.h"
#include "calls.h"
#include "device.h"
#include "inference.h"
#include "node.h"
#include "vim_plugins/contract.h"

namespace vim_plugins::ort {
namespace {

using adapters::describe;
using adapters::input_count;
using adapters::InputKind;
using adapters::OpDescription;

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};

NativeOp const& op_of(OrtCustomOp const* handle) noexcept {
    return *static_cast<NativeOp const*>(reinterpret_cast<CustomOp const*>(handle));
}

int element_of(DataType type) noexcept {
    switch (type) {
        case DataType::kFloat16:
            return kElementFloat16;
        case DataType::kBFloat16:
            return kElementBFloat16;
        default:
            return kElementFloat;
    }
}

char const* get_provider(OrtCustomOp const*) {
    return execution_provider();
}
int get_output_type(OrtCustomOp const* op, std::size_t) {
    return element_of(op_of(op).type);
}
std::size_t get_output_count(OrtCustomOp const*) {
    return 1;
}
int get_output_characteristic(OrtCustomOp const*, std::size_t) {
    return kInputRequired;
}
// Where the provider computes: on a GPU the weights have to be there as well.
int get_memory_type(OrtCustomOp const*, std::size_t) {
    return kMemoryDefault;
}
int get_version(OrtCustomOp const*) {
    return kDomainVersion;
}
// Asked of variadic inputs and outputs alone; no op has any.
int get_none(OrtCustomOp const*) {
    return 0;
}

// What differs between the ops.
template <typename Params>
struct Callbacks {
    static OpDescription const& description() { return describe(Params{}); }

    static char const* name(OrtCustomOp const*) { return description().name; }

    static std::size_t input_types(OrtCustomOp const*) { return description().inputs.size(); }

    static int input_type(OrtCustomOp const* op, std::size_t index) {
        switch (description().inputs[index].kind) {
            case InputKind::kActivation:
                return element_of(op_of(op).type);
            case InputKind::kInt64:
                return kElementInt64;
            default:
                return kElementFloat;
        }
    }

    // The last inputs are optional where an attribute decides whether they are there.
    static int input_characteristic(OrtCustomOp const*, std::size_t index) {
        return index < static_cast<std::size_t>(input_count(Params{})) ? kInputRequired
                                                                       : kInputOptional;
    }

    static OrtStatus* create(OrtCustomOp const* handle, OrtApi const*, OrtKernelInfo const* info,
                             void** kernel) {
        NativeOp const& op = op_of(handle);
        return guarded(op.api, [&] {
            *kernel =
                new Node<Params>(op.api, info, op.type, make_device(op.api, info, op.threads));
        });
    }

    static OrtStatus* compute(void* kernel, OrtKernelContext* context) {
        auto const& node = *static_cast<Node<Params> const*>(kernel);
        return guarded(node.api(), [&] { node.compute(context); });
    }

    static void destroy(void* kernel) { delete static_cast<Node<Params>*>(kernel); }

    static OrtStatus* infer(OrtCustomOp const* handle, OrtShapeInferContext* context) {
        NativeOp const& op = op_of(handle);
        return guarded(op.api, [&] { infer_output(op.api, description(), context); });
    }
};

template <typename Params>
std::unique_ptr<NativeOp> make_op(OrtApi const* api, DataType type, std::int32_t threads) {
    using Own = Callbacks<Params>;
    auto op = std::make_unique<NativeOp>();
    op->api = api;
    op->type = type;
    op->threads = threads;
    // ONNX Runtime reads of the table what this version has, whatever its own version is.
    op->version = kApiVersion;
    op->CreateKernel = nullptr;  // the forms without a status
    op->KernelCompute = nullptr;
    op->GetName = Own::name;
    op->GetExecutionProviderType = get_provider;
    op->GetInputType = Own::input_type;
    op->GetInputTypeCount = Own::input_types;
    op->GetOutputType = get_output_type;
    op->GetOutputTypeCount = get_output_count;
    op->KernelDestroy = Own::destroy;
    op->GetInputCharacteristic = Own::input_characteristic;
    op->GetOutputCharacteristic = get_output_characteristic;
    op->GetInputMemoryType = get_memory_type;
    op->GetVariadicInputMinArity = get_none;
    op->GetVariadicInputHomogeneity = get_none;
    op->GetVariadicOutputMinArity = get_none;
    op->GetVariadicOutputHomogeneity = get_none;
    op->CreateKernelV2 = Own::create;
    op->KernelComputeV2 = Own::compute;
    op->InferOutputShapeFn = Own::infer;
    op->GetStartVersion = get_version;
    op->GetEndVersion = get_version;
    return op;
}

}  // namespace

std::vector<std::unique_ptr<NativeOp>> make_ops(OrtApi const* api, std::int32_t threads) {
    std::vector<std::unique_ptr<NativeOp>> ops;
#define VIM_PLUGINS_MAKE(Name, c_name) ops.push_back(make_op<Name##Params>(api, type, threads));
    for (DataType const type : kTypes) {
        VIM_PLUGINS_OPS(VIM_PLUGINS_MAKE)
    }
    [[maybe_unused]] DataType const type = DataType::kFloat32;  // whatever the activations are
    VIM_ORT_REGION_OPS(VIM_PLUGINS_MAKE)
#undef VIM_PLUGINS_MAKE
    return ops;
}

OrtCustomOp const* handle(NativeOp const& op) noexcept {
    return reinterpret_cast<OrtCustomOp const*>(static_cast<CustomOp const*>(&op));
}

}  // namespace vim_plugins::ort
