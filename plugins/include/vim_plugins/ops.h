//! Host interface of the CUDA kernels: list tactics, ask for workspace, launch; validation is in
//! validate.h, which needs no CUDA.
//!
//! Order of use: validate() once per shape; tactics() or default_tactic(); workspace_bytes();
//! launch() as often as wanted. launch() neither allocates nor synchronises, so it can be captured
//! in a CUDA graph; it validates again (a handful of integer compares) and never crashes on bad
//! parameters. Pointers are device pointers and must be 16-byte aligned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "vim_plugins/params.h"
#include "vim_plugins/validate.h"

namespace vim_plugins {

#define VIM_PLUGINS_DECLARE(Name, c_name)                                                         \
    /*! Writes at most `capacity` tactics valid for this shape, best guess first, and returns how \
        many were written; 0 when validate_shape() refuses. Pointers are not looked at. */        \
    std::int32_t tactics(const Name##Params& params, std::int32_t sm_count, Tactic* out,          \
                         std::int32_t capacity) noexcept;                                         \
                                                                                                  \
    /*! Whether launch() accepts this tactic for this shape (kDefault: always). */                \
    bool supports(const Name##Params& params, Tactic tactic) noexcept;                            \
                                                                                                  \
    /*! The tactic to take without timing, from the shape and the number of multiprocessors. */   \
    Tactic default_tactic(const Name##Params& params, std::int32_t sm_count) noexcept;            \
                                                                                                  \
    /*! Bytes of device workspace (16-byte aligned) that launch() needs with this tactic. It      \
        grows with batch and length, so the value at the largest shape serves every smaller one.  \
        kDefault gives the largest need of any tactic valid for the shape. */                     \
    std::size_t workspace_bytes(const Name##Params& params, Tactic tactic) noexcept;              \
                                                                                                  \
    /*! Enqueues the op. cudaErrorInvalidValue for parameters validate() refuses, an unsupported  \
        tactic or a missing workspace; otherwise what the launch itself says. `workspace` may be  \
        nullptr when workspace_bytes() is 0. */                                                   \
    cudaError_t launch(const Name##Params& params, Tactic tactic, void* workspace,                \
                       cudaStream_t stream) noexcept;
VIM_PLUGINS_OPS(VIM_PLUGINS_DECLARE)
#undef VIM_PLUGINS_DECLARE

}  // namespace vim_plugins

//! The same functions for ctypes and other foreign callers; `tactic` is a vim_plugins::Tactic,
//! results of *_launch are cudaError_t values.
extern "C" {
std::int32_t vim_plugins_contract_version() noexcept;

#define VIM_PLUGINS_DECLARE_C(Name, c_name)                                                \
    const char* vim_##c_name##_validate(const vim_plugins::Name##Params* params) noexcept; \
    std::int32_t vim_##c_name##_tactics(const vim_plugins::Name##Params* params,           \
                                        std::int32_t sm_count, std::int32_t* out,          \
                                        std::int32_t capacity) noexcept;                   \
    std::int32_t vim_##c_name##_default_tactic(const vim_plugins::Name##Params* params,    \
                                               std::int32_t sm_count) noexcept;            \
    std::int64_t vim_##c_name##_workspace_bytes(const vim_plugins::Name##Params* params,   \
                                                std::int32_t tactic) noexcept;             \
    std::int32_t vim_##c_name##_launch(const vim_plugins::Name##Params* params,            \
                                       std::int32_t tactic, void* workspace,               \
                                       void* stream) noexcept;                             \
    std::int32_t vim_##c_name##_params_size() noexcept;
VIM_PLUGINS_OPS(VIM_PLUGINS_DECLARE_C)
#undef VIM_PLUGINS_DECLARE_C
}
