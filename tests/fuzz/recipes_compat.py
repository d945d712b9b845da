"""Valid calls of the drop-ins for NumPy code: see :mod:`fuzz.recipes`."""

from rnncore.compat import coursera, cs231n, dinosaurus, dlfs2, min_char_rnn

from .context import D, H, N, T, V, arrays, ids, one_of, real, value

FLAG = one_of(False, True)

# ---- the deep learning course -----------------------------------------------------------------------------------

RNN = arrays(Wax=(H, D), Waa=(H, H), Wya=(V, H), ba=(H, 1), by=(V, 1))
LSTM = arrays(
    **{f"W{gate}": (H, H + D) for gate in "fico"},
    **{f"b{gate}": (H, 1) for gate in "fico"},
    Wy=(V, H),
    by=(V, 1),
)


def coursera_rnn(c):
    return coursera.rnn_forward(c.array(D, N, T), c.array(H, N), RNN(c))[2]


def coursera_lstm(c):
    return coursera.lstm_forward(c.array(D, N, T), c.array(H, N), LSTM(c))[3]


STATES = {"a_prev": real(H, N), "c_prev": real(H, N)}
COURSERA = {
    "rnn_cell_forward": {"xt": real(D, N), "a_prev": real(H, N), "parameters": RNN},
    "rnn_forward": {"x": real(D, N, T), "a0": real(H, N), "parameters": RNN},
    "rnn_cell_backward": {"da_next": real(H, N), "cache": lambda c: coursera_rnn(c)[0][1]},
    "rnn_backward": {"da": real(H, N, T), "caches": coursera_rnn},
    "lstm_cell_forward": {"xt": real(D, N), **STATES, "parameters": LSTM},
    "lstm_forward": {"x": real(D, N, T), "a0": real(H, N), "parameters": LSTM},
    "lstm_cell_backward": {"da_next": real(H, N), "dc_next": real(H, N), "cache": lambda c: coursera_lstm(c)[0][1]},
    "lstm_backward": {"da": real(H, N, T), "caches": coursera_lstm, "carry": FLAG},
}

# ---- cs231n -----------------------------------------------------------------------------------------------------


def weights(G):
    return {"Wx": real(D, G * H), "Wh": real(H, G * H), "b": real(G * H)}


def made(forward, *shapes, last=None):
    """The cache that a forward function returns for arrays of these shapes."""
    return lambda c: forward(*(c.array(*shape) for shape in shapes))[-1]


def embedded(c):
    return cs231n.word_embedding_forward(c.ids(V, N, T), c.array(V, D))[1]


SEQUENCE = (N, T, D), (N, H)
CS231N = {
    "rnn_step_forward": {"x": real(N, D), "prev_h": real(N, H), **weights(1)},
    "rnn_step_backward": {
        "dnext_h": real(N, H),
        "cache": made(cs231n.rnn_step_forward, (N, D), (N, H), (D, H), (H, H), (H,)),
    },
    "rnn_forward": {"x": real(N, T, D), "h0": real(N, H), **weights(1)},
    "rnn_backward": {"dh": real(N, T, H), "cache": made(cs231n.rnn_forward, *SEQUENCE, (D, H), (H, H), (H,))},
    "lstm_step_forward": {"x": real(N, D), "prev_h": real(N, H), "prev_c": real(N, H), **weights(4)},
    "lstm_step_backward": {
        "dnext_h": real(N, H),
        "dnext_c": real(N, H),
        "cache": made(cs231n.lstm_step_forward, (N, D), (N, H), (N, H), (D, 4 * H), (H, 4 * H), (4 * H,)),
    },
    "lstm_forward": {"x": real(N, T, D), "h0": real(N, H), **weights(4)},
    "lstm_backward": {
        "dh": real(N, T, H),
        "cache": made(cs231n.lstm_forward, *SEQUENCE, (D, 4 * H), (H, 4 * H), (4 * H,)),
    },
    "word_embedding_forward": {"x": ids(V, N, T), "W": real(V, D)},
    "word_embedding_backward": {"dout": real(N, T, D), "cache": embedded},
    "affine_forward": {"x": real(N, D), "w": real(D, H), "b": real(H)},
    "affine_backward": {"dout": real(N, H), "cache": made(cs231n.affine_forward, (N, D), (D, H), (H,))},
    "temporal_affine_forward": {"x": real(N, T, D), "w": real(D, H), "b": real(H)},
    "temporal_affine_backward": {
        "dout": real(N, T, H),
        "cache": made(cs231n.temporal_affine_forward, (N, T, D), (D, H), (H,)),
    },
    "temporal_softmax_loss": {
        "x": real(N, T, V),
        "y": ids(V, N, T),
        "mask": lambda c: c.ids(2, N, T) == 1,
        "verbose": FLAG,
    },
    "sigmoid": {"x": real(N, H)},
}

# ---- Dinosaurus Island ------------------------------------------------------------------------------------------

DINOSAURUS_PARAMETERS = arrays(Wax=(H, V), Waa=(H, H), Wya=(V, H), b=(H, 1), by=(V, 1))
GRADIENTS = arrays(dWax=(H, V), dWaa=(H, H), dWya=(V, H), db=(H, 1), dby=(V, 1), da_next=(H, 1))
LETTERS = dict(enumerate("\nabcde"))
TEXT = {"X": lambda c: [None, 1, 2], "Y": lambda c: [1, 2, 0]}


def dinosaurus_pass(c):
    return dinosaurus.rnn_forward([None, 1, 2], [1, 2, 0], c.array(H, 1), DINOSAURUS_PARAMETERS(c), V)[1]


DINOSAURUS = {
    "clip": {"gradients": GRADIENTS, "maxValue": value(5)},
    "get_initial_loss": {"vocab_size": value(V), "seq_length": value(7)},
    "get_sample": {"sample_ix": lambda c: [1, 2, 0], "ix_to_char": lambda c: dict(LETTERS)},
    "print_sample": {"sample_ix": lambda c: [1, 2, 0], "ix_to_char": lambda c: dict(LETTERS)},
    "initialize_parameters": {"n_a": value(H), "n_x": value(V), "n_y": value(V)},
    "model": {
        "data": one_of(["ab", "cd"], "ab\ncd"),
        "ix_to_char": lambda c: dict(LETTERS),
        "char_to_ix": lambda c: {char: i for i, char in LETTERS.items()},
        "num_iterations": value(2),
        "n_a": value(H),
        "dino_names": value(1),
        "vocab_size": value(V),
        "verbose": FLAG,
    },
    "optimize": {**TEXT, "a_prev": real(H, 1), "parameters": DINOSAURUS_PARAMETERS, "learning_rate": value(0.01)},
    "rnn_forward": {**TEXT, "a0": real(H, 1), "parameters": DINOSAURUS_PARAMETERS, "vocab_size": value(V)},
    "rnn_backward": {**TEXT, "parameters": DINOSAURUS_PARAMETERS, "cache": dinosaurus_pass},
    "rnn_step_backward": {
        "dy": real(V, 1),
        "gradients": GRADIENTS,
        "parameters": DINOSAURUS_PARAMETERS,
        "x": real(V, 1),
        "a": real(H, 1),
        "a_prev": real(H, 1),
    },
    "rnn_step_forward": {"parameters": DINOSAURUS_PARAMETERS, "a_prev": real(H, 1), "x": real(V, 1)},
    "sample": {
        "parameters": DINOSAURUS_PARAMETERS,
        "char_to_ix": lambda c: {char: i for i, char in LETTERS.items()},
        "seed": value(0),
    },
    "smooth": {"loss": value(1.0), "cur_loss": value(2.0)},
    "softmax": {"x": real(V, 1)},
    "update_parameters": {"parameters": DINOSAURUS_PARAMETERS, "gradients": GRADIENTS, "lr": value(0.1)},
}

# ---- "Deep learning from scratch 2" -----------------------------------------------------------------------------

STEP = {"x": real(N, D), "h_prev": real(N, H), "c_prev": real(N, H)}


def layer(cls, *shapes, forward=(), **options):
    """A layer, after a forward pass half of the time if a method is to be called that needs one."""

    def make(c):
        made = cls(*(c.array(*shape) for shape in shapes), **options)
        if forward:
            made.forward(*(argument(c) for argument in forward))
        return made

    return make


def shapes(G):
    return (D, G * H), (H, G * H), (G * H,)


BI = shapes(4) + shapes(4)
DLFS2_RECEIVERS = {
    "RNN": layer(dlfs2.RNN, *shapes(1), forward=(real(N, D), real(N, H))),
    "GRU": layer(dlfs2.GRU, *shapes(3), forward=(real(N, D), real(N, H))),
    "LSTM": layer(dlfs2.LSTM, *shapes(4), forward=(real(N, D), real(N, H), real(N, H))),
    "TimeRNN": layer(dlfs2.TimeRNN, *shapes(1), forward=(real(N, T, D),), stateful=True),
    "TimeGRU": layer(dlfs2.TimeGRU, *shapes(3), forward=(real(N, T, D),), stateful=True),
    "TimeLSTM": layer(dlfs2.TimeLSTM, *shapes(4), forward=(real(N, T, D),)),
    "TimeBiLSTM": layer(dlfs2.TimeBiLSTM, *BI, forward=(real(N, T, D),)),
    "TimeAffine": layer(dlfs2.TimeAffine, (D, V), (V,), forward=(real(N, T, D),)),
    "TimeEmbedding": layer(dlfs2.TimeEmbedding, (V, D), forward=(ids(V, N, T),)),
    "TimeDropout": layer(dlfs2.TimeDropout, forward=(real(N, T, D),)),
    "TimeSoftmaxWithLoss": layer(dlfs2.TimeSoftmaxWithLoss, forward=(real(N, T, V), ids(V, N, T))),
}
DLFS2 = {
    "RNN": weights(1),
    "GRU": weights(3),
    "LSTM": weights(4),
    "TimeRNN": {**weights(1), "stateful": FLAG},
    "TimeGRU": {**weights(3), "stateful": FLAG},
    "TimeLSTM": {**weights(4), "stateful": FLAG},
    "TimeBiLSTM": {f"{name}{k}": make for k in (1, 2) for name, make in weights(4).items()} | {"stateful": FLAG},
    "TimeAffine": {"W": real(D, V), "b": real(V)},
    "TimeEmbedding": {"W": real(V, D)},
    "TimeDropout": {"dropout_ratio": value(0.5)},
    **{f"{name}.forward": STEP for name in ("RNN", "GRU", "LSTM")},
    **{f"{name}.backward": {"dh_next": real(N, H), "dc_next": real(N, H)} for name in ("RNN", "GRU", "LSTM")},
    **{f"{name}.forward": {"xs": real(N, T, D)} for name in ("TimeRNN", "TimeGRU", "TimeLSTM", "TimeBiLSTM")},
    **{f"{name}.backward": {"dhs": real(N, T, H)} for name in ("TimeRNN", "TimeGRU", "TimeLSTM")},
    **{f"{name}.set_state": {"h": real(N, H), "c": real(N, H)} for name in ("TimeRNN", "TimeGRU", "TimeLSTM")},
    "TimeBiLSTM.backward": {"dhs": real(N, T, 2 * H)},
    "TimeAffine.forward": {"x": real(N, T, D)},
    "TimeAffine.backward": {"dout": real(N, T, V)},
    "TimeEmbedding.forward": {"xs": ids(V, N, T)},
    "TimeEmbedding.backward": {"dout": real(N, T, D)},
    "TimeDropout.forward": {"xs": real(N, T, D)},
    "TimeDropout.backward": {"dout": real(N, T, D)},
    "TimeSoftmaxWithLoss.forward": {"xs": real(N, T, V), "ts": ids(V, N, T)},
    "TimeSoftmaxWithLoss.backward": {"dout": value(1.0)},
}

# ---- min-char-rnn and its kin -----------------------------------------------------------------------------------

CHARS = {"inputs": lambda c: [0, 1, 2], "targets": lambda c: [1, 2, 3], "hprev": real(H, 1), "cprev": real(H, 1)}
OUTPUT = {"Wy": real(V, H), "Why": real(V, H), "by": real(V, 1)}
COLUMNS = {name: real(H, 1) for name in ("bh", "br", "bz", "bf", "bi", "bcc", "bo")}


def columns(G):
    return 1 + D + H, G * H


MIN_CHAR = {
    "char_rnn_loss": {**CHARS, **OUTPUT, **COLUMNS, "Wxh": real(H, V), "Whh": real(H, H)},
    "char_lstm_loss": {**CHARS, **OUTPUT, **COLUMNS, **{name: real(H, H + V) for name in ("Wf", "Wi", "Wcc", "Wo")}},
    "char_gru_loss": {
        **CHARS,
        **OUTPUT,
        **COLUMNS,
        **{name: real(H, V) for name in ("Wh", "Wr", "Wz")},
        **{name: real(H, H) for name in ("Uh", "Ur", "Uz")},
    },
    "LSTM.init": {"input_size": value(D), "hidden_size": value(H), "fancy_forget_bias_init": value(3)},
    "LSTM.forward": {"X": real(T, N, D), "WLSTM": real(*columns(4)), "c0": real(N, H), "h0": real(N, H)},
    "LSTM.backward": {
        "dHout_in": real(T, N, H),
        "cache": made(min_char_rnn.LSTM.forward, (T, N, D), columns(4)),
        "dcn": real(N, H),
        "dhn": real(N, H),
    },
    "GRU.init": {"input_size": value(D), "hidden_size": value(H)},
    "GRU.forward": {"X": real(T, N, D), "WGRU": real(*columns(3)), "h0": real(N, H)},
    "GRU.backward": {
        "dH": real(T, N, H),
        "cache": made(min_char_rnn.GRU.forward, (T, N, D), columns(3)),
        "dhn": real(N, H),
    },
}

COMPAT = {
    f"compat.{module}.{name}": [recipe]
    for module, recipes in (
        ("coursera", COURSERA),
        ("cs231n", CS231N),
        ("dinosaurus", DINOSAURUS),
        ("dlfs2", DLFS2),
        ("min_char_rnn", MIN_CHAR),
    )
    for name, recipe in recipes.items()
}
COMPAT_RECEIVERS = {f"compat.dlfs2.{name}": make for name, make in DLFS2_RECEIVERS.items()}
