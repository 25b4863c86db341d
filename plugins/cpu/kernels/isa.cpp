//! Which instruction set is used.
//!
//! CPUID is asked here rather than through __builtin_cpu_supports, which needs a run-time library
//! that not every compiler brings; whether the operating system saves the wide registers stands in
//! XCR0. Bits as in Intel's manual, volume 2A (CPUID) and volume 1, chapter 13 (XCR0).
#include <cstdlib>
#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "tasks.h"

namespace vim_plugins::cpu {
namespace {

#if defined(__x86_64__)

struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf) {
    Registers r;
    __get_cpuid_count(leaf, 0, &r.a, &r.b, &r.c, &r.d);  // zeros where there is no such leaf
    return r;
}

//! All of these bits of `word` are set.
template <typename... Bits>
bool has(unsigned word, Bits... bits) {
    return ((((word >> bits) & 1U) != 0U) && ...);
}

//! What the operating system saves of the extended registers.
unsigned saved_registers() {
    constexpr int kOsXsave = 27;
    if (!has(cpuid(1).c, kOsXsave)) {
        return 0;
    }
    unsigned low = 0;
    unsigned high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

//! All of x86-64-v3, which compilers may take together.
bool runs_avx2() {
    constexpr int kFma = 12, kMovbe = 22, kAvx = 28, kF16c = 29;  // leaf 1, ECX
    constexpr int kBmi1 = 3, kAvx2Bit = 5, kBmi2 = 8;             // leaf 7, EBX
    constexpr int kLzcnt = 5;                                     // leaf 0x80000001, ECX
    constexpr int kSse = 1, kYmm = 2;                             // XCR0
    return has(cpuid(1).c, kFma, kMovbe, kAvx, kF16c) && has(cpuid(7).b, kBmi1, kAvx2Bit, kBmi2) &&
           has(cpuid(0x80000001U).c, kLzcnt) && has(saved_registers(), kSse, kYmm);
}

//! All of x86-64-v4.
bool runs_avx512() {
    constexpr int kF = 16, kDq = 17, kCd = 28, kBw = 30, kVl = 31;   // leaf 7, EBX
    constexpr int kMask = 5, kUpperHalves = 6, kUpperRegisters = 7;  // XCR0
    return runs_avx2() && has(cpuid(7).b, kF, kDq, kCd, kBw, kVl) &&
           has(saved_registers(), kMask, kUpperHalves, kUpperRegisters);
}

#endif

const Kernels& best() {
#if defined(__x86_64__)
    if (runs_avx512()) {
        return kAvx512;
    }
    if (runs_avx2()) {
        return kAvx2;
    }
#endif
    return kBaseline;
}

const Kernels& choose() {
    const char* const wanted = std::getenv("VIM_DEPLOY_CPU_ISA");
    const Kernels* const named = wanted != nullptr ? kernels_named(wanted) : nullptr;
    return named != nullptr ? *named : best();
}

}  // namespace

const Kernels* kernels_named(const char* name) noexcept {
    if (std::strcmp(name, kBaseline.name) == 0) {
        return &kBaseline;
    }
#if defined(__x86_64__)
    if (std::strcmp(name, kAvx2.name) == 0 && runs_avx2()) {
        return &kAvx2;
    }
    if (std::strcmp(name, kAvx512.name) == 0 && runs_avx512()) {
        return &kAvx512;
    }
#endif
    return nullptr;
}

const Kernels& kernels() noexcept {
    static const Kernels& chosen = choose();
    return chosen;
}

const char* instruction_set() noexcept {
    return kernels().name;
}

const char* instruction_sets() noexcept {
#if defined(__x86_64__)
    return "avx512,avx2,sse2";
#else
    return kBaseline.name;
#endif
}

}  // namespace vim_plugins::cpu
