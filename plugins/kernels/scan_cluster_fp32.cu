//! The chunked scan by pairs of blocks for fp32 activations.
#include "scan_cluster.cuh"

namespace vim_plugins {

cudaError_t launch_cluster_fp32(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_cluster<float>(args, tactic, stream);
}

bool clusters_run() {
    return runs_in_clusters(cluster_scan_kernel<float, ChunkedShape4<kClusterStates>>);
}

}  // namespace vim_plugins
