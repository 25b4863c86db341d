//! The kernels for what every CPU of the target has: SSE2 on x86-64, NEON on aarch64, and whatever
//! the compiler makes of vectors of four elsewhere.
#define VIM_CPU_WIDTH 4
#include "conv_body.h"
#include "nms_body.h"
#include "pool_body.h"
#include "scan_body.h"

namespace vim_plugins::cpu {

#if defined(__x86_64__)
#define VIM_CPU_NAME "sse2"
#elif defined(__aarch64__)
#define VIM_CPU_NAME "neon"
#else
#define VIM_CPU_NAME "scalar"
#endif

const Kernels kBaseline = {VIM_CPU_NAME, prepare, scan, conv, suppress, pool};

}  // namespace vim_plugins::cpu
