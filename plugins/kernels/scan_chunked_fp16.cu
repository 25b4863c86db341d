//! The chunked scan for fp16 activations.
#include "scan_chunked.cuh"

namespace vim_plugins {

cudaError_t launch_chunked_fp16(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_chunked<__half>(args, tactic, stream);
}

}  // namespace vim_plugins
