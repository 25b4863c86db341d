//! The kernels for x86-64 with AVX2.
#define VIM_CPU_WIDTH 8
#include "conv_body.h"
#include "nms_body.h"
#include "pool_body.h"
#include "scan_body.h"

namespace vim_plugins::cpu {

const Kernels kAvx2 = {"avx2", prepare, scan, conv, suppress, pool};

}  // namespace vim_plugins::cpu
