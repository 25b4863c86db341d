//! The convolution for bf16 activations.
#include "conv.cuh"

namespace vim_plugins {

cudaError_t launch_conv_bf16(const ConvArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_conv<__nv_bfloat16>(args, tactic, stream);
}

}  // namespace vim_plugins
