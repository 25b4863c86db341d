//! The chunked scan by pairs of blocks, for grids that leave multiprocessors idle even with the
//! smallest blocks: the two blocks of a cluster own the same channels, one runs forward and the
//! other in reverse. Each does half of a chunked block's work, at the same time.
//!
//! Segments meet in the middle. A block leaves the fp32 outputs of its first segments in scratch;
//! after the cluster's barrier it walks those which the other has done, adds the other's outputs
//! and finishes them (gate, scale, y). Of an odd number of segments, and so of a single one, both
//! blocks come to the middle segment at the same time: a thread owns the same tokens there as its
//! fellow in the other block, sends it the outputs of about half of them through distributed shared
//! memory, and finishes the rest. Nothing is added atomically and no token is finished twice.
//!
//! After that barrier no block reaches for the other one, which may have ended.
#pragma once

#include "cluster.cuh"
#include "scan_chunked.cuh"

namespace vim_plugins {

template <typename Shape>
struct ClusterShared {
    static constexpr int kForwardTokens = (Shape::kTokens + 1) / 2;
    ChunkedShared<Shape> scan;
    //! The other block's outputs of the tokens that this one finishes.
    float received[kForwardTokens][Shape::kThreads];
};

//! Finishes this direction's share of a segment that both blocks have in their registers: the first
//! tokens of every chunk forward, the others in reverse.
template <bool kReverse, typename T, typename Shape>
__device__ __forceinline__ void finish_middle(const ChunkedBlock<T, Shape>& block,
                                              ClusterShared<Shape>& shared, int first,
                                              const float (&y)[1][Shape::kTokens]) {
    constexpr int kSplit = ClusterShared<Shape>::kForwardTokens;
    constexpr int kOwn = kReverse ? Shape::kTokens - kSplit : kSplit;
    constexpr int kOthers = Shape::kTokens - kOwn;
    constexpr int kOwnFirst = kReverse ? kSplit : 0;
    constexpr int kOthersFirst = kReverse ? 0 : kSplit;
    const ScanArgs& args = block.args;
    const int thread = static_cast<int>(threadIdx.x);
    const int own_first = first + kOwnFirst;
    // Asked for before the barrier, so that both waits are one. Both directions always have a gate.
    const T* z = static_cast<const T*>(args.z) + block.row(0) * args.z_columns + block.channel;
    T gate[kOwn];
#pragma unroll
    for (int t = 0; t < kOwn; ++t) {
        // Past the end of the sequence the last token's, which is not used.
        const int token = own_first + t < args.length ? own_first + t : args.length - 1;
        gate[t] = z[token * args.z_columns];
    }
    cluster_wait();  // the other block has started
#pragma unroll
    for (int t = 0; t < kOthers; ++t) {
        store_remote(&shared.received[t][thread], kReverse ? 0 : 1, y[0][kOthersFirst + t]);
    }
    cluster_arrive();
    cluster_wait();
    T* to = static_cast<T*>(args.y) + block.row(0) * args.channels + block.channel;
#pragma unroll
    for (int t = 0; t < kOwn; ++t) {
        if (own_first + t < args.length) {
            const float sum = y[0][kOwnFirst + t] + shared.received[t][thread];
            const float out = args.scale * sum * silu(Numeric<T>::to_float(gate[t]));
            to[(own_first + t) * args.channels] = Numeric<T>::from_float(out);
        }
    }
}

//! One block's direction.
template <bool kReverse, typename T, typename Shape>
__device__ __forceinline__ void run_direction(const ChunkedBlock<T, Shape>& block,
                                              ClusterShared<Shape>& shared) {
    const int count = block.segments();
    const int half = count / 2;
    float y[1][Shape::kTokens];
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
        const int segment = kReverse ? count - 1 - i : i;
        const int first = block.first_token(segment);
        const bool resumes = i >= count - half;
        if (resumes) {
            block.read_partial(first, y);
        } else {
#pragma unroll
            for (int t = 0; t < Shape::kTokens; ++t) {
                y[0][t] = 0.0F;
            }
        }
        block.template scan_segment<kReverse>(y, segment, i);
        if (resumes) {
            block.write_outputs(first, y);
        } else if (i < half) {
            block.write_partial(first, y);
        } else {
            finish_middle<kReverse>(block, shared, first, y);
        }
        if (i == half - 1 && count % 2 == 0) {
            cluster_wait();  // for the arrival at the start, which nothing else here needs
            cluster_arrive();
            cluster_wait();
        }
    }
}

template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    cluster_scan_kernel(const ScanArgs args) {
#if defined(VIM_PLUGINS_HOST_SHIM) || \
    (__CUDA_ARCH__ >= VIM_PLUGINS_CLUSTER_ARCH && CUDART_VERSION >= VIM_PLUGINS_CLUSTER_CUDART)
    static_assert(Shape::kPerLane == 1);
    cluster_arrive_started();
    ClusterShared<Shape>& shared = shared_storage<ClusterShared<Shape>>();
    const int pair = static_cast<int>(blockIdx.x) / 2;
    const int pairs_per_row = args.channels / Shape::kChannels;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int lane_first = lane % Shape::kLaneChannels;
    const ChunkedBlock<T, Shape> block{args,
                                       shared.scan,
                                       pair / pairs_per_row,
                                       pair % pairs_per_row * Shape::kChannels + lane_first,
                                       lane_first,
                                       static_cast<int>(threadIdx.x) / 32,
                                       lane / Shape::kLaneChannels};
    if (cluster_rank() == 0) {
        run_direction<false>(block, shared);
    } else {
        run_direction<true>(block, shared);
    }
#else
    // Never launched from here: see runs_in_clusters().
    (void)args;
    asm volatile("trap;");
#endif
}

template <typename T, typename Shape>
cudaError_t launch_cluster_shape(const ScanArgs& args, cudaStream_t stream) {
    const dim3 grid(2 * static_cast<unsigned>(args.channels / Shape::kChannels) *
                    static_cast<unsigned>(args.batch));
    return launch_in_clusters<ScanArgs>(cluster_scan_kernel<T, Shape>, 2, grid,
                                        dim3(Shape::kThreads), sizeof(ClusterShared<Shape>), args,
                                        stream);
}

template <typename T>
cudaError_t launch_cluster(const ScanArgs& args, Tactic tactic, cudaStream_t stream) {
    switch (tactic) {
        case Tactic::kCluster4:
            return launch_cluster_shape<T, ChunkedShape4<kClusterStates>>(args, stream);
        case Tactic::kCluster8:
            return launch_cluster_shape<T, ChunkedShape8<kClusterStates>>(args, stream);
        default:
            return cudaErrorInvalidValue;
    }
}

}  // namespace vim_plugins
