//! \file cuda_device.cpp
//! The ops on ONNX Runtime's CUDA provider: launch functions of plugins/kernels, on the stream of
//! the session.
#include <cuda_runtime_api.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "calls.h"
#include "device.h"
#include "vim_plugins/contract.h"
#include "vim_plugins/ops.h"

namespace vim_plugins::ort {
namespace {

class CudaDevice final : public Device {
  public:
    CudaDevice(OrtApi const* api, OrtKernelInfo const* info) : api_(api) {
        OrtAllocator* raw = nullptr;
        check(api, KernelInfoGetAllocator(api)(info, kMemoryDefault, &raw));
        allocator_ = Allocator(raw, {api});
        check(api, AllocatorGetInfo(api)(raw, &memory_));
    }

#define VIM_PLUGINS_DEFINE_RUN(Name, c_name)                                         \
    void run(Name##Params const& params, OrtKernelContext* context) const override { \
        run_op(params, k##Name, context);                                            \
    }
    VIM_ORT_OPS(VIM_PLUGINS_DEFINE_RUN)
#undef VIM_PLUGINS_DEFINE_RUN

  private:
    template <typename Params>
    void run_op(Params const& params, char const* op, OrtKernelContext* context) const {
        if (char const* fault = validate(params)) {  // buffers of others may be misaligned
            throw std::invalid_argument(std::string(op) + ": " + fault);
        }
        // nullptr is the default stream, which a host may have chosen.
        void* stream = nullptr;
        check(api_, KernelContext_GetGPUComputeStream(api_)(context, &stream));
        std::size_t const bytes = workspace_bytes(params, Tactic::kDefault);
        if (bytes == 0) {
            launch_on(params, op, nullptr, stream);
            return;
        }
        // Freed when the kernels are enqueued, not when they are done: ONNX Runtime hands a scratch
        // buffer out again to work of the same stream only.
        Scratch const scratch = take_scratch(context, bytes);
        launch_on(params, op, scratch.get(), stream);
    }

    template <typename Params>
    void launch_on(Params const& params, char const* op, void* workspace, void* stream) const {
        cudaError_t const status =
            launch(params, Tactic::kDefault, workspace, static_cast<cudaStream_t>(stream));
        if (status != cudaSuccess) {
            throw std::runtime_error(std::string(op) + ": the kernel was not launched: " +
                                     cudaGetErrorName(status) + ", " + cudaGetErrorString(status));
        }
    }

    Scratch take_scratch(OrtKernelContext* context, std::size_t bytes) const {
        OrtAllocator* raw = nullptr;  // the very one that the buffer comes from
        check(api_, KernelContext_GetAllocator(api_)(context, memory_, &raw));
        Allocator allocator(raw, {api_});
        void* pointer = nullptr;
        check(api_, KernelContext_GetScratchBuffer(api_)(context, memory_, bytes, &pointer));
        if (pointer == nullptr) {
            throw std::runtime_error("no memory for " + std::to_string(bytes) +
                                     " bytes of scratch");
        }
        return Scratch(api_, std::move(allocator), pointer);
    }

    OrtApi const* api_;
    Allocator allocator_{nullptr, {nullptr}};  //!< keeps memory_
    OrtMemoryInfo const* memory_ = nullptr;    //!< the GPU of the session
};

}  // namespace

std::unique_ptr<Device> make_device(OrtApi const* api, OrtKernelInfo const* info, std::int32_t) {
    return std::make_unique<CudaDevice>(api, info);
}

char const* provider_name() noexcept {
    return "cuda";
}

char const* execution_provider() noexcept {
    return "CUDAExecutionProvider";
}

std::uint32_t needed_api() noexcept {
    return kScratchApiVersion;
}

std::string provider_facts() {
    return ", \"instruction_sets\": [], \"instruction_set\": \"\", \"cuda\": \"" +
           std::to_string(CUDART_VERSION / 1000) + '.' +
           std::to_string(CUDART_VERSION % 1000 / 10) +
           "\", \"architectures\": \"" VIM_PLUGINS_ARCHITECTURES "\"";
}

}  // namespace vim_plugins::ort
