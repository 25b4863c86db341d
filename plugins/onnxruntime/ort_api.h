//! \file ort_api.h
//! The part of ONNX Runtime's C API that we call, declared by ourselves: what a library of custom
//! ops needs, and what a program needs that runs a model (the C++ library in cpp/).
//!
//! ONNX Runtime ships its headers with its C++ archives, and in no wheel: who has it from PyPI has
//! the library and no headers, and would have to find a second package of the same release to build
//! ours. Little is needed. `OrtApi` is a table of function pointers that grows at its end only, so
//! an entry keeps its place in every release; `OrtCustomOp` is a table that we fill, of which ONNX
//! Runtime reads as much as its `version` field says. So the places below, with the signatures that
//! go with them, are valid from the release that added the newest of them on: 1.17 (version 17 of
//! the API), and 1.18 for the two that say so. An older ONNX Runtime answers GetApi() with nullptr.
//!
//! A test compares every place, signature, constant and offset here with the real header, where one
//! is found (tests/unit/ort_ops/test_ort_api.py). Enumerations are `int` here. Handles are opaque
//! and have ONNX Runtime's names, so that both declarations can meet in one program.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtAllocator;
struct OrtApi;
struct OrtApiBase;
struct OrtCustomOp;
struct OrtCustomOpDomain;
struct OrtEnv;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtShapeInferContext;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;

namespace vim_plugins::ort {

//! Version of the API whose entries, and whose layout of OrtCustomOp, are used.
inline constexpr std::uint32_t kApiVersion = 17;
//! The version that has the entries for scratch on a GPU as well.
inline constexpr std::uint32_t kScratchApiVersion = 18;

// Values of ONNX Runtime's enumerations.
inline constexpr int kFail = 1;
inline constexpr int kInvalidArgument = 2;
inline constexpr int kElementUndefined = 0;
inline constexpr int kElementFloat = 1;
inline constexpr int kElementUint8 = 2;
inline constexpr int kElementInt8 = 3;
inline constexpr int kElementInt32 = 6;
inline constexpr int kElementInt64 = 7;
inline constexpr int kElementBool = 9;
inline constexpr int kElementFloat16 = 10;
inline constexpr int kElementBFloat16 = 16;
inline constexpr int kInputRequired = 0;
inline constexpr int kInputOptional = 1;
inline constexpr int kMemoryDefault = 0;
inline constexpr int kArenaAllocator = 1;
inline constexpr int kLogFatal = 4;

//! What RegisterCustomOps() is given: OrtApiBase.
struct ApiBase {
    OrtApi const* (*GetApi)(std::uint32_t version);
    char const* (*GetVersionString)();
};

//! OrtCustomOp as of version 17: `version` first, then these callbacks in this order.
struct CustomOp {
    std::uint32_t version;
    void* (*CreateKernel)(OrtCustomOp const*, OrtApi const*, OrtKernelInfo const*);
    char const* (*GetName)(OrtCustomOp const*);
    char const* (*GetExecutionProviderType)(OrtCustomOp const*);
    int (*GetInputType)(OrtCustomOp const*, std::size_t index);
    std::size_t (*GetInputTypeCount)(OrtCustomOp const*);
    int (*GetOutputType)(OrtCustomOp const*, std::size_t index);
    std::size_t (*GetOutputTypeCount)(OrtCustomOp const*);
    void (*KernelCompute)(void* kernel, OrtKernelContext*);
    void (*KernelDestroy)(void* kernel);
    int (*GetInputCharacteristic)(OrtCustomOp const*, std::size_t index);
    int (*GetOutputCharacteristic)(OrtCustomOp const*, std::size_t index);
    int (*GetInputMemoryType)(OrtCustomOp const*, std::size_t index);
    int (*GetVariadicInputMinArity)(OrtCustomOp const*);
    int (*GetVariadicInputHomogeneity)(OrtCustomOp const*);
    int (*GetVariadicOutputMinArity)(OrtCustomOp const*);
    int (*GetVariadicOutputHomogeneity)(OrtCustomOp const*);
    OrtStatus* (*CreateKernelV2)(OrtCustomOp const*, OrtApi const*, OrtKernelInfo const*,
                                 void** kernel);
    OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
    OrtStatus* (*InferOutputShapeFn)(OrtCustomOp const*, OrtShapeInferContext*);
    int (*GetStartVersion)(OrtCustomOp const*);
    int (*GetEndVersion)(OrtCustomOp const*);
};

//! One piece of work of KernelContext_ParallelFor.
using Piece = void (*)(void* data, std::size_t index);

//! What ONNX Runtime's messages go to.
using Log = void (*)(void* data, int severity, char const* category, char const* name,
                     char const* place, char const* message);

}  // namespace vim_plugins::ort

//! X(place in OrtApi, name, result, (arguments)) of every entry that a library of ops calls.
#define VIM_ORT_ENTRIES(X)                                                                       \
    X(0, CreateStatus, OrtStatus*, (int code, char const* message))                              \
    X(2, GetErrorMessage, char const*, (OrtStatus const*))                                       \
    X(26, CreateCustomOpDomain, OrtStatus*, (char const* domain, OrtCustomOpDomain** out))       \
    X(27, CustomOpDomain_Add, OrtStatus*, (OrtCustomOpDomain*, OrtCustomOp const*))              \
    X(28, AddCustomOpDomain, OrtStatus*, (OrtSessionOptions*, OrtCustomOpDomain*))               \
    X(51, GetTensorMutableData, OrtStatus*, (OrtValue*, void** out))                             \
    X(57, CreateTensorTypeAndShapeInfo, OrtStatus*, (OrtTensorTypeAndShapeInfo * *out))          \
    X(58, SetTensorElementType, OrtStatus*, (OrtTensorTypeAndShapeInfo*, int type))              \
    X(59, SetDimensions, OrtStatus*,                                                             \
      (OrtTensorTypeAndShapeInfo*, std::int64_t const* sizes, std::size_t count))                \
    X(60, GetTensorElementType, OrtStatus*, (OrtTensorTypeAndShapeInfo const*, int* out))        \
    X(61, GetDimensionsCount, OrtStatus*, (OrtTensorTypeAndShapeInfo const*, std::size_t* out))  \
    X(62, GetDimensions, OrtStatus*,                                                             \
      (OrtTensorTypeAndShapeInfo const*, std::int64_t* sizes, std::size_t count))                \
    X(63, GetSymbolicDimensions, OrtStatus*,                                                     \
      (OrtTensorTypeAndShapeInfo const*, char const** names, std::size_t count))                 \
    X(65, GetTensorTypeAndShape, OrtStatus*, (OrtValue const*, OrtTensorTypeAndShapeInfo** out)) \
    X(69, CreateCpuMemoryInfo, OrtStatus*, (int allocator, int memory, OrtMemoryInfo** out))     \
    X(75, AllocatorAlloc, OrtStatus*, (OrtAllocator*, std::size_t bytes, void** out))            \
    X(76, AllocatorFree, OrtStatus*, (OrtAllocator*, void* pointer))                             \
    X(77, AllocatorGetInfo, OrtStatus*, (OrtAllocator const*, OrtMemoryInfo const** out))        \
    X(85, KernelInfoGetAttribute_float, OrtStatus*,                                              \
      (OrtKernelInfo const*, char const* name, float* out))                                      \
    X(86, KernelInfoGetAttribute_int64, OrtStatus*,                                              \
      (OrtKernelInfo const*, char const* name, std::int64_t* out))                               \
    X(88, KernelContext_GetInputCount, OrtStatus*, (OrtKernelContext const*, std::size_t* out))  \
    X(90, KernelContext_GetInput, OrtStatus*,                                                    \
      (OrtKernelContext const*, std::size_t index, OrtValue const** out))                        \
    X(91, KernelContext_GetOutput, OrtStatus*,                                                   \
      (OrtKernelContext*, std::size_t index, std::int64_t const* sizes, std::size_t count,       \
       OrtValue** out))                                                                          \
    X(93, ReleaseStatus, void, (OrtStatus*))                                                     \
    X(94, ReleaseMemoryInfo, void, (OrtMemoryInfo*))                                             \
    X(99, ReleaseTensorTypeAndShapeInfo, void, (OrtTensorTypeAndShapeInfo*))                     \
    X(101, ReleaseCustomOpDomain, void, (OrtCustomOpDomain*))                                    \
    X(130, AddSessionConfigEntry, OrtStatus*,                                                    \
      (OrtSessionOptions*, char const* key, char const* value))                                  \
    X(132, ReleaseAllocator, void, (OrtAllocator*))                                              \
    X(193, KernelContext_GetGPUComputeStream, OrtStatus*, (OrtKernelContext const*, void** out)) \
    X(237, HasSessionConfigEntry, OrtStatus*,                                                    \
      (OrtSessionOptions const*, char const* key, int* out))                                     \
    X(238, GetSessionConfigEntry, OrtStatus*,                                                    \
      (OrtSessionOptions const*, char const* key, char* value, std::size_t* size))               \
    X(253, KernelContext_GetAllocator, OrtStatus*,                                               \
      (OrtKernelContext const*, OrtMemoryInfo const*, OrtAllocator** out))                       \
    X(268, ShapeInferContext_GetInputTypeShape, OrtStatus*,                                      \
      (OrtShapeInferContext const*, std::size_t index, OrtTensorTypeAndShapeInfo** out))         \
    X(267, ShapeInferContext_GetInputCount, OrtStatus*,                                          \
      (OrtShapeInferContext const*, std::size_t* out))                                           \
    X(270, ShapeInferContext_SetOutputTypeShape, OrtStatus*,                                     \
      (OrtShapeInferContext const*, std::size_t index, OrtTensorTypeAndShapeInfo const*))        \
    X(271, SetSymbolicDimensions, OrtStatus*,                                                    \
      (OrtTensorTypeAndShapeInfo*, char const** names, std::size_t count))                       \
    X(274, KernelContext_ParallelFor, OrtStatus*,                                                \
      (OrtKernelContext const*, vim_plugins::ort::Piece, std::size_t total, std::size_t batches, \
       void* data))                                                                              \
    /* From version 18 on. */                                                                    \
    X(277, KernelContext_GetScratchBuffer, OrtStatus*,                                           \
      (OrtKernelContext const*, OrtMemoryInfo const*, std::size_t bytes, void** out))            \
    X(278, KernelInfoGetAllocator, OrtStatus*,                                                   \
      (OrtKernelInfo const*, int memory, OrtAllocator** out))

//! The same of every entry that only a program calls which runs a model.
#define VIM_ORT_SESSION_ENTRIES(X)                                                               \
    X(4, CreateEnvWithCustomLogger, OrtStatus*,                                                  \
      (vim_plugins::ort::Log, void* data, int severity, char const* name, OrtEnv** out))         \
    X(6, DisableTelemetryEvents, OrtStatus*, (OrtEnv const*))                                    \
    X(7, CreateSession, OrtStatus*,                                                              \
      (OrtEnv const*, char const* path, OrtSessionOptions const*, OrtSession** out))             \
    X(8, CreateSessionFromArray, OrtStatus*,                                                     \
      (OrtEnv const*, void const* model, std::size_t bytes, OrtSessionOptions const*,            \
       OrtSession** out))                                                                        \
    X(9, Run, OrtStatus*,                                                                        \
      (OrtSession*, OrtRunOptions const*, char const* const* inputs, OrtValue const* const* given, \
       std::size_t input_count, char const* const* outputs, std::size_t output_count,            \
       OrtValue** results))                                                                      \
    X(10, CreateSessionOptions, OrtStatus*, (OrtSessionOptions * *out))                          \
    X(22, SetSessionLogSeverityLevel, OrtStatus*, (OrtSessionOptions*, int severity))            \
    X(24, SetIntraOpNumThreads, OrtStatus*, (OrtSessionOptions*, int count))                     \
    X(49, CreateTensorWithDataAsOrtValue, OrtStatus*,                                            \
      (OrtMemoryInfo const*, void* values, std::size_t bytes, std::int64_t const* sizes,         \
       std::size_t count, int type, OrtValue** out))                                             \
    X(95, ReleaseSession, void, (OrtSession*))                                                   \
    X(96, ReleaseValue, void, (OrtValue*))                                                       \
    X(100, ReleaseSessionOptions, void, (OrtSessionOptions*))                                    \
    X(228, RegisterCustomOpsLibrary_V2, OrtStatus*, (OrtSessionOptions*, char const* path))

namespace vim_plugins::ort {

// Each entry is a function of the table: ort::CreateStatus(api)(code, message).
#define VIM_ORT_DEFINE(place, Name, Result, Arguments)                  \
    using Name##Function = Result(*) Arguments;                         \
    inline constexpr std::size_t k##Name##Place = place;                \
    inline Name##Function Name(OrtApi const* api) noexcept {            \
        auto const* table = reinterpret_cast<void (*const*)()>(api);    \
        return reinterpret_cast<Name##Function>(table[k##Name##Place]); \
    }
VIM_ORT_ENTRIES(VIM_ORT_DEFINE)
VIM_ORT_SESSION_ENTRIES(VIM_ORT_DEFINE)
#undef VIM_ORT_DEFINE

}  // namespace vim_plugins::ort
