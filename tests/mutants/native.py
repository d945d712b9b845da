"""Mutants of the C kernels and of the Cython engine: a copy is compiled for each of them.

name -> (file, correct text, broken text), and the tests that must fail if they are not engine/test_engine.py
"""

MUTANTS = {
    "attention: the keys of another row": (
        "src/attention.pxd",
        "t.additive_scores(steps, S, A, q + step * N * A, N * A, k, N * A, f.v,",
        "t.additive_scores(steps, S, A, q + step * N * A, N * A, k, A, f.v,",
        "layers/test_attention.py",
    ),
    "attention: the memory has no gradient through the scores": (
        "src/attention.pxd",
        "add_outer_product(t, T, S, E, dscores, S, q, N * E, dmemory, N * E, work)",
        "pass",
        "layers/test_attention.py",
    ),
    "CTC: a label may follow an equal one without a blank": (
        "src/kernels/ctc.inc.h",
        "0 < k && k < L && labels[k] != labels[k - 1] ? 0",
        "0 < k && k < L ? 0",
        "losses/test_ctc.py",
    ),
    "CTC: the backward pass does not skip": (
        "src/kernels/ctc.inc.h",
        "next.e += skip_e[k + 1];",
        "next.e += LEFT_OUT;",
        "losses/test_ctc.py",
    ),
    "CTC: the path ends in a blank": (
        "src/kernels/ctc.inc.h",
        "NAME(A)(a, L - 1)); /* (6) */",
        "NAME(zero)); /* (6) */",
        "losses/test_ctc.py",
    ),
    "paths: what is far below the largest counts as much": (
        "src/kernels/scaled.inc.h",
        "(e < -1023 ? -1023 : e)",
        "(e < -1023 ? 0 : e)",
        "losses/test_ctc.py",
    ),
    "CRF: pairs of tags with the transition turned": (
        "src/kernels/crf.inc.h",
        "const double *restrict W_m = W.m + i * K, *restrict W_e = W.e + i * K;\n        double *restrict row",
        "const double *restrict W_m = W.m, *restrict W_e = W.e;\n        double *restrict row",
        "losses/test_crf.py",
    ),
    "CRF: Viterbi takes the last of equal scores": (
        "src/kernels/crf.inc.h",
        "best[j] = base + row[j] > top[j] ? i",
        "best[j] = base + row[j] >= top[j] ? i",
        "losses/test_crf.py",
    ),
    "shards: their order turned": (
        "src/products.pxd",
        "tokens.first += shard if tokens.step > 0 else shard - (shards - 1)",
        "tokens.first += shard if tokens.step > 0 else -shard",
        "layers/test_shards.py",
    ),
    "shards: the output layer adds all to the first": (
        "src/head.pxd",
        "dW.values = at(dW.values, shard * f.shard_step, work)",
        "pass",
        "layers/test_shards.py",
    ),
    "backward skips the first step": (
        "src/backward.pxd",
        "g.ends, g.begins = begun, g.step.index > f.chunk.first",
        "g.ends, g.begins = begun, g.step.index > max(f.chunk.first, <Py_ssize_t>1)",
    ),
    "minGRU: the slope of the positive candidate is 1 everywhere": (
        "src/kernels/mingru.inc.h",
        "candidate == CANDIDATE_POSITIVE && n < (real)0.5 ? n * (1 - n) : 1;",
        "1;",
    ),
    "input and output gate swapped": (
        "src/kernels/lstm.inc.h",
        "real a_i = gate_i[j], a_f = gate_f[j], a_o = gate_o[j];",
        "real a_i = gate_o[j], a_f = gate_f[j], a_o = gate_i[j];",
    ),
    "blocks of the gradients in another order than those of the gates": (
        "src/kernels/lstm.inc.h",
        "GATES(dgates));",
        "dgates, dgates + H, dgates + 2 * H, dgates + 3 * H);",
    ),
    "weights by columns: the last column of a gradient forgotten": (
        "src/products.pxd",
        "transposed.adds, transposed.m, transposed.M = p.adds, p.M, p.m",
        "transposed.adds, transposed.m, transposed.M = p.adds, p.M - 1, p.m",
        "functional/test_arrays.py",
    ),
    "h[t] for h[t-1] in dWh": (
        "src/backward.pxd",
        "pieces[0].states = <const floating *>before.states + (s.N if s.reverse else -s.N) * H",
        "pieces[0].states = before.states",
    ),
    "gradient of the cell state not carried": (
        "src/kernels/lstm.inc.h",
        "real dc_prev = dc * f;",
        "real dc_prev = 0;",
    ),
    "only row 0 of a step": (
        "src/steps.pxd",
        "k.cells.lstm_forward(n, units, H, w.cell.peephole_output,",
        "k.cells.lstm_forward(1, units, H, w.cell.peephole_output,",
    ),
    "reset gate applied after the product": (
        "src/steps.pxd",
        "product(k, n, <const floating *>rh, H, &p.candidate, gates + 2 * H, GH, work)",
        "product(k, n, h_prev, H, &p.candidate, gates + 2 * H, GH, work)",
    ),
    "gradient passes through a reset": (
        "src/backward.pxd",
        "zero_rows(step.resets, step.n, p.units, <floating *>f.dh0 + state, H)",
        "pass",
    ),
    "the mask of the first rows for every group": (
        "src/call.pxd",
        "multiply_rows(n, H, state, <const floating *>s.mask + s.first * H, scratch, H)",
        "multiply_rows(n, H, state, <const floating *>s.mask, scratch, H)",
        "engine/test_threads.py",
    ),
    "the gradient of a masked reset state is not masked": (
        "src/steps.pxd",
        "multiply_rows(n, units, drh + u, mask + u, drh + u, H)",
        "pass",
    ),
    "weight gradients of states without their mask": (
        "src/backward.pxd",
        "<const floating *>f.batch.mask + g.batch.first * H + u, <floating *>f.h_before + kept * H + u, H)",
        "<const floating *>step.h_prev + u, <floating *>f.h_before + kept * H + u, H)",
    ),
    "output peephole sees the wrong cell": (
        "src/backward.pxd",
        "peephole_sums(f, tokens, 2, dgates, <const floating *>f.c, unit, units, dpeephole)",
        "peephole_sums(f, tokens, 2, dgates, <const floating *>f.gates, unit, units, dpeephole)",
    ),
    "last columns of a product forgotten": (
        "src/kernels/tiles.inc.h",
        "if (whole < M)",
        "if (whole < M - 1)",
    ),
    "the last whole vectors of a product start from the first rows": (
        "src/kernels/tiles.inc.h",
        "NAME(start_at)(from, i, 0), C + i * ldc, ldc, B.at, 0);",
        "from, C + i * ldc, ldc, B.at, 0);",
        "engine/test_kernels.py",
    ),
    "the second half of a panel starts from the first": (
        "src/kernels/tiles.inc.h",
        "NAME(start_at)(from, 0, W / 2),",
        "from,",
        "engine/test_kernels.py",
    ),
    "columns before the first whole line of the cache are forgotten": (
        "src/kernels/products.inc.h",
        "NAME(add_columns)(depth, m, 0, j, A,",
        "NAME(add_columns)(depth, m, j, j, A,",
        "engine/test_kernels.py",
    ),
    "the last columns of a transposed matrix start from zero": (
        "src/kernels/products.inc.h",
        "sum[i] = NAME(slice_of)(from.at ? from.at + i * from.row_step + j : NULL, 1, columns);",
        "sum[i] = NAME(slice_of)(columns == SLICE && from.at ? from.at + i * from.row_step + j : NULL, 1, columns);",
        "engine/test_kernels.py",
    ),
    "a frozen layer reads its packed weights in the wrong place": (
        "src/forward.pxd",
        "cdef char *packed = <char *>f.packed",
        "cdef char *packed = <char *>f.packed + LARGEST_PANEL",
        "layers/test_frozen.py",
    ),
    "threads that share units read those of the first in int8": (
        "src/forward.pxd",
        "packed_bytes(precision, item, K, p.first))",
        "packed_bytes(precision, item, K, 0))",
        "layers/test_quantized.py",
    ),
    "gate blocks of threads that share units lie too close": (
        "src/forward.pxd",
        "shared.packed_step = packed_bytes(precision, item, K, H)",
        "shared.packed_step = packed_bytes(precision, item, K, p.units)",
        "layers/test_quantized.py",
    ),
    "ids read rows of the first gate block": (
        "src/products.pxd",
        "cdef const void *packed = <const char *>f.packed + block * f.packed_step",
        "cdef const void *packed = <const char *>f.packed",
        "layers/test_quantized.py",
    ),
    "a calibrated scale is ignored": (
        "src/forward.pxd",
        "p.x.scale = w.x_scale",
        "p.x.scale = 0",
        "layers/test_quantized.py",
    ),
    "what is quantized is not cut off": (
        "src/kernels/quantized.inc.h",
        "value > 127 ? 127 : value",
        "value",
        "engine/test_quantized_kernels.py",
    ),
    "NaN of a row is lost in int8": (
        "src/kernels/quantized.inc.h",
        "*scale = is_finite ? 0 : (real)NAN;",
        "*scale = 0;",
        "engine/test_quantized_kernels.py",
    ),
    "bfloat16 loses a bit": (
        "src/kernels/bfloat16.inc.h",
        "words & 0xffff0000u",
        "words & 0xfffe0000u",
        "engine/test_quantized_kernels.py",
    ),
    "the last group of an odd number is left out in int8": (
        "src/kernels/int8_tiles.inc.h",
        "for (; group < groups; group++) {",
        "for (; group < groups - 1; group++) {",
        "engine/test_quantized_kernels.py",
    ),
    "memory that is not there is used": (
        "src/memory.pxd",
        "if memory.start == NULL:",
        "if size == 0:",
        "bench/test_memory.py",
    ),
    "the scratch of a stream is never returned": (
        "src/_engine.pyx",
        "        free(self.members)\n        give_block(self.memory)",
        "        free(self.members)",
        "bench/test_memory.py",
    ),
    "a stream does not look whether it has memory": (
        "src/_engine.pyx",
        "if self.calls == NULL or self.groups == NULL or self.members == NULL:",
        "if self.calls == NULL:",
        "bench/test_memory.py",
    ),
    "every thread takes the first hidden units": (
        "src/plan.pxd",
        "p.first = member * f.plan.units",
        "p.first = 0",
        "engine/test_threads.py",
    ),
    "a group of rows forgets its last": (
        "src/plan.pxd",
        "g.batch.count = f.plan.first_row[i + 1] - g.batch.first",
        "g.batch.count = f.plan.first_row[i + 1] - g.batch.first - (1 if i > 0 else 0)",
        "engine/test_threads.py",
    ),
    "sums over tokens in the order of time": (
        "src/products.pxd",
        "tokens.step = 1 if reverse else -1",
        "tokens.step, tokens.first = 1, begin",
        "engine/test_checkpoint.py",
    ),
    "a chunk of steps overwrites the sums of the one after it": (
        "src/backward.pxd",
        "f.adds or f.chunk.end < f.batch.T",
        "f.adds",
        "engine/test_threads.py",
    ),
    "dx of every chunk at the begin of dx": (
        "src/backward.pxd",
        "at(f.dx, (f.chunk.begin + begin) * D, type_)",
        "at(f.dx, begin * D, type_)",
        "engine/test_threads.py",
    ),
    "every group packs the first share of the weights": (
        "src/forward.pxd",
        "cdef int share = piece // f.plan.members, shares = f.plan.groups",
        "cdef int share = 0, shares = f.plan.groups",
        "engine/test_threads.py",
    ),
    "the last stage of a step is left out where a member begins the next one": (
        "src/backward.pxd",
        "    if g.ends:\n",
        "    if g.ends and not g.begins:\n",
    ),
}

#: Those of code that only processors with 32 vector registers run.
OF_WIDE_PROCESSORS = {"the second half of a panel starts from the first"}
