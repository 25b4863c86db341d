//! The kernels through C, for tests in Python: any instruction set, and threads of their own.
#include "../kernels/tasks.h"
#include "thread_executor.h"

#define VIM_CPU_EXPORT extern "C" __attribute__((visibility("default")))

namespace cpu = vim_plugins::cpu;

VIM_CPU_EXPORT const char* vim_cpu_instruction_set() {
    return cpu::instruction_set();
}

VIM_CPU_EXPORT const char* vim_cpu_instruction_sets() {
    return cpu::instruction_sets();
}

//! 1 when kernels of this name are compiled in and run on this CPU.
VIM_CPU_EXPORT int vim_cpu_runs(const char* name) {
    return cpu::kernels_named(name) != nullptr ? 1 : 0;
}

#define VIM_CPU_C_API(Name, c_name)                                                       \
    VIM_CPU_EXPORT std::size_t vim_cpu_##c_name##_params_size() {                         \
        return sizeof(vim_plugins::Name##Params);                                         \
    }                                                                                     \
    VIM_CPU_EXPORT std::size_t vim_cpu_##c_name##_workspace_bytes(                        \
        const vim_plugins::Name##Params* params, std::int32_t threads) {                  \
        return cpu::workspace_bytes(*params, threads);                                    \
    }                                                                                     \
    /* 0 when good, 1 when kernels of this name do not run here. */                       \
    VIM_CPU_EXPORT int vim_cpu_##c_name##_run(const char* name,                           \
                                              const vim_plugins::Name##Params* params,    \
                                              void* workspace, std::int32_t threads) {    \
        const cpu::Kernels* const kernels = cpu::kernels_named(name);                     \
        if (kernels == nullptr) {                                                         \
            return 1;                                                                     \
        }                                                                                 \
        cpu::run_with(*kernels, *params, workspace, vim_tests::thread_executor(threads)); \
        return 0;                                                                         \
    }
VIM_PLUGINS_ALL_OPS(VIM_CPU_C_API)
