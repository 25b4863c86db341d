//! The C interface of ops.h: the same functions for callers without C++.
#include "vim_plugins/contract.h"
#include "vim_plugins/ops.h"

namespace vim_plugins {
namespace {

template <typename Params>
const char* c_validate(const Params* params) noexcept {
    return params == nullptr ? "params is a null pointer" : validate(*params);
}

template <typename Params>
std::int32_t c_tactics(const Params* params, std::int32_t sm_count, std::int32_t* out,
                       std::int32_t capacity) noexcept {
    if (params == nullptr || out == nullptr) {
        return 0;
    }
    Tactic found[kMaxTactics];
    const std::int32_t count =
        tactics(*params, sm_count, found, capacity < kMaxTactics ? capacity : kMaxTactics);
    for (std::int32_t i = 0; i < count; ++i) {
        out[i] = static_cast<std::int32_t>(found[i]);
    }
    return count;
}

template <typename Params>
std::int32_t c_default_tactic(const Params* params, std::int32_t sm_count) noexcept {
    return static_cast<std::int32_t>(params == nullptr ? Tactic::kDefault
                                                       : default_tactic(*params, sm_count));
}

template <typename Params>
std::int64_t c_workspace_bytes(const Params* params, std::int32_t tactic) noexcept {
    return params == nullptr
               ? 0
               : static_cast<std::int64_t>(workspace_bytes(*params, static_cast<Tactic>(tactic)));
}

template <typename Params>
std::int32_t c_launch(const Params* params, std::int32_t tactic, void* workspace,
                      void* stream) noexcept {
    if (params == nullptr) {
        return static_cast<std::int32_t>(cudaErrorInvalidValue);
    }
    return static_cast<std::int32_t>(
        launch(*params, static_cast<Tactic>(tactic), workspace, static_cast<cudaStream_t>(stream)));
}

}  // namespace
}  // namespace vim_plugins

extern "C" {

std::int32_t vim_plugins_contract_version() noexcept {
    return vim_plugins::kContractVersion;
}

#define VIM_PLUGINS_DEFINE_C(Name, c_name)                                                  \
    const char* vim_##c_name##_validate(const vim_plugins::Name##Params* params) noexcept { \
        return vim_plugins::c_validate(params);                                             \
    }                                                                                       \
    std::int32_t vim_##c_name##_tactics(const vim_plugins::Name##Params* params,            \
                                        std::int32_t sm_count, std::int32_t* out,           \
                                        std::int32_t capacity) noexcept {                   \
        return vim_plugins::c_tactics(params, sm_count, out, capacity);                     \
    }                                                                                       \
    std::int32_t vim_##c_name##_default_tactic(const vim_plugins::Name##Params* params,     \
                                               std::int32_t sm_count) noexcept {            \
        return vim_plugins::c_default_tactic(params, sm_count);                             \
    }                                                                                       \
    std::int64_t vim_##c_name##_workspace_bytes(const vim_plugins::Name##Params* params,    \
                                                std::int32_t tactic) noexcept {             \
        return vim_plugins::c_workspace_bytes(params, tactic);                              \
    }                                                                                       \
    std::int32_t vim_##c_name##_launch(const vim_plugins::Name##Params* params,             \
                                       std::int32_t tactic, void* workspace,                \
                                       void* stream) noexcept {                             \
        return vim_plugins::c_launch(params, tactic, workspace, stream);                    \
    }                                                                                       \
    std::int32_t vim_##c_name##_params_size() noexcept {                                    \
        return static_cast<std::int32_t>(sizeof(vim_plugins::Name##Params));                \
    }
VIM_PLUGINS_OPS(VIM_PLUGINS_DEFINE_C)
#undef VIM_PLUGINS_DEFINE_C

}  // extern "C"
