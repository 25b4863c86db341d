//! The serial scan for bf16 activations.
#include "scan_serial.cuh"

namespace vim_plugins {

cudaError_t launch_serial_bf16(const ScanArgs& args, cudaStream_t stream) {
    return launch_serial<__nv_bfloat16>(args, stream);
}

}  // namespace vim_plugins
