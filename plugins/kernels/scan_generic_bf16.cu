//! The generic scan for bf16 activations.
#include "scan_generic.cuh"

namespace vim_plugins {

cudaError_t launch_generic_bf16(const ScanArgs& args, cudaStream_t stream) {
    return launch_generic<__nv_bfloat16>(args, stream);
}

}  // namespace vim_plugins
