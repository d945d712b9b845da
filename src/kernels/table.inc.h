/* All kernels for one real type and one instruction set (macro ISA), and their table. Included twice by isa_*.c:
 * with REAL_IS_DOUBLE 1 and 0. Every symbol is static and carries both names, so that no linker can mix them up. */
#if REAL_IS_DOUBLE
#define real double
#define NAME(function) JOIN3(function, f64, ISA)
#else
#define real float
#define NAME(function) JOIN3(function, f32, ISA)
#endif

#define NAME_F64(function) JOIN3(function, f64, ISA)

/* At any address: loads and stores need no alignment. */
typedef real NAME(vector) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

/* Steps of so many operations each between two looks for an interrupt: see threads.h. */
#define STEPS_BETWEEN_LOOKS(operations) (1 + (1 << 18) / (operations + 1))

#include "math.inc.h"
#include "rows.inc.h"
#include "products.inc.h"
#include "cells.inc.h"
#include "optimizers.inc.h"
#if REAL_IS_DOUBLE
#include "scaled.inc.h"
#endif
#include "attention.inc.h"
#include "ctc.inc.h"
#include "crf.inc.h"

const kernel_table NAME(kernels) = {
    .pack = NAME(pack),
    .transpose = NAME(transpose),
    .multiply_packed = NAME(multiply_packed),
    .pack_bfloat16 = NAME(pack_bfloat16),
    .multiply_bfloat16 = NAME(multiply_bfloat16),
    .gather_bfloat16 = NAME(gather_bfloat16),
    .pack_int8 = INT8_NAME(pack),
    .quantize_rows = NAME(quantize_rows),
    .multiply_int8 = NAME(multiply_int8),
    .gather_int8 = NAME(gather_int8),
    .multiply = NAME(multiply),
    .weight_gradients = NAME(weight_gradients),
    .weight_gradients_work = NAME(weight_gradients_work),
    .gather_rows = NAME(gather_rows),
    .scatter_add = NAME(scatter_add),
    .column_sums = NAME(column_sums),
    .product_sums = NAME(product_sums),
    .add = NAME(add),
    .cells = &NAME(cell_kernels),
    .exp_row = NAME(exp_row),
    .softmax_cross_entropy = NAME(softmax_cross_entropy),
    .additive_scores = NAME(additive_scores),
    .additive_backward = NAME(additive_backward),
    .softmax_rows = NAME(softmax_rows),
    .softmax_rows_backward = NAME(softmax_rows_backward),
    .ctc = NAME(ctc),
    .crf = NAME(crf),
    .viterbi = NAME(viterbi),
    .optimizer_step = NAME(optimizer_step),
    .square_sum = NAME(square_sum),
    .sum = NAME(sum),
};

#undef real
#undef NAME
#undef NAME_F64
#undef REAL_IS_DOUBLE
#undef STEPS_BETWEEN_LOOKS
