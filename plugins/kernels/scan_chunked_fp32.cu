//! The chunked scan for fp32 activations.
#include "scan_chunked.cuh"

namespace vim_plugins {

cudaError_t launch_chunked_fp32(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_chunked<float>(args, tactic, stream);
}

}  // namespace vim_plugins
