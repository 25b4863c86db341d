//! \file header_check.cpp
//! ort_api.h against the real header: places, signatures, constants, offsets. It need not run, only
//! compile; then it prints how much was compared.
#include <cstdio>
#include <type_traits>

#include "onnxruntime_c_api.h"
#include "ort_api.h"

namespace {

namespace ours = vim_plugins::ort;

// A type as our declaration writes it: enumerations are int, and callbacks have no attributes.
template <typename T, typename = void>
struct Plain {
    using type = T;
};
template <typename T>
struct Plain<T, std::enable_if_t<std::is_enum_v<T>>> {
    static_assert(sizeof(T) == sizeof(int));
    using type = int;
};
template <typename T>
struct Plain<T const> {
    using type = typename Plain<T>::type const;
};
template <typename T>
struct Plain<T*> {
    using type = typename Plain<T>::type*;
};
template <typename Result, typename... Arguments>
struct Plain<Result(Arguments...)> {
    using type = typename Plain<Result>::type(typename Plain<Arguments>::type...);
};
template <typename Result, typename... Arguments>
struct Plain<Result(Arguments...) noexcept> {
    using type = typename Plain<Result>::type(typename Plain<Arguments>::type...);
};

template <typename Real, typename Ours>
constexpr bool same() {
    return std::is_same_v<typename Plain<Real>::type, Ours>;
}

#define CHECK_ENTRY(place, Name, Result, Arguments)                       \
    static_assert(offsetof(OrtApi, Name) == (place) * sizeof(void (*)()), \
                  #Name " stands elsewhere in OrtApi");                   \
    static_assert(same<decltype(OrtApi::Name), ours::Name##Function>(),   \
                  #Name " has another signature");
VIM_ORT_ENTRIES(CHECK_ENTRY)
VIM_ORT_SESSION_ENTRIES(CHECK_ENTRY)

#define CHECK_BASE(Name)                                                        \
    static_assert(offsetof(OrtApiBase, Name) == offsetof(ours::ApiBase, Name)); \
    static_assert(same<decltype(OrtApiBase::Name), decltype(ours::ApiBase::Name)>());
CHECK_BASE(GetApi)
CHECK_BASE(GetVersionString)

// Every member of our struct, in its order; that none is left out is what the offsets show.
#define CALLBACKS(X)                                                                              \
    X(CreateKernel)                                                                               \
    X(GetName)                                                                                    \
    X(GetExecutionProviderType)                                                                   \
    X(GetInputType)                                                                               \
    X(GetInputTypeCount) X(GetOutputType) X(GetOutputTypeCount) X(KernelCompute) X(KernelDestroy) \
        X(GetInputCharacteristic) X(GetOutputCharacteristic) X(GetInputMemoryType)                \
            X(GetVariadicInputMinArity) X(GetVariadicInputHomogeneity)                            \
                X(GetVariadicOutputMinArity) X(GetVariadicOutputHomogeneity) X(CreateKernelV2)    \
                    X(KernelComputeV2) X(InferOutputShapeFn) X(GetStartVersion) X(GetEndVersion)
#define CHECK_CALLBACK(Name)                                                           \
    static_assert(offsetof(OrtCustomOp, Name) == offsetof(ours::CustomOp, Name),       \
                  #Name " stands elsewhere in OrtCustomOp");                           \
    static_assert(same<decltype(OrtCustomOp::Name), decltype(ours::CustomOp::Name)>(), \
                  #Name " has another signature");
static_assert(offsetof(OrtCustomOp, version) == offsetof(ours::CustomOp, version));
static_assert(same<decltype(OrtCustomOp::version), decltype(ours::CustomOp::version)>());
CALLBACKS(CHECK_CALLBACK)

#define COUNT_CALLBACK(Name) +1
static_assert(sizeof(ours::CustomOp) == (1 CALLBACKS(COUNT_CALLBACK)) * sizeof(void (*)()));

static_assert(ORT_API_VERSION >= ours::kScratchApiVersion);
static_assert(ORT_FAIL == ours::kFail && ORT_INVALID_ARGUMENT == ours::kInvalidArgument);
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED == ours::kElementUndefined &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT == ours::kElementFloat &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 == ours::kElementUint8 &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 == ours::kElementInt8 &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 == ours::kElementInt32 &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL == ours::kElementBool &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 == ours::kElementInt64 &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 == ours::kElementFloat16 &&
              ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 == ours::kElementBFloat16);
static_assert(INPUT_OUTPUT_REQUIRED == ours::kInputRequired &&
              INPUT_OUTPUT_OPTIONAL == ours::kInputOptional);
static_assert(OrtMemTypeDefault == ours::kMemoryDefault);
static_assert(OrtArenaAllocator == ours::kArenaAllocator);
static_assert(ORT_LOGGING_LEVEL_FATAL == ours::kLogFatal);

}  // namespace

int main() {
#define COUNT_ENTRY(place, Name, Result, Arguments) +1
    constexpr int kEntries = 0 VIM_ORT_ENTRIES(COUNT_ENTRY) VIM_ORT_SESSION_ENTRIES(COUNT_ENTRY);
    std::printf("%d entries, %d callbacks, header of version %d\n", kEntries,
                0 CALLBACKS(COUNT_CALLBACK), ORT_API_VERSION);
    return 0;
}
