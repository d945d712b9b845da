/* Opens and closes a region of code compiled for one instruction set, whatever the flags of the build. */
#ifndef RNNCORE_ISA_H
#define RNNCORE_ISA_H

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#endif
#endif

#define ISA_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define BEGIN_ISA(features) ISA_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_ISA ISA_PRAGMA(clang attribute pop)
#else
#define BEGIN_ISA(features) ISA_PRAGMA(GCC push_options) ISA_PRAGMA(GCC target(features))
#define END_ISA ISA_PRAGMA(GCC pop_options)
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* gcc and clang keep an array of vectors in registers only if its loops are unrolled completely. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#ifndef __has_builtin /* gcc before 10 */
#define __has_builtin(name) 0
#endif

#define JOIN3_(a, b, c) a##_##b##_##c
#define JOIN3(a, b, c) JOIN3_(a, b, c)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

#endif
