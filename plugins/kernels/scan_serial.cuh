//! The serial scan, for batches that fill the GPU: a thread owns two adjacent channels with their
//! 2 x N states in registers and walks L; a warp owns 64 channels.
//!
//! B and C of a token are the same for all channels: the warp stages them as fp32 in shared memory,
//! four tokens at a time, and every lane reads them back as broadcast 16-byte loads. Two channels a
//! thread halve those loads per element; with one, they would compete with the special-function
//! unit that bounds the kernel. A warp never waits for another one inside its walk.
//!
//! Every tensor has a running pointer and a signed row step, so that an address costs one
//! instruction and both directions share their code.
//!
//! delta is kept in units of log2 (delta / ln 2), which saves a multiplication an element: the
//! decay is then exp2(delta2 * A), the outputs come out divided by ln 2, and the gate's reciprocal
//! gives the factor back for nothing.
//!
//! Both directions: warp 0 of a block runs forward and warp 1 in reverse over the same channels.
//! Each leaves the fp32 outputs of its first half in scratch; after one barrier each walks the half
//! the other has done, adds the other's output, applies gate and scale, and writes y. Nothing is
//! added atomically and no token is finished twice.
#pragma once

#include "serial_walk.cuh"

namespace vim_plugins {

//! One direction; a block's two warps own 64 channels each.
template <typename T, int kStates, bool kGate>
__global__ void __launch_bounds__(kSerialWarps* kWarp, kSerialBlocksPerSm<kStates>)
    serial_scan_kernel(const ScanArgs args) {
    constexpr int kBlockChannels = kSerialWarps * kSerialWarpChannels;
    const int blocks_per_row = (args.channels + kBlockChannels - 1) / kBlockChannels;
    const int batch = static_cast<int>(blockIdx.x) / blocks_per_row;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int first_channel = (static_cast<int>(blockIdx.x) % blocks_per_row) * kBlockChannels +
                              warp * kSerialWarpChannels;
    if (first_channel >= args.channels) {
        return;
    }
    SerialChannels<T, kStates, false> own;
    serial_init(args, args.reverse, batch, first_channel, warp, own);
    constexpr Finish kFinish = kGate ? Finish::kGate : Finish::kStore;
    SerialWalk<T, kStates, false, kFinish>{own}.run(0, args.length, kLog2E);
}

//! Both directions meeting in the middle; a block owns 64 channels. The gate is always there.
template <typename T, int kStates, bool kLowRank>
__global__ void __launch_bounds__(kSerialWarps* kWarp, kSerialBlocksPerSm<kStates>)
    serial_bi_scan_kernel(const ScanArgs args) {
    const int blocks_per_row = (args.channels + kSerialWarpChannels - 1) / kSerialWarpChannels;
    const int batch = static_cast<int>(blockIdx.x) / blocks_per_row;
    const int first_channel = (static_cast<int>(blockIdx.x) % blocks_per_row) * kSerialWarpChannels;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const bool reverse = warp == 1;
    const int half = args.length / 2;
    SerialChannels<T, kStates, kLowRank> own;
    serial_init(args, reverse, batch, first_channel, warp, own);
    const int own_half = reverse ? args.length - half : half;
    SerialWalk<T, kStates, kLowRank, Finish::kPartial>{own}.run(0, own_half, 1.0F);
    __syncthreads();
    SerialWalk<T, kStates, kLowRank, Finish::kCombine>{own}.run(own_half, args.length - own_half,
                                                                kLog2E / args.scale);
}

template <typename T, int kStates>
auto serial_kernel(const ScanArgs& args) -> void (*)(ScanArgs) {
    if constexpr (kStates == kSerialBothStates) {
        if (args.forward && args.reverse) {
            return args.rank > 0 ? serial_bi_scan_kernel<T, kStates, true>
                                 : serial_bi_scan_kernel<T, kStates, false>;
        }
    }
    return args.z != nullptr ? serial_scan_kernel<T, kStates, true>
                             : serial_scan_kernel<T, kStates, false>;
}

template <typename T, int kStates>
cudaError_t launch_serial_states(const ScanArgs& args, cudaStream_t stream) {
    const bool both = args.forward && args.reverse;
    const int block_channels = both ? kSerialWarpChannels : kSerialWarps * kSerialWarpChannels;
    const int blocks_per_row = (args.channels + block_channels - 1) / block_channels;
    const dim3 grid(static_cast<unsigned>(blocks_per_row) * static_cast<unsigned>(args.batch));
    const dim3 block(kSerialWarps * kWarp);
    return launch_kernel<ScanArgs>(serial_kernel<T, kStates>(args), grid, block,
                                   serial_shared_bytes<kStates>(args.rank), args, stream);
}

template <typename T>
cudaError_t launch_serial(const ScanArgs& args, cudaStream_t stream) {
    switch (args.states) {
        case 1:
            return launch_serial_states<T, 1>(args, stream);
        case 8:
            return launch_serial_states<T, 8>(args, stream);
        case 16:
            return launch_serial_states<T, 16>(args, stream);
        default:
            return cudaErrorInvalidValue;
    }
}

}  // namespace vim_plugins
