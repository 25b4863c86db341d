//! The generic scan for fp16 activations.
#include "scan_generic.cuh"

namespace vim_plugins {

cudaError_t launch_generic_fp16(const ScanArgs& args, cudaStream_t stream) {
    return launch_generic<__half>(args, stream);
}

}  // namespace vim_plugins
