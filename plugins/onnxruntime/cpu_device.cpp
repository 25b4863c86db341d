//! \file cpu_device.cpp
//! The ops on ONNX Runtime's CPU provider: kernels of plugins/cpu/kernels, threads of the session.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include "calls.h"
#include "cpu/kernels/kernels.h"
#include "device.h"

namespace vim_plugins::ort {
namespace {

//! The session's pool, as the kernels see it.
struct Pool {
    OrtApi const* api;
    OrtKernelContext const* context;
    OrtStatus* status = nullptr;  //!< the first failure
};

// The kernels know no failures; a pool that did not run its pieces is told of when they are
// through.
void run_pieces(void* data, std::size_t count, Piece body, void* body_data) {
    Pool& pool = *static_cast<Pool*>(data);
    constexpr std::size_t no_limit = 0;
    OrtStatus* const status =
        KernelContext_ParallelFor(pool.api)(pool.context, body, count, no_limit, body_data);
    if (status != nullptr && pool.status != nullptr) {
        ReleaseStatus(pool.api)(status);
    } else if (status != nullptr) {
        pool.status = status;
    }
}

class CpuDevice final : public Device {
  public:
    CpuDevice(OrtApi const* api, std::int32_t threads) : api_(api), threads_(threads) {
        OrtMemoryInfo* raw = nullptr;
        check(api, CreateCpuMemoryInfo(api)(kArenaAllocator, kMemoryDefault, &raw));
        memory_ = MemoryInfo(raw, {api});
    }

#define VIM_PLUGINS_DEFINE_RUN(Name, c_name)                                         \
    void run(Name##Params const& params, OrtKernelContext* context) const override { \
        run_op(params, context);                                                     \
    }
    VIM_ORT_OPS(VIM_PLUGINS_DEFINE_RUN)
#undef VIM_PLUGINS_DEFINE_RUN

  private:
    template <typename Params>
    void run_op(Params const& params, OrtKernelContext* context) const {
        std::size_t const bytes = cpu::workspace_bytes(params, threads_);
        if (bytes == 0) {
            run_with(params, nullptr, context);
            return;
        }
        Scratch const scratch = take_scratch(context, bytes + cpu::kWorkspaceAlignment - 1);
        void* workspace = scratch.get();
        std::size_t room = bytes + cpu::kWorkspaceAlignment - 1;
        run_with(params, std::align(cpu::kWorkspaceAlignment, bytes, workspace, room), context);
    }

    template <typename Params>
    void run_with(Params const& params, void* workspace, OrtKernelContext* context) const {
        Pool pool{api_, context};
        cpu::run(params, workspace, {&pool, run_pieces, threads_});
        check(api_, pool.status);
    }

    Scratch take_scratch(OrtKernelContext* context, std::size_t bytes) const {
        OrtAllocator* raw = nullptr;
        check(api_, KernelContext_GetAllocator(api_)(context, memory_.get(), &raw));
        Allocator allocator(raw, {api_});
        void* pointer = nullptr;
        check(api_, AllocatorAlloc(api_)(allocator.get(), bytes, &pointer));
        if (pointer == nullptr) {
            throw std::runtime_error("no memory for " + std::to_string(bytes) +
                                     " bytes of scratch");
        }
        return Scratch(api_, std::move(allocator), pointer);
    }

    OrtApi const* api_;
    std::int32_t threads_;
    MemoryInfo memory_{nullptr, {nullptr}};
};

}  // namespace

std::unique_ptr<Device> make_device(OrtApi const* api, OrtKernelInfo const*, std::int32_t threads) {
    return std::make_unique<CpuDevice>(api, threads);
}

char const* provider_name() noexcept {
    return "cpu";
}

char const* execution_provider() noexcept {
    return "CPUExecutionProvider";
}

std::uint32_t needed_api() noexcept {
    return kApiVersion;
}

std::string provider_facts() {
    std::istringstream names(cpu::instruction_sets());
    std::string listed;
    for (std::string name; std::getline(names, name, ',');) {
        listed += (listed.empty() ? "\"" : ", \"") + name + '"';
    }
    return ", \"instruction_sets\": [" + listed + "], \"instruction_set\": \"" +
           cpu::instruction_set() + '"';
}

}  // namespace vim_plugins::ort
