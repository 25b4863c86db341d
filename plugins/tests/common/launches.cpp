//! What Bound of problem.h calls of the CUDA kernels' host interface.
#include "problem.h"
#include "vim_plugins/ops.h"

namespace vim_tests {

const char* Bound::validate() const {
    switch (problem_.spec.op) {
        case Op::kScan:
            return vim_plugins::validate(scan_);
        case Op::kConv:
            return vim_plugins::validate(conv_);
        default:
            return vim_plugins::validate(bi_);
    }
}

std::vector<Tactic> Bound::tactics() const {
    std::vector<Tactic> all;
    for (int id = 1; id <= static_cast<int>(vim_plugins::kLastTactic); ++id) {
        const Tactic tactic = static_cast<Tactic>(id);
        const bool runs = problem_.spec.op == Op::kScan   ? vim_plugins::supports(scan_, tactic)
                          : problem_.spec.op == Op::kConv ? vim_plugins::supports(conv_, tactic)
                                                          : vim_plugins::supports(bi_, tactic);
        if (runs) {
            all.push_back(tactic);
        }
    }
    return all;
}

std::size_t Bound::workspace_bytes(Tactic tactic) const {
    return problem_.spec.op == Op::kBiScan ? vim_plugins::workspace_bytes(bi_, tactic) : 0;
}

int Bound::launch(Tactic tactic, void* workspace, void* stream) const {
    auto* const queue = static_cast<cudaStream_t>(stream);
    switch (problem_.spec.op) {
        case Op::kScan:
            return vim_plugins::launch(scan_, tactic, workspace, queue);
        case Op::kConv:
            return vim_plugins::launch(conv_, tactic, workspace, queue);
        default:
            return vim_plugins::launch(bi_, tactic, workspace, queue);
    }
}

}  // namespace vim_tests
