/* The same kernels for x86-64 with avx2,fma. */
#include <math.h> /* system headers stand outside the region: their inline functions must not carry its target */
#include <stdint.h>
#include <string.h>

#include "isa.h"
#include "kernels.h"
#include "threads.h"

#if defined(__x86_64__) && !defined(PLAIN_ONLY)
#define ISA avx2
#define VECTOR_BYTES 32
BEGIN_ISA("avx2,fma")
#include "both_types.inc.h"
END_ISA
#endif
