/* Sums of products of 8 bits, for both real types: included once for every instruction set.
 *
 * A factor B (K, M) of int8 in [-127, 127] is packed in panels of INT8_COLUMNS columns. A panel holds the scales of its
 * columns, -128 times the sum of each, then B in groups of four rows: the four values of a column side by side, so that
 * they meet those of a row of A in one word. The sums are int32, exact in any order: every variant has the same. */

#define INT8_NAME(function) JOIN3(int8, function, ISA)
#define INT8_LENGTH (VECTOR_BYTES / 4) /* columns of a vector */
#define INT8_VECTORS 4
#if VECTOR_BYTES == 64 || defined(__aarch64__) /* 32 registers */
#define INT8_ROWS 6
#else /* 16 */
#define INT8_ROWS 3
#endif
#define INT8_COLUMNS (INT8_VECTORS * INT8_LENGTH)
#define INT8_PANEL(K) (INT8_COLUMNS * (8 + (K + 3) / 4 * 4)) /* bytes */

typedef int32_t INT8_NAME(ints) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

typedef struct {
    float scales[INT8_COLUMNS];
    int32_t offsets[INT8_COLUMNS];
    int8_t values[];
} INT8_NAME(panel);

/* A row of A (quantized_row_bytes) is K values and zeros up to a multiple of four, then an int32: the sum of |a| of its
 * negative values.
 * sums (rows, INT8_COLUMNS) = A (rows, 4 groups) B, in so many vectors of the panel; rows of A are lda apart */
typedef void INT8_NAME(sums_function)(ptrdiff_t groups, ptrdiff_t vectors, const int8_t *A, ptrdiff_t lda,
                                      const INT8_NAME(panel) *panel, int32_t *sums);

/* ---- variants: what every processor of the set has, and what some have ----------------------------------------------
 *
 * DOT adds to every word of `sum` the products of the four values in that word of a and b. START is where the sums of row
 * i and vector v begin. */

#define VARIANT basic
#define VARIANT_TARGET
#if VECTOR_BYTES >= 32
/* With m = -1 where a < 0, else 0: a b = |a| ((b ^ m) - m), so that the sum of a b is that of |a| (b ^ m) and of |a| where
 * a < 0, which the row has. The sum of two products |a| (b ^ m) fits 16 bits. */
#define START(i, v) ((INT8_NAME(ints)){0} + negative[i])
#if VECTOR_BYTES == 64
#define DOT(sum, a, b)                                                                                                \
    ((sum) + (INT8_NAME(ints))_mm512_madd_epi16(                                                                      \
                 _mm512_maddubs_epi16(_mm512_abs_epi8((__m512i)(a)),                                                  \
                                      _mm512_movm_epi8(_mm512_movepi8_mask((__m512i)(a))) ^ (__m512i)(b)),            \
                 _mm512_set1_epi16(1)))
#else
#define DOT(sum, a, b)                                                                                                \
    ((sum) + (INT8_NAME(ints))_mm256_madd_epi16(                                                                      \
                 _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)(a)),                                                  \
                                      _mm256_cmpgt_epi8(_mm256_setzero_si256(), (__m256i)(a)) ^ (__m256i)(b)),        \
                 _mm256_set1_epi16(1)))
#endif
#else
#define START(i, v) ((INT8_NAME(ints)){0})
#define DOT(sum, a, b) INT8_NAME(dot)(sum, a, b)
#if defined(__SSE2__)
ALWAYS_INLINE __m128i INT8_NAME(wide_products)(__m128i a, __m128i b, const int upper) {
    __m128i zero = _mm_setzero_si128();
    a = upper ? _mm_unpackhi_epi8(zero, a) : _mm_unpacklo_epi8(zero, a);
    b = upper ? _mm_unpackhi_epi8(zero, b) : _mm_unpacklo_epi8(zero, b);
    return _mm_madd_epi16(_mm_srai_epi16(a, 8), _mm_srai_epi16(b, 8));
}

ALWAYS_INLINE INT8_NAME(ints) INT8_NAME(dot)(INT8_NAME(ints) sum, INT8_NAME(ints) a, INT8_NAME(ints) b) {
    __m128 lower = _mm_castsi128_ps(INT8_NAME(wide_products)((__m128i)a, (__m128i)b, 0));
    __m128 upper = _mm_castsi128_ps(INT8_NAME(wide_products)((__m128i)a, (__m128i)b, 1));
    return sum + (INT8_NAME(ints))_mm_shuffle_ps(lower, upper, 0x88) +
           (INT8_NAME(ints))_mm_shuffle_ps(lower, upper, 0xdd);
}
#elif defined(__aarch64__)
ALWAYS_INLINE INT8_NAME(ints) INT8_NAME(dot)(INT8_NAME(ints) sum, INT8_NAME(ints) a, INT8_NAME(ints) b) {
    int8x16_t p = (int8x16_t)a, q = (int8x16_t)b;
    int32x4_t lower = vpaddlq_s16(vmull_s8(vget_low_s8(p), vget_low_s8(q)));
    int32x4_t upper = vpaddlq_s16(vmull_high_s8(p, q));
    return sum + (INT8_NAME(ints))vpaddq_s32(lower, upper);
}
#else
ALWAYS_INLINE INT8_NAME(ints) INT8_NAME(dot)(INT8_NAME(ints) sum, INT8_NAME(ints) a, INT8_NAME(ints) b) {
    int8_t p[VECTOR_BYTES], q[VECTOR_BYTES];
    memcpy(p, &a, sizeof p);
    memcpy(q, &b, sizeof q);
    for (int l = 0; l < VECTOR_BYTES; l++) sum[l / 4] += p[l] * q[l];
    return sum;
}
#endif
#endif
#include "int8_tiles.inc.h"

#if VECTOR_BYTES == 64
#define HAS_BETTER_DOT __builtin_cpu_supports("avx512vnni")
#define VARIANT_TARGET __attribute__((target("avx512vnni")))
#define DOT(sum, a, b) \
    ((INT8_NAME(ints))_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)((a) ^ (int32_t)0x80808080), (__m512i)(b)))
/* The sum of (a + 128) b, whose first factor has no sign, and 128 times the sum of b less. */
#define START(i, v) (*(const INT8_NAME(ints) *)(panel->offsets + v * INT8_LENGTH))
#elif VECTOR_BYTES == 32 && (defined(__clang__) ? __clang_major__ >= 19 : __GNUC__ >= 12) /* they ask for it */
#define HAS_BETTER_DOT __builtin_cpu_supports("avxvnni")
#define VARIANT_TARGET __attribute__((target("avxvnni")))
#define DOT(sum, a, b) \
    ((INT8_NAME(ints))_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)((a) ^ (int32_t)0x80808080), (__m256i)(b)))
#define START(i, v) (*(const INT8_NAME(ints) *)(panel->offsets + v * INT8_LENGTH))
#elif defined(__aarch64__) && defined(__linux__)
#define HAS_BETTER_DOT (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
#if defined(__clang__)
#define VARIANT_TARGET __attribute__((target("dotprod")))
#else
#define VARIANT_TARGET __attribute__((target("arch=armv8.2-a+dotprod"))) /* as arm_neon.h has it */
#endif
#define DOT(sum, a, b) ((INT8_NAME(ints))vdotq_s32((int32x4_t)(sum), (int8x16_t)(a), (int8x16_t)(b)))
#define START(i, v) ((INT8_NAME(ints)){0})
#endif
#if defined(HAS_BETTER_DOT)
#define VARIANT better
#include "int8_tiles.inc.h"
#endif

/* ---- what calls them ----------------------------------------------------------------------------------------------- */

static INT8_NAME(sums_function) *INT8_NAME(sums)(ptrdiff_t rows) {
#if defined(HAS_BETTER_DOT)
    if (HAS_BETTER_DOT) return INT8_NAME(sums_better)[rows];
#endif
    return INT8_NAME(sums_basic)[rows];
}
#undef HAS_BETTER_DOT

static void INT8_NAME(pack)(ptrdiff_t K, ptrdiff_t M, const int8_t *B, ptrdiff_t ldb, const float *scales,
                            void *packed) {
    for (ptrdiff_t j = 0; j < M; j += INT8_COLUMNS) {
        INT8_NAME(panel) *panel = (void *)((char *)packed + j / INT8_COLUMNS * INT8_PANEL(K));
        for (ptrdiff_t l = 0; l < INT8_COLUMNS; l++) {
            uint32_t sum = 0;
            for (ptrdiff_t k = 0; k < (K + 3) / 4 * 4; k++) {
                int8_t value = k < K && j + l < M ? B[k * ldb + j + l] : 0;
                panel->values[(k / 4 * INT8_COLUMNS + l) * 4 + k % 4] = value;
                sum += (uint32_t)value;
            }
            panel->scales[l] = j + l < M ? scales[j + l] : 0;
            /* It may wrap for more rows than LARGEST_QUANTIZED: those of a table, which is not multiplied. */
            panel->offsets[l] = (int32_t)(-128u * sum);
        }
    }
}
