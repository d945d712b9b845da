/* What every machine runs: the baseline of the target (SSE2 on x86-64, NEON on aarch64). */
#include <math.h> /* system headers stand outside the region: their inline functions must not carry its target */
#include <stdint.h>
#include <string.h>

#include "isa.h"
#include "kernels.h"
#include "threads.h"

#if defined(__aarch64__) && !defined(__clang__)
/* gcc moves loads ahead of the multiply-adds of a tile before it knows its registers, and spills three of them in the
 * loop. */
#pragma GCC optimize("no-schedule-insns")
#endif

#define ISA plain
#define VECTOR_BYTES 16
#include "both_types.inc.h"
