//! The serial scan for fp32 activations.
#include "scan_serial.cuh"

namespace vim_plugins {

cudaError_t launch_serial_fp32(const ScanArgs& args, cudaStream_t stream) {
    return launch_serial<float>(args, stream);
}

}  // namespace vim_plugins
