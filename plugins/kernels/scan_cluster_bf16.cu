//! The chunked scan by pairs of blocks for bf16 activations.
#include "scan_cluster.cuh"

namespace vim_plugins {

cudaError_t launch_cluster_bf16(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_cluster<__nv_bfloat16>(args, tactic, stream);
}

}  // namespace vim_plugins
