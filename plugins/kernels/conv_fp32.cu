//! The convolution for fp32 activations.
#include "conv.cuh"

namespace vim_plugins {

cudaError_t launch_conv_fp32(const ConvArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_conv<float>(args, tactic, stream);
}

}  // namespace vim_plugins
