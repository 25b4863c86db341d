//! The serial scan, for batches that fill the GPU: a thread owns two adjacent channels with their
//! 2 x N states in registers and walks L; a warp owns 64 channels. In both directions a thread may
//! have one channel and a warp 32 (serial_choice.h says when).
//!
//! B and C of a token are the same for all channels: the warp stages them as fp32 in shared memory,
//! four tokens at a time, and every lane reads them back as broadcast 16-byte loads. Two channels a
//! thread halve those loads per element; with one, they compete with the special-function unit that
//! bounds the kernel. A warp never waits for another one inside its walk.
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
//! tokens (or four, of one channel), at addresses that no row of the tensors has a part in. The
//! tokens left over at the end are the reverse walk's first and the forward walk's last.
#pragma once

#include "serial_walk.cuh"

namespace vim_plugins {

//! One direction; a block's two warps own 64 channels each.
template <typename T, int kStates, bool kGate>
__global__ void __launch_bounds__(kSerialWarps* kWarp, kSerialBlocksPerSm<kStates, 2>)
    serial_scan_kernel(const ScanArgs args) {
    constexpr int kWarpChannels = kSerialWarpChannels<2>;
    constexpr int kBlockChannels = kSerialWarps * kWarpChannels;
    const int blocks_per_row = (args.channels + kBlockChannels - 1) / kBlockChannels;
    const int batch = static_cast<int>(blockIdx.x) / blocks_per_row;
    const int warp = warp_number();
    const int first_channel =
        (static_cast<int>(blockIdx.x) % blocks_per_row) * kBlockChannels + warp * kWarpChannels;
    if (first_channel >= args.channels) {
        return;
    }
    SerialChannels<T, kStates, false, 2> own;
    serial_init(args, args.reverse, batch, first_channel, warp, own);
    serial_output(args, args.reverse, batch, 0, own);
    constexpr Finish kFinish = kGate ? Finish::kGate : Finish::kStore;
    const SerialWalk<T, kStates, false, 2, kFinish> walk{own};
    walk.tiles(args.length / kSerialTile, kLog2E, 0);
    walk.singles(args.length % kSerialTile, kLog2E, 0);
}

//! Both directions meeting in the middle; a block owns a warp's channels. The gate is always there.
template <typename T, int kStates, bool kLowRank, int kChannels>
__global__ void __launch_bounds__(kSerialWarps* kWarp, kSerialBlocksPerSm<kStates, kChannels>)
    serial_bi_scan_kernel(const ScanArgs args) {
    constexpr int kWarpChannels = kSerialWarpChannels<kChannels>;
    const int blocks_per_row = (args.channels + kWarpChannels - 1) / kWarpChannels;
    const int batch = static_cast<int>(blockIdx.x) / blocks_per_row;
    const int first_channel = (static_cast<int>(blockIdx.x) % blocks_per_row) * kWarpChannels;
    const int warp = warp_number();
    const bool reverse = warp == 1;
    SerialChannels<T, kStates, kLowRank, kChannels> own;
    serial_init(args, reverse, batch, first_channel, warp, own);
    own.scratch = args.partial + std::int64_t{blockIdx.x} * args.length * kWarpChannels;
    // Forward: half of the tiles, then the others and what is left. Reverse: the same backwards.
    const int tiles = args.length / kSerialTile;
    const int left = args.length % kSerialTile;
    const int middle = (tiles + 1) / 2;
    const int own_tiles = reverse ? tiles - middle : middle;
    const int own_left = reverse ? left : 0;
    {
        const SerialWalk<T, kStates, kLowRank, kChannels, Finish::kPartial> walk{own};
        walk.singles(own_left, 1.0F, tiles * kSerialTile);
        walk.tiles(own_tiles, 1.0F, reverse ? middle : 0);
    }
    __syncthreads();
    serial_output(args, reverse, batch, own_tiles * kSerialTile + own_left, own);
    {
        const float divisor = kLog2E / args.scale;
        const SerialWalk<T, kStates, kLowRank, kChannels, Finish::kCombine> walk{own};
        walk.tiles(tiles - own_tiles, divisor, reverse ? middle - 1 : tiles - 1);
        walk.singles(left - own_left, divisor, args.length - 1);
    }
}

template <typename T, int kStates>
cudaError_t launch_serial_states(const ScanArgs& args, cudaStream_t stream) {
    const auto launch = [&](void (*kernel)(ScanArgs), int block_channels, std::size_t bytes) {
        const int blocks_per_row = (args.channels + block_channels - 1) / block_channels;
        const dim3 grid(static_cast<unsigned>(blocks_per_row) * static_cast<unsigned>(args.batch));
        return launch_kernel<ScanArgs>(kernel, grid, dim3(kSerialWarps * kWarp), bytes, args,
                                       stream);
    };
    if constexpr (kStates == kSerialBothStates) {
        if (args.forward && args.reverse) {
            const bool low_rank = args.rank > 0;
            return args.one_channel
                       ? launch(low_rank ? serial_bi_scan_kernel<T, kStates, true, 1>
                                         : serial_bi_scan_kernel<T, kStates, false, 1>,
                                kSerialWarpChannels<1>, serial_shared_bytes<kStates, 1>(args.rank))
                       : launch(low_rank ? serial_bi_scan_kernel<T, kStates, true, 2>
                                         : serial_bi_scan_kernel<T, kStates, false, 2>,
                                kSerialWarpChannels<2>, serial_shared_bytes<kStates, 2>(args.rank));
        }
    }
    return launch(args.z != nullptr ? serial_scan_kernel<T, kStates, true>
                                    : serial_scan_kernel<T, kStates, false>,
                  kSerialWarps * kSerialWarpChannels<2>, serial_shared_bytes<kStates, 2>(0));
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
