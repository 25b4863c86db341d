//! What the kernels refuse, on whatever device: sizes, offsets, flags and types, in words.
//!
//! Any C++17 compiler builds this, without CUDA: the kernels for GPUs, those for CPUs and the
//! adapters of every runtime ask the same functions.
#pragma once

#include "vim_plugins/params.h"

namespace vim_plugins {

#define VIM_PLUGINS_DECLARE_VALIDATE(Name, c_name)                                              \
    /*! What is wrong with the sizes, offsets and type alone (pointers are not looked at), or   \
        nullptr. For use at build time, when there are shapes and no buffers yet, and for hosts \
        whose kernels take pointers at any alignment. */                                        \
    const char* validate_shape(const Name##Params& params) noexcept;                            \
                                                                                                \
    /*! nullptr when the CUDA kernels can be launched: the sizes fit and pointers are neither   \
        null nor misaligned; otherwise a static message that names the fault. */                \
    const char* validate(const Name##Params& params) noexcept;
VIM_PLUGINS_OPS(VIM_PLUGINS_DECLARE_VALIDATE)
#undef VIM_PLUGINS_DECLARE_VALIDATE

#define VIM_PLUGINS_DECLARE_VALIDATE(Name, c_name)                                               \
    /*! What is wrong with the sizes and attributes alone, or nullptr. There may be no boxes and \
        no channels. */                                                                          \
    const char* validate_shape(const Name##Params& params) noexcept;
VIM_PLUGINS_REGION_OPS(VIM_PLUGINS_DECLARE_VALIDATE)
#undef VIM_PLUGINS_DECLARE_VALIDATE

}  // namespace vim_plugins
