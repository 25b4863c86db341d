//! What the kernels read: one struct for the scans of one or both directions, one for the
//! convolution. scan.cpp and conv.cpp fill them from the public parameters; column offsets of the
//! gate and of x are already added to the pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "vim_plugins/params.h"

namespace vim_plugins {

//! State sizes N of the fast kernels: VMamba's, MambaVision's, Vim's. Others take the generic one.
inline constexpr int kFastStates[] = {1, 8, 16};
//! Of so many states B and C are read two columns at a time, which saves some instructions and
//! wants even offsets in even rows. The other kernels read any column by itself: the rank of a
//! projection, whose columns come before B, may be odd (49 of MambaVision-L).
inline constexpr int kPairedStates = 16;
//! Channels of the widest chunked block. What a wide one saves is reading B and C, of which few
//! states have little; and each width of each number of states is compiled for every GPU.
constexpr int widest_chunked(int states) {
    return states == 16 ? 16 : states == 8 ? 8 : 4;
}
//! The generic kernel has its states in registers: so many, or kMaxState.
inline constexpr int kGenericFewStates = 16;
//! So many states the serial kernel walks in both directions; few models have others.
inline constexpr int kSerialBothStates = 16;
//! So many states the pairs of blocks scan, which always run both directions.
inline constexpr int kClusterStates = 16;
//! Channels of a block of the serial kernel in both directions, with two channels a thread.
inline constexpr int kSerialBlockChannels = 64;
//! Blocks a multiprocessor runs of it, with two channels a thread and with one.
inline constexpr int kSerialBlocksOfTwo = 6;
inline constexpr int kSerialBlocksOfOne = 8;
//! Largest rank of dt_w for which the serial kernel keeps the weight in shared memory.
inline constexpr int kSerialMaxRank = 64;
//! Tokens a chunked block holds at once; longer sequences are walked in such segments.
inline constexpr int kChunkedSegment = 200;

//! Inputs of one direction. Index 0 of ScanArgs::direction runs forward, index 1 in reverse.
struct DirectionArgs {
    const void* u;         //!< T[batch, length, channels]
    const void* dt;        //!< T[batch, length, channels], or T[channels, rank] when rank > 0
    const void* bc;        //!< T[batch, length, bc_columns]
    const float* A;        //!< f[states, channels]
    const float* d_skip;   //!< f[channels]
    const float* dt_bias;  //!< f[channels]
};

struct ScanArgs {
    DirectionArgs direction[2];
    const void* z;   //!< T[batch, length, z_columns] at the gate's first column, or nullptr
    void* y;         //!< T[batch, length, channels]
    float* partial;  //!< scratch for two directions, or nullptr: f[batch, length, channels]; of the
                     //!< serial kernel f[batch, ceil(channels / 64), length, 64], in its own order
                     //!< (32 for 64 with a channel a thread)
    float scale;
    std::int32_t batch;
    std::int32_t length;
    std::int32_t channels;
    std::int32_t states;
    std::int32_t bc_columns;
    std::int32_t z_columns;
    std::int32_t b_off;
    std::int32_t c_off;
    std::int32_t dt_off;
    std::int32_t rank;  //!< 0: dt is given per token
    bool forward;       //!< direction[0] runs
    bool reverse;       //!< direction[1] runs
    bool delta_softplus;
    bool one_channel;  //!< a channel a thread: the serial kernel in both directions
};

struct ConvArgs {
    const void* x;      //!< T[batch, length, x_columns] at x's first column
    const float* w;     //!< f[2, width, channels]
    const float* bias;  //!< f[2, channels]
    void* u2;           //!< T[2, batch, length, channels]
    std::int32_t batch;
    std::int32_t length;
    std::int32_t channels;
    std::int32_t width;
    std::int32_t x_columns;
};

cudaError_t launch_serial_fp32(const ScanArgs& args, cudaStream_t stream);
cudaError_t launch_serial_fp16(const ScanArgs& args, cudaStream_t stream);
cudaError_t launch_serial_bf16(const ScanArgs& args, cudaStream_t stream);

cudaError_t launch_chunked_fp32(const ScanArgs& args, Tactic tactic, cudaStream_t stream);
cudaError_t launch_chunked_fp16(const ScanArgs& args, Tactic tactic, cudaStream_t stream);
cudaError_t launch_chunked_bf16(const ScanArgs& args, Tactic tactic, cudaStream_t stream);

cudaError_t launch_cluster_fp32(const ScanArgs& args, Tactic tactic, cudaStream_t stream);
cudaError_t launch_cluster_fp16(const ScanArgs& args, Tactic tactic, cudaStream_t stream);
cudaError_t launch_cluster_bf16(const ScanArgs& args, Tactic tactic, cudaStream_t stream);
//! Whether the current device runs them, and this library has their code for it.
bool clusters_run();

cudaError_t launch_generic_fp32(const ScanArgs& args, cudaStream_t stream);
cudaError_t launch_generic_fp16(const ScanArgs& args, cudaStream_t stream);
cudaError_t launch_generic_bf16(const ScanArgs& args, cudaStream_t stream);

cudaError_t launch_conv_fp32(const ConvArgs& args, Tactic tactic, cudaStream_t stream);
cudaError_t launch_conv_fp16(const ConvArgs& args, Tactic tactic, cudaStream_t stream);
cudaError_t launch_conv_bf16(const ConvArgs& args, Tactic tactic, cudaStream_t stream);

}  // namespace vim_plugins
