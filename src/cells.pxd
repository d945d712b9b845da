"""The cells: Cython's view of kernels/cells.h, which has the contract, and the words for them."""

from libc.string cimport memset


cdef extern from "cells.h" nogil:
    enum:
        CELL_RNN, CELL_GRU, CELL_LSTM, CELL_MINGRU
        ACTIVATION_TANH, ACTIVATION_RELU, ACTIVATION_IDENTITY
        FORM_RESET_BEFORE, FORM_RESET_AFTER, FORM_SIMPLIFIED
        UPDATE_NEW, UPDATE_OLD
        PEEPHOLE_NONE, PEEPHOLE_CURRENT, PEEPHOLE_PREVIOUS
        CANDIDATE_IDENTITY, CANDIDATE_POSITIVE
        LARGEST_GATE_COUNT

    ctypedef struct cell_variant:
        int type
        int num_gates
        int activation
        int form
        int update
        int peephole_output
        int output_activation
        int candidate
        int[LARGEST_GATE_COUNT] places

    ctypedef struct cell_kernels:
        void (*rnn_forward)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int activation, void *h) noexcept nogil
        void (*rnn_backward)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int activation, const void *h,
                             const void *dh, void *da) noexcept nogil
        void (*lstm_forward)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int peephole_output, int output_activation,
                             const int *places, void *gates, const void *c_prev, const void *peephole, void *c,
                             void *h) noexcept nogil
        void (*lstm_backward)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int peephole_output, int output_activation,
                              const int *places, const void *gates, const void *c_prev, const void *c,
                              const void *peephole, const void *dh, void *dc, void *dgates) noexcept nogil
        void (*gru_gates)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int G, const int *places, void *gates,
                          const void *h_prev, void *rh) noexcept nogil
        void (*gru_update)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int G, int update, const int *places,
                           void *gates, const void *m, const void *h_prev, void *h) noexcept nogil
        void (*gru_update_backward)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int G, int update, const int *places,
                                    const void *gates, const void *m, const void *h_prev, void *dh, void *dgates,
                                    void *dm) noexcept nogil
        void (*gru_reset_backward)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, const int *places, const void *gates,
                                   const void *h_prev, const void *drh, void *dh, void *dgates,
                                   void *rh) noexcept nogil
        void (*mingru_forward)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int candidate, const int *places,
                               void *gates, const void *h_prev, void *h) noexcept nogil
        void (*mingru_backward)(Py_ssize_t n, Py_ssize_t units, Py_ssize_t H, int candidate, const int *places,
                                const void *gates, const void *h_prev, void *dh, void *dgates) noexcept nogil


cdef inline int describe_cell(cell_variant *cell, str name, tuple places, dict options) except -1:
    """Fill in a cell; ValueError for an unknown cell, KeyError for an unknown option or word."""
    cdef int k
    memset(cell, 0, sizeof(cell_variant))
    cell.num_gates = len(places)
    for k in range(cell.num_gates):
        cell.places[k] = places[k]
    if name == "rnn":
        cell.type = CELL_RNN
        cell.activation = activation_of(options["activation"])
    elif name == "gru":
        cell.type = CELL_GRU
        cell.form = {
            "reset_before": FORM_RESET_BEFORE, "reset_after": FORM_RESET_AFTER, "simplified": FORM_SIMPLIFIED
        }[options["form"]]
        cell.update = {"new": UPDATE_NEW, "old": UPDATE_OLD}[options["update"]]
    elif name == "lstm":
        cell.type = CELL_LSTM
        cell.output_activation = activation_of(options["output_activation"])
        cell.peephole_output = PEEPHOLE_NONE
        if options["peephole"]:
            cell.peephole_output = {
                "current": PEEPHOLE_CURRENT, "previous": PEEPHOLE_PREVIOUS
            }[options["peephole_output"]]
    elif name == "mingru":
        cell.type = CELL_MINGRU
        cell.candidate = {"identity": CANDIDATE_IDENTITY, "positive": CANDIDATE_POSITIVE}[options["candidate"]]
    else:
        raise ValueError(f"native code has no cell {name!r}")
    return 0


cdef inline bint has_Wh(const cell_variant *cell) noexcept nogil:
    """Whether the cell has recurrent weights."""
    return cell.type == CELL_RNN or cell.type == CELL_GRU or cell.type == CELL_LSTM


cdef inline int activation_of(word) except -1:
    return {"tanh": ACTIVATION_TANH, "relu": ACTIVATION_RELU, "identity": ACTIVATION_IDENTITY}[word]
