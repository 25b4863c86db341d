//! The convolution for fp16 activations.
#include "conv.cuh"

namespace vim_plugins {

cudaError_t launch_conv_fp16(const ConvArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_conv<__half>(args, tactic, stream);
}

}  // namespace vim_plugins
