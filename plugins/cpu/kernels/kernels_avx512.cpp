//! The kernels for x86-64 with AVX512.
#define VIM_CPU_WIDTH 16
#include "conv_body.h"
#include "nms_body.h"
#include "pool_body.h"
#include "scan_body.h"

namespace vim_plugins::cpu {

const Kernels kAvx512 = {"avx512", prepare, scan, conv, suppress, pool};

}  // namespace vim_plugins::cpu
