//! The scan for every shape the contract allows: one thread a channel, serial in L, any N up to 64,
//! any D, any column offsets, with or without softplus. Simple rather than fast.
#pragma once

#include "kernel_args.h"
#include "launch.cuh"
#include "numeric_types.cuh"
#include "scan_math.cuh"

namespace vim_plugins {

inline constexpr int kGenericThreads = 64;

//! dt of one token and channel: read, or formed from the low-rank columns of the B/C row.
template <typename T>
__device__ __forceinline__ float generic_dt(const ScanArgs& args, const DirectionArgs& in,
                                            std::int64_t row, int channel) {
    if (args.rank == 0) {
        return Numeric<T>::to_float(static_cast<const T*>(in.dt)[row * args.channels + channel]);
    }
    const T* weight = static_cast<const T*>(in.dt) + std::int64_t{channel} * args.rank;
    const T* columns = static_cast<const T*>(in.bc) + row * args.bc_columns + args.dt_off;
    float dt = 0.0F;
    for (int j = 0; j < args.rank; ++j) {
        dt = fmaf(Numeric<T>::to_float(weight[j]), Numeric<T>::to_float(columns[j]), dt);
    }
    return dt;
}

template <typename T>
__device__ __forceinline__ void generic_finish(const ScanArgs& args, std::int64_t row, int channel,
                                               float y) {
    if (args.z != nullptr) {
        const T* gate = static_cast<const T*>(args.z) + row * args.z_columns + channel;
        y *= silu(Numeric<T>::to_float(*gate));
    }
    static_cast<T*>(args.y)[row * args.channels + channel] = Numeric<T>::from_float(y);
}

//! One direction of one channel. The same thread runs both directions of a channel, so the partial
//! sums it leaves in scratch need no synchronisation.
template <typename T, int kStates>
__device__ __forceinline__ void generic_direction(const ScanArgs& args, bool reverse, int batch,
                                                  int channel) {
    const DirectionArgs& in = args.direction[reverse ? 1 : 0];
    float rate[kStates];
    float state[kStates];
#pragma unroll
    for (int n = 0; n < kStates; ++n) {
        state[n] = 0.0F;
        rate[n] =
            n < args.states ? decay_rate(in.A[std::int64_t{n} * args.channels + channel]) : 0.0F;
    }
    const float skip = in.d_skip[channel];
    const float bias = in.dt_bias[channel];
    const bool first = !(reverse && args.forward);
    const bool last = reverse || !args.reverse;
    for (int i = 0; i < args.length; ++i) {
        const int token = reverse ? args.length - 1 - i : i;
        const std::int64_t row = std::int64_t{batch} * args.length + token;
        const float u =
            Numeric<T>::to_float(static_cast<const T*>(in.u)[row * args.channels + channel]);
        float delta = generic_dt<T>(args, in, row, channel) + bias;
        delta = args.delta_softplus ? softplus(delta) : delta;
        const float delta_u = delta * u;
        const T* bc = static_cast<const T*>(in.bc) + row * args.bc_columns;
        float y = skip * u;
#pragma unroll
        for (int n = 0; n < kStates; ++n) {
            if (n < args.states) {
                const float b = Numeric<T>::to_float(bc[args.b_off + n]);
                const float c = Numeric<T>::to_float(bc[args.c_off + n]);
                state[n] = fmaf(exp2_fast(delta * rate[n]), state[n], delta_u * b);
                y = fmaf(c, state[n], y);
            }
        }
        const std::int64_t at = row * args.channels + channel;
        y = first ? y : y + args.partial[at];
        if (last) {
            generic_finish<T>(args, row, channel, args.scale * y);
        } else {
            args.partial[at] = y;
        }
    }
}

template <typename T, int kStates>
__global__ void __launch_bounds__(kGenericThreads) generic_scan_kernel(const ScanArgs args) {
    const int blocks_per_row = (args.channels + kGenericThreads - 1) / kGenericThreads;
    const int batch = static_cast<int>(blockIdx.x) / blocks_per_row;
    const int channel = (static_cast<int>(blockIdx.x) % blocks_per_row) * kGenericThreads +
                        static_cast<int>(threadIdx.x);
    if (channel >= args.channels) {
        return;
    }
    if (args.forward) {
        generic_direction<T, kStates>(args, false, batch, channel);
    }
    if (args.reverse) {
        generic_direction<T, kStates>(args, true, batch, channel);
    }
}

template <typename T>
cudaError_t launch_generic(const ScanArgs& args, cudaStream_t stream) {
    const unsigned blocks_per_row =
        (static_cast<unsigned>(args.channels) + kGenericThreads - 1) / kGenericThreads;
    const dim3 grid(blocks_per_row * static_cast<unsigned>(args.batch));
    auto* kernel = args.states <= kGenericFewStates ? generic_scan_kernel<T, kGenericFewStates>
                                                    : generic_scan_kernel<T, 64>;
    return launch_kernel<ScanArgs>(kernel, grid, dim3(kGenericThreads), 0, args, stream);
}

}  // namespace vim_plugins
