//! The chunked scan for bf16 activations.
#include "scan_chunked.cuh"

namespace vim_plugins {

cudaError_t launch_chunked_bf16(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    return launch_chunked<__nv_bfloat16>(args, tactic, stream);
}

}  // namespace vim_plugins
