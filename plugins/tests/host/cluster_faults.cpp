//! Small kernels for clusters of two blocks, of which all but one do what a GPU would not forgive:
//! what the shim says of each.
//!
//!     cluster_faults good|early|ended|twice|unarrived|stuck
//!
//! The exit status is the launch's, or that of an abort.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <string>

namespace {

using vim_shim::cluster_arrive;
using vim_shim::cluster_rank;
using vim_shim::cluster_wait;

constexpr unsigned kThreads = 64;

struct Shared {
    float own[kThreads];
    float sent[kThreads];
};

struct Args {
    std::string kind;
    float* out;  //!< of kThreads a block
};

void meet() {
    cluster_arrive();
    cluster_wait();
}

float& in_other(float& own) {
    return *static_cast<float*>(vim_shim::remote_shared(&own, cluster_rank() ^ 1U));
}

//! Each thread hands the number of its block and its own to its fellow in the other block.
void exchange(Args args) {
    Shared& shared = *static_cast<Shared*>(vim_shim::dynamic_shared(sizeof(Shared)));
    const unsigned thread = threadIdx.x;
    const float value = float(1000 * blockIdx.x + thread);
    float& out = args.out[blockIdx.x * kThreads + thread];
    if (args.kind == "good") {
        cluster_arrive();
        __syncthreads();
        cluster_wait();
        in_other(shared.sent[thread]) = value;
        meet();
        out = shared.sent[thread];
    } else if (args.kind == "early") {
        in_other(shared.sent[thread]) = value;
        meet();
        out = shared.sent[thread];
    } else if (args.kind == "ended") {
        // Reads from the other block instead, which does not wait for its reader.
        shared.own[thread] = value;
        meet();
        if (cluster_rank() == 0) {
            out = in_other(shared.own[thread]);
        }
    } else if (args.kind == "twice") {
        cluster_arrive();
        cluster_arrive();
    } else if (args.kind == "unarrived") {
        cluster_wait();
    } else if (blockIdx.x == 0 && thread == 0) {
        __syncthreads();
    } else {
        meet();
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::string kind = argc == 2 ? argv[1] : "";
    for (const auto schedule : {vim_shim::Schedule::kAscending, vim_shim::Schedule::kDescending,
                                vim_shim::Schedule::kShuffled}) {
        // Two clusters, so that one must not find what the one before has left.
        float out[4 * kThreads];
        std::memset(out, 0xFF, sizeof out);
        vim_shim::set_schedule(schedule);
        const cudaError_t status = vim_shim::run_grid<Args>(exchange, dim3(4), dim3(kThreads),
                                                            sizeof(Shared), Args{kind, out}, 2);
        if (status != cudaSuccess) {
            return 3;
        }
        for (unsigned i = 0; kind == "good" && i < 4 * kThreads; ++i) {
            const unsigned fellow = (i / kThreads) ^ 1U;
            if (out[i] != float(1000 * fellow + i % kThreads)) {
                std::fprintf(stderr, "block %u, thread %u has %g\n", i / kThreads, i % kThreads,
                             double(out[i]));
                return 1;
            }
        }
    }
    return 0;
}
