//! The convolution on the host: which tactic runs which shape, and the launch.
#include <array>
#include <cstdint>

#include "checks.h"
#include "kernel_args.h"
#include "vim_plugins/ops.h"

namespace vim_plugins {
namespace {

bool conv_vector(const BiCausalConvParams& p) {
    return p.width == 4 && p.channels % 8 == 0 && p.xz_columns % 8 == 0 && p.x_off % 8 == 0;
}

}  // namespace

bool supports(const BiCausalConvParams& params, Tactic tactic) noexcept {
    return validate_shape(params) == nullptr &&
           (tactic == Tactic::kDefault || tactic == Tactic::kGeneric ||
            (tactic == Tactic::kVector && conv_vector(params)));
}

std::int32_t tactics(const BiCausalConvParams& params, std::int32_t sm_count, Tactic* out,
                     std::int32_t capacity) noexcept {
    if (validate_shape(params) != nullptr) {
        return 0;
    }
    return list_tactics(
        default_tactic(params, sm_count), std::array<Tactic, 0>{}, [](Tactic) { return false; },
        out, capacity);
}

Tactic default_tactic(const BiCausalConvParams& params, std::int32_t) noexcept {
    return conv_vector(params) ? Tactic::kVector : Tactic::kGeneric;
}

std::size_t workspace_bytes(const BiCausalConvParams&, Tactic) noexcept {
    return 0;
}

cudaError_t launch(const BiCausalConvParams& params, Tactic tactic, void*,
                   cudaStream_t stream) noexcept {
    if (validate(params) != nullptr || !supports(params, tactic)) {
        return cudaErrorInvalidValue;
    }
    if (tactic == Tactic::kDefault) {
        tactic = default_tactic(params, 0);
    }
    const ConvArgs args{at_column(params.xz, params.x_off, params.type),
                        params.w,
                        params.bias,
                        params.u2,
                        params.batch,
                        params.length,
                        params.channels,
                        params.width,
                        params.xz_columns};
    switch (params.type) {
        case DataType::kFloat32:
            return launch_conv_fp32(args, tactic, stream);
        case DataType::kFloat16:
            return launch_conv_fp16(args, tactic, stream);
        default:
            return launch_conv_bf16(args, tactic, stream);
    }
}

}  // namespace vim_plugins
