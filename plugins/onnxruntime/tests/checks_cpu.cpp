//! \file checks_cpu.cpp
//! What the CPU provider alone does: pieces in the session's pool, scratch of its allocator.
#include <string>

#include "checks_regions.h"
#include "cpu/kernels/kernels.h"
#include "harness.h"

namespace harness {

char const* provider() {
    return "CPUExecutionProvider";
}

std::size_t region_ops() {
    return 2;
}

void check_provider() {
    vim_tests::Spec spec;
    spec.op = vim_tests::Op::kBiScan;
    spec.type = vim_tests::DataType::kFloat16;
    spec.length = 33;
    spec.channels = 256;
    vim_tests::Problem const problem = make_problem(spec, 11);
    OrtSessionOptions options;
    options.entries["vim_deploy.intra_op_num_threads"] = "4";
    CHECK(words_of(RegisterCustomOps(&options, fake_base())).empty());
    fake_ort().pieces = 0;
    fake_ort().scratches = 0;
    // Whatever the pool, the bits are the same.
    NodeCase one(problem);
    Kernel const kernel(op_for(spec), one.info);
    OrtKernelContext context = one.context(1);
    CHECK(kernel.compute(context).empty());
    NodeCase four(problem);
    context = four.context(4);
    CHECK(kernel.compute(context).empty());
    CHECK(four.output.bytes == one.output.bytes);
    CHECK(fake_ort().pieces >= 4);  // two phases a run at least
    CHECK(fake_ort().scratches == 2);
    CHECK(fake_ort().scratch_bytes >= 4U * 33U * 256U);  // fp32 sums, as y cannot hold them
    CHECK(fake_ort().live == 1);                         // the kernel's memory info

    std::string const all = std::string(",") + vim_plugins::cpu::instruction_sets() + ",";
    CHECK(all.find(std::string(",") + vim_plugins::cpu::instruction_set() + ",") !=
          std::string::npos);
    check_region_ops();
}

}  // namespace harness
