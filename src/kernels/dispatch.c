/* Which instruction sets are compiled in, and which of them this processor (and its operating system) runs. */
#include "kernels.h"

extern const kernel_table kernels_f32_plain, kernels_f64_plain;

static int always(void) { return 1; }

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__x86_64__) && !defined(PLAIN_ONLY) /* a quick build, for mutants */
extern const kernel_table kernels_f32_avx2, kernels_f64_avx2, kernels_f32_avx512, kernels_f64_avx512;

static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#endif

#if defined(__x86_64__)
unsigned long long begin_flush_subnormals(void) {
    unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | 0x8040); /* flush to zero, subnormals are zero */
    return saved;
}

void end_flush_subnormals(unsigned long long saved) { _mm_setcsr((unsigned)saved); }
#elif defined(__aarch64__)
unsigned long long begin_flush_subnormals(void) {
    unsigned long long saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved | (1ull << 24)));
    return saved;
}

void end_flush_subnormals(unsigned long long saved) { __asm__ volatile("msr fpcr, %0" : : "r"(saved)); }
#else
unsigned long long begin_flush_subnormals(void) { return 0; }

void end_flush_subnormals(unsigned long long saved) { (void)saved; }
#endif

const instruction_set instruction_sets[] = {
    {"plain", always, &kernels_f32_plain, &kernels_f64_plain},
#if defined(__x86_64__) && !defined(PLAIN_ONLY)
    {"avx2", has_avx2, &kernels_f32_avx2, &kernels_f64_avx2},
    {"avx512", has_avx512, &kernels_f32_avx512, &kernels_f64_avx512},
#endif
};

const int instruction_set_count = sizeof instruction_sets / sizeof *instruction_sets;

#if defined(__clang__)
#define COMPILER __VERSION__ /* begins with "Clang" */
#elif defined(__GNUC__)
#define COMPILER "GCC " __VERSION__
#else
#define COMPILER "unknown compiler"
#endif

const char *build_description = COMPILER ", " BUILD_FLAGS;
