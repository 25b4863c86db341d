//! The serial scan, for batches that fill the GPU: a thread owns two adjacent channels with their
//! 2 x N states in registers and walks L; a warp owns 64 channels.
//!
//! B and C of a token are the same for all channels: the warp stages them as fp32 in shared memory,
//! four tokens at a time, and every lane reads them back as broadcast 16-byte loads. Two channels a
//! thread halve those loads per element; with one, they would compete with the special-function
//! unit that bounds the kernel. A warp never waits for another one inside its walk.
//!
//! Every tensor has a running pointer and a signed row step, so that an address costs one
//! instruction and both directions share their code. The warp's number comes from a shuffle: with
//! it the compiler knows the warp to agree on steps and lengths, keeps those in uniform registers,
//! and drops what a warp that had fallen apart would need at a barrier.
//!
//! delta is kept in units of log2 (delta / ln 2), which saves a multiplication an element: the
//! decay is then exp2(delta2 * A), the outputs come out divided by ln 2, and the gate's reciprocal
//! gives the factor back for nothing.
//!
//! Both directions: warp 0 of a block runs forward and warp 1 in reverse over the same channels.
//! Each leaves the fp32 outputs of its first half in scratch; after one barrier each walks the half
//! the other has done, adds to the other's output, applies gate and scale, and writes y. Nothing is
//! added atomically and no token is finished twice. Both cut the sequence into the same tiles,
//! from its beginning, and the scratch holds a tile as it was walked: a lane moves 16 bytes of two
//! tokens, at addresses that no row of the tensors has a part in. The tokens left over at the end
//! are the reverse walk's first and the forward walk's last.
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
    const int warp = warp_number();
    const int first_channel = (static_cast<int>(blockIdx.x) % blocks_per_row) * kBlockChannels +
                              warp * kSerialWarpChannels;
    if (first_channel >= args.channels) {
        return;
    }
    SerialChannels<T, kStates, false> own;
    serial_init(args, args.reverse, batch, first_channel, warp, own);
    serial_output(args, args.reverse, batch, 0, own);
    own.scratch = nullptr;
    constexpr Finish kFinish = kGate ? Finish::kGate : Finish::kStore;
    const SerialWalk<T, kStates, false, kFinish> walk{own};
    walk.tiles(args.length / kSerialTile, kLog2E, 0);
    walk.singles(args.length % kSerialTile, kLog2E, 0);
}

//! Both directions meeting in the middle; a block owns 64 channels. The gate is always there.
template <typename T, int kStates, bool kLowRank>
__global__ void __launch_bounds__(kSerialWarps* kWarp, kSerialBlocksPerSm<kStates>)
    serial_bi_scan_kernel(const ScanArgs args) {
    const int blocks_per_row = (args.channels + kSerialWarpChannels - 1) / kSerialWarpChannels;
    const int batch = static_cast<int>(blockIdx.x) / blocks_per_row;
    const int first_channel = (static_cast<int>(blockIdx.x) % blocks_per_row) * kSerialWarpChannels;
    const int warp = warp_number();
    const bool reverse = warp == 1;
    SerialChannels<T, kStates, kLowRank> own;
    serial_init(args, reverse, batch, first_channel, warp, own);
    own.scratch = args.partial + std::int64_t{blockIdx.x} * args.length * kSerialWarpChannels;
    // Forward: half of the tiles, then the others and what is left. Reverse: the same backwards.
    const int tiles = args.length / kSerialTile;
    const int left = args.length % kSerialTile;
    const int middle = (tiles + 1) / 2;
    const int own_tiles = reverse ? tiles - middle : middle;
    const int own_left = reverse ? left : 0;
    {
        const SerialWalk<T, kStates, kLowRank, Finish::kPartial> walk{own};
        walk.singles(own_left, 1.0F, tiles * kSerialTile);
        walk.tiles(own_tiles, 1.0F, reverse ? middle : 0);
    }
    __syncthreads();
    serial_output(args, reverse, batch, own_tiles * kSerialTile + own_left, own);
    {
        const float divisor = kLog2E / args.scale;
        const SerialWalk<T, kStates, kLowRank, Finish::kCombine> walk{own};
        walk.tiles(tiles - own_tiles, divisor, reverse ? middle - 1 : tiles - 1);
        walk.singles(left - own_left, divisor, args.length - 1);
    }
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
