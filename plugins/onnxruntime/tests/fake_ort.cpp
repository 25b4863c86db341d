//! \file fake_ort.cpp
#include "fake_ort.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

struct OrtMemoryInfo {
    bool gpu;
};

struct OrtAllocator {
    OrtMemoryInfo memory;
};

namespace {

namespace ort = vim_plugins::ort;

FakeOrt state;

OrtStatus* refuse(std::string const& message) {
    ++state.live;
    return new OrtStatus{ort::kFail, message};
}

// Counts a call of an entry that may fail; the status when it is the one to fail.
OrtStatus* call(char const* entry) {
    int const number = ++state.calls;
    return number == state.fail_at ? refuse(std::string("the fake fails in ") + entry) : nullptr;
}

#define MAY_FAIL()                                  \
    if (OrtStatus* const failed = call(__func__)) { \
        return failed;                              \
    }

template <typename Value>
Value* made(Value value) {
    ++state.live;
    return new Value(std::move(value));
}

template <typename Value>
void release(Value* value) {
    if (value != nullptr) {
        --state.live;
        delete value;
    }
}

OrtStatus* CreateStatus(int code, char const* message) {
    return made(OrtStatus{code, message});
}
char const* GetErrorMessage(OrtStatus const* status) {
    return status->message.c_str();
}
OrtStatus* CreateCustomOpDomain(char const* domain, OrtCustomOpDomain** out) {
    MAY_FAIL()
    ++state.domains;
    *out = new OrtCustomOpDomain{domain, {}};
    return nullptr;
}
OrtStatus* CustomOpDomain_Add(OrtCustomOpDomain* domain, OrtCustomOp const* op) {
    MAY_FAIL()
    domain->ops.push_back(op);
    return nullptr;
}
OrtStatus* AddCustomOpDomain(OrtSessionOptions* options, OrtCustomOpDomain* domain) {
    MAY_FAIL()
    options->domains.push_back(domain);
    return nullptr;
}
OrtStatus* GetTensorMutableData(OrtValue* value, void** out) {
    MAY_FAIL()
    *out = value->bytes.data();
    return nullptr;
}
OrtStatus* CreateTensorTypeAndShapeInfo(OrtTensorTypeAndShapeInfo** out) {
    MAY_FAIL()
    *out = made(OrtTensorTypeAndShapeInfo{});
    return nullptr;
}
OrtStatus* SetTensorElementType(OrtTensorTypeAndShapeInfo* info, int type) {
    MAY_FAIL()
    info->element = type;
    return nullptr;
}
OrtStatus* SetDimensions(OrtTensorTypeAndShapeInfo* info, std::int64_t const* sizes,
                         std::size_t count) {
    MAY_FAIL()
    info->sizes.assign(sizes, sizes + count);
    info->names.resize(count);
    return nullptr;
}
OrtStatus* GetTensorElementType(OrtTensorTypeAndShapeInfo const* info, int* out) {
    MAY_FAIL()
    *out = info->element;
    return nullptr;
}
OrtStatus* GetDimensionsCount(OrtTensorTypeAndShapeInfo const* info, std::size_t* out) {
    MAY_FAIL()
    *out = info->sizes.size();
    return nullptr;
}
OrtStatus* GetDimensions(OrtTensorTypeAndShapeInfo const* info, std::int64_t* sizes,
                         std::size_t count) {
    MAY_FAIL()
    for (std::size_t i = 0; i < count; ++i) {
        sizes[i] = info->sizes.at(i);
    }
    return nullptr;
}
OrtStatus* GetSymbolicDimensions(OrtTensorTypeAndShapeInfo const* info, char const** names,
                                 std::size_t count) {
    MAY_FAIL()
    for (std::size_t i = 0; i < count; ++i) {
        names[i] = info->names.at(i).c_str();
    }
    return nullptr;
}
OrtStatus* SetSymbolicDimensions(OrtTensorTypeAndShapeInfo* info, char const** names,
                                 std::size_t count) {
    MAY_FAIL()
    info->names.assign(names, names + count);
    return nullptr;
}
OrtStatus* GetTensorTypeAndShape(OrtValue const* value, OrtTensorTypeAndShapeInfo** out) {
    MAY_FAIL()
    *out = made(OrtTensorTypeAndShapeInfo(value->info));
    return nullptr;
}
OrtStatus* CreateCpuMemoryInfo(int, int, OrtMemoryInfo** out) {
    MAY_FAIL()
    *out = made(OrtMemoryInfo{false});
    return nullptr;
}
OrtStatus* take(std::size_t bytes, void** out) {
    *out = state.no_memory ? nullptr : std::malloc(bytes);
    if (*out != nullptr) {
        std::memset(*out, 0xFF, bytes);  // NaN in every element type
        ++state.live;
    }
    ++state.scratches;
    state.scratch_bytes = bytes;
    state.scratch = *out;
    return nullptr;
}
OrtStatus* AllocatorAlloc(OrtAllocator* allocator, std::size_t bytes, void** out) {
    MAY_FAIL()
    return allocator->memory.gpu ? refuse("memory of a GPU without a stream") : take(bytes, out);
}
OrtStatus* AllocatorFree(OrtAllocator*, void* pointer) {
    std::free(pointer);
    --state.live;
    return nullptr;
}
OrtStatus* AllocatorGetInfo(OrtAllocator const* allocator, OrtMemoryInfo const** out) {
    MAY_FAIL()
    *out = &allocator->memory;
    return nullptr;
}
template <typename Value>
OrtStatus* find(std::map<std::string, Value> const& values, char const* name, Value* out) {
    auto const found = values.find(name);
    if (found == values.end()) {
        return refuse(std::string("no attribute ") + name);
    }
    *out = found->second;
    return nullptr;
}
OrtStatus* KernelInfoGetAttribute_float(OrtKernelInfo const* info, char const* name, float* out) {
    MAY_FAIL()
    return find(info->floats, name, out);
}
OrtStatus* KernelInfoGetAttribute_int64(OrtKernelInfo const* info, char const* name,
                                        std::int64_t* out) {
    MAY_FAIL()
    return find(info->integers, name, out);
}
OrtStatus* KernelContext_GetInputCount(OrtKernelContext const* context, std::size_t* out) {
    MAY_FAIL()
    *out = context->inputs.size();
    return nullptr;
}
OrtStatus* KernelContext_GetInput(OrtKernelContext const* context, std::size_t index,
                                  OrtValue const** out) {
    MAY_FAIL()
    *out = context->inputs.at(index);
    return nullptr;
}
OrtStatus* KernelContext_GetOutput(OrtKernelContext* context, std::size_t,
                                   std::int64_t const* sizes, std::size_t count, OrtValue** out) {
    MAY_FAIL()
    OrtValue& output = *context->output;
    output.info.sizes.assign(sizes, sizes + count);
    std::size_t elements = 1;
    for (std::size_t i = 0; i < count; ++i) {
        elements *= static_cast<std::size_t>(sizes[i]);
    }
    output.bytes.assign(elements * element_size(output.info.element), 0xFF);
    *out = &output;
    return nullptr;
}
OrtStatus* AddSessionConfigEntry(OrtSessionOptions* options, char const* key, char const* value) {
    MAY_FAIL()
    options->entries[key] = value;
    return nullptr;
}
OrtStatus* HasSessionConfigEntry(OrtSessionOptions const* options, char const* key, int* out) {
    MAY_FAIL()
    *out = static_cast<int>(options->entries.count(key));
    return nullptr;
}
OrtStatus* GetSessionConfigEntry(OrtSessionOptions const* options, char const* key, char* value,
                                 std::size_t* size) {
    MAY_FAIL()
    std::string const& found = options->entries.at(key);
    if (value != nullptr) {
        std::memcpy(value, found.c_str(), found.size() + 1);
    }
    *size = found.size() + 1;
    return nullptr;
}
OrtStatus* KernelContext_GetAllocator(OrtKernelContext const*, OrtMemoryInfo const* memory,
                                      OrtAllocator** out) {
    MAY_FAIL()
    *out = made(OrtAllocator{*memory});
    return nullptr;
}
OrtStatus* KernelInfoGetAllocator(OrtKernelInfo const*, int, OrtAllocator** out) {
    MAY_FAIL()
    *out = made(OrtAllocator{{true}});
    return nullptr;
}
OrtStatus* KernelContext_GetScratchBuffer(OrtKernelContext const*, OrtMemoryInfo const* memory,
                                          std::size_t bytes, void** out) {
    MAY_FAIL()
    return memory->gpu ? take(bytes, out) : refuse("scratch of a stream on the CPU");
}
OrtStatus* KernelContext_GetGPUComputeStream(OrtKernelContext const* context, void** out) {
    MAY_FAIL()
    *out = context->stream;
    return nullptr;
}
OrtStatus* ShapeInferContext_GetInputCount(OrtShapeInferContext const* context, std::size_t* out) {
    MAY_FAIL()
    *out = context->inputs.size();
    return nullptr;
}
OrtStatus* ShapeInferContext_GetInputTypeShape(OrtShapeInferContext const* context,
                                               std::size_t index, OrtTensorTypeAndShapeInfo** out) {
    MAY_FAIL()
    *out = const_cast<OrtTensorTypeAndShapeInfo*>(&context->inputs.at(index));
    return nullptr;
}
OrtStatus* ShapeInferContext_SetOutputTypeShape(OrtShapeInferContext const* context, std::size_t,
                                                OrtTensorTypeAndShapeInfo const* info) {
    MAY_FAIL()
    auto* changed = const_cast<OrtShapeInferContext*>(context);
    changed->output = *info;
    changed->answered = true;
    return nullptr;
}
OrtStatus* KernelContext_ParallelFor(OrtKernelContext const* context, ort::Piece piece,
                                     std::size_t total, std::size_t, void* data) {
    MAY_FAIL()
    // Relaxed: an order of the pieces that ONNX Runtime does not promise would hide races.
    std::atomic<std::size_t> next{0};
    auto const take = [&next] { return next.fetch_add(1, std::memory_order_relaxed); };
    auto const work = [&] {
        for (std::size_t i = take(); i < total; i = take()) {
            piece(data, i);
            state.pieces.fetch_add(1, std::memory_order_relaxed);
        }
    };
    std::vector<std::thread> pool;
    for (std::size_t i = 1; i < context->threads; ++i) {
        pool.emplace_back(work);
    }
    work();
    for (std::thread& thread : pool) {
        thread.join();
    }
    return nullptr;
}
void ReleaseStatus(OrtStatus* status) {
    release(status);
}
void ReleaseMemoryInfo(OrtMemoryInfo* info) {
    release(info);
}
void ReleaseTensorTypeAndShapeInfo(OrtTensorTypeAndShapeInfo* info) {
    release(info);
}
void ReleaseCustomOpDomain(OrtCustomOpDomain* domain) {
    --state.domains;
    delete domain;
}
void ReleaseAllocator(OrtAllocator* allocator) {
    release(allocator);
}

void not_declared() {
    std::puts("FAILED an entry of the API was called that ort_api.h does not declare");
    std::abort();
}

// The table, with a trap wherever nothing is declared.
struct Table {
    void (*entries[400])();

    Table() {
        for (auto& entry : entries) {
            entry = not_declared;
        }
#define FAKE_ENTRY(place, Name, Result, Arguments) \
    entries[place] = reinterpret_cast<void (*)()>(static_cast<ort::Name##Function>(Name));
        VIM_ORT_ENTRIES(FAKE_ENTRY)
#undef FAKE_ENTRY
    }
};

OrtApi const* get_api(std::uint32_t version) {
    static Table const table;
    return version <= state.newest_api ? reinterpret_cast<OrtApi const*>(table.entries) : nullptr;
}

char const* get_version() {
    return "1.32.0";
}

}  // namespace

FakeOrt& fake_ort() {
    return state;
}

OrtApiBase const* fake_base() {
    static ort::ApiBase const base{get_api, get_version};
    return reinterpret_cast<OrtApiBase const*>(&base);
}

std::size_t element_size(int element) {
    return element == ort::kElementFloat ? 4 : 2;
}
