//! The chunked scan by pairs of blocks for fp16 activations.
#include "scan_cluster.cuh"

namespace vim_plugins {

cudaError_t launch_cluster_fp16(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_cluster<__half>(args, tactic, stream);
}

}  // namespace vim_plugins
