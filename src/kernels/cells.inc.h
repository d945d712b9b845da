/* The step kernels of all cells, and the table of them; a new cell is included here and has its entries below.
 *
 * Every loop over the units is a function of its own with `restrict` parameters: compilers drop `restrict` on local
 * pointers, and then do not vectorise the loop. Options are constant arguments of an always-inlined body, so that no
 * option puts a branch into a loop. */

#include "rnn.inc.h"
#include "lstm.inc.h"
#include "gru.inc.h"
#include "mingru.inc.h"

static const cell_kernels NAME(cell_kernels) = {
    .rnn_forward = NAME(rnn_forward),
    .rnn_backward = NAME(rnn_backward),
    .lstm_forward = NAME(lstm_forward),
    .lstm_backward = NAME(lstm_backward),
    .gru_gates = NAME(gru_gates),
    .gru_update = NAME(gru_update),
    .gru_update_backward = NAME(gru_update_backward),
    .gru_reset_backward = NAME(gru_reset_backward),
    .mingru_forward = NAME(mingru_forward),
    .mingru_backward = NAME(mingru_backward),
};
