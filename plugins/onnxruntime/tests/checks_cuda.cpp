//! \file checks_cuda.cpp
//! What the CUDA provider alone does: the session's stream, scratch that belongs to it. The kernels
//! are those of the GPU, compiled for the CPU (plugins/tests/host/shim); cuda_device.cpp is
//! compiled with `launch` renamed, so that what it launches with is seen here.
#include <mutex>
#include <string>

#include "harness.h"
#include "vim_plugins/ops.h"

namespace {

struct Seen {
    int launches = 0;
    void* workspace = nullptr;
    void* stream = nullptr;
    cudaError_t answer = cudaSuccess;
};
Seen seen;

}  // namespace

namespace vim_plugins {

#define VIM_PLUGINS_RECORD(Name, c_name)                                                    \
    cudaError_t recorded_launch(const Name##Params& params, Tactic tactic, void* workspace, \
                                cudaStream_t stream) noexcept;                              \
    cudaError_t recorded_launch(const Name##Params& params, Tactic tactic, void* workspace, \
                                cudaStream_t stream) noexcept {                             \
        static std::mutex mutex; /* the shim runs one block at a time */                    \
        std::lock_guard<std::mutex> const lock(mutex);                                      \
        ++seen.launches;                                                                    \
        seen.workspace = workspace;                                                         \
        seen.stream = stream;                                                               \
        return seen.answer != cudaSuccess ? seen.answer                                     \
                                          : launch(params, tactic, workspace, stream);      \
    }
VIM_PLUGINS_OPS(VIM_PLUGINS_RECORD)
#undef VIM_PLUGINS_RECORD

}  // namespace vim_plugins

namespace harness {

char const* provider() {
    return "CUDAExecutionProvider";
}

std::size_t region_ops() {
    return 0;
}

void check_provider() {
    vim_tests::Spec spec;
    spec.op = vim_tests::Op::kBiScan;
    spec.length = 257;  // past what chunked blocks hold in registers: scratch is wanted
    spec.channels = 64;  // whole blocks of the serial kernel, whose scratch is of such
    vim_tests::Problem const problem = make_problem(spec, 11);
    NodeCase node(problem);
    fake_ort().scratches = 0;
    {
        Kernel const kernel(op_for(spec), node.info);
        OrtKernelContext context = node.context();
        seen = {};
        CHECK(kernel.compute(context).empty());
        CHECK(seen.launches == 1);
        CHECK(seen.stream == context.stream);
        CHECK(fake_ort().scratches == 1);
        CHECK(fake_ort().scratch_bytes == 4U * 257U * 64U);
        CHECK(seen.workspace != nullptr && seen.workspace == fake_ort().scratch);
        CHECK(vim_tests::relative_l2(node.result(), vim_tests::reference(problem)) <=
              vim_tests::tolerance(spec.type));

        context.stream = nullptr;  // the default stream is one as well
        CHECK(kernel.compute(context).empty());
        CHECK(seen.stream == nullptr);

        seen.answer = cudaErrorLaunchFailure;
        CHECK(kernel.compute(context).find("VimBiSelectiveScan: the kernel was not launched: ") ==
              0);
        seen.answer = cudaSuccess;
    }
    CHECK(fake_ort().live == 0);

    // 1.17 has no scratch that belongs to a stream: nothing is registered, and the file runs.
    OrtSessionOptions old;
    fake_ort().newest_api = 17;
    CHECK(words_of(RegisterCustomOps(&old, fake_base())).empty());
    CHECK(old.domains.empty());
    fake_ort().newest_api = 32;
}

}  // namespace harness
