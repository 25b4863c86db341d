//! The serial scan for fp16 activations.
#include "scan_serial.cuh"

namespace vim_plugins {

cudaError_t launch_serial_fp16(const ScanArgs& args, cudaStream_t stream) {
    return launch_serial<__half>(args, stream);
}

}  // namespace vim_plugins
