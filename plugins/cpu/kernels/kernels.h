//! The ops on a CPU: the interface of the kernels, which know nothing of ONNX Runtime.
//!
//! The structs of vim_plugins/params.h hold host pointers here. Activations lie at any alignment of
//! their element. Parameters are taken as valid: validate_shape() says what is refused.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vim_plugins/params.h"

namespace vim_plugins::cpu {

//! Who runs the pieces of an op. The kernels start no thread of their own.
struct Executor {
    void* pool;
    //! body(data, i) for every i in [0, count), perhaps at once; returns when all are done.
    void (*parallel_for)(void* pool, std::size_t count, void (*body)(void* data, std::size_t i),
                         void* data);
    std::int32_t threads;  //!< pieces worth having at once, at least 1
};

//! Alignment of the workspace, in bytes.
inline constexpr std::size_t kWorkspaceAlignment = 64;

#define VIM_CPU_DECLARE(Name, c_name)                                                           \
    /*! Bytes of scratch that run() wants with an executor of so many threads; may be 0. */     \
    std::size_t workspace_bytes(const Name##Params& params, std::int32_t threads) noexcept;     \
    /*! Computes the op; `workspace` is aligned to kWorkspaceAlignment. The result is the same, \
     *  bit for bit, whatever the executor. */                                                  \
    void run(const Name##Params& params, void* workspace, const Executor& executor) noexcept;
VIM_PLUGINS_ALL_OPS(VIM_CPU_DECLARE)
#undef VIM_CPU_DECLARE

//! The instruction set in use: "avx512", "avx2", "sse2", "neon" or "scalar". It is the best one
//! that this CPU and its operating system run, or the one VIM_DEPLOY_CPU_ISA names if they do.
const char* instruction_set() noexcept;

//! Those compiled in, best first, joined by commas.
const char* instruction_sets() noexcept;

}  // namespace vim_plugins::cpu
