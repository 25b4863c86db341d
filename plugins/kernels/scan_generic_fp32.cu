//! The generic scan for fp32 activations.
#include "scan_generic.cuh"

namespace vim_plugins {

cudaError_t launch_generic_fp32(const ScanArgs& args, cudaStream_t stream) {
    return launch_generic<float>(args, stream);
}

}  // namespace vim_plugins
