"""Native calls that take seconds, one of each kind: for tests of interrupts, and for bench/interrupts.py."""

import numpy as np

import rnncore as rc


def _random(*shape):
    return np.random.default_rng(0).random(shape, "float32") - np.float32(0.5)


def _cell(T, N, D, H, num_gates):
    return _random(T, N, D), _random(D, num_gates * H) / 8, _random(H, num_gates * H) / 8, _random(num_gates * H)


def forward():
    arguments = _cell(1_000_000, 1, 8, 96, 4)
    return lambda: rc.lstm_forward(*arguments, training=False)


def training():
    arguments = _cell(1_000_000, 1, 8, 48, 3)
    return lambda: rc.gru_forward(*arguments)


def backward():
    *_, cache = rc.lstm_forward(*_cell(500_000, 1, 8, 64, 4))
    dh = np.ones((500_000, 1, 64), "float32")
    return lambda: rc.lstm_backward(dh, cache)


def lengths():
    """A long sequence beside a short one, in reverse."""
    arguments, steps = _cell(500_000, 2, 8, 96, 4), np.array([500_000, 9])
    return lambda: rc.lstm_forward(*arguments, lengths=steps, reverse=True, training=False)


def both_directions():
    layer, x = rc.LSTM(8, 64, num_layers=2, bidirectional=True, seed=0), _random(300_000, 1, 8)
    return lambda: layer(x)


def frozen():
    layer, x = rc.GRU(8, 96, num_layers=2, seed=0).freeze(), _random(500_000, 1, 8)
    return lambda: layer(x)


def int8():
    layer, x = rc.LSTM(8, 96, num_layers=2, seed=0).freeze().quantize("int8"), _random(500_000, 1, 8)
    return lambda: layer(x)


def bfloat16():
    layer, x = rc.LSTM(8, 96, num_layers=2, seed=0).freeze().quantize("bfloat16"), _random(500_000, 1, 8)
    return lambda: layer(x)


def sample():
    model = rc.LanguageModel(hidden_size=64, epochs=1, random_state=0).fit("to be or not to be, that is the question")
    return lambda: model.sample(1_000_000)


def wide_step():
    arguments = _cell(4, 512, 64, 4096, 4)
    return lambda: rc.lstm_forward(*arguments, training=False)


def wide_step_int8():
    layer, x = rc.LSTM(64, 2048, seed=0).freeze().quantize("int8"), _random(4, 2048, 64)
    return lambda: layer(x)


def wide_step_backward():
    *_, cache = rc.rnn_forward(*_cell(8, 512, 512, 8192, 1))
    return lambda: rc.rnn_backward(None, cache, np.ones((512, 8192), "float32"))


def wide_input():
    arguments = _cell(32, 32, 32_768, 512, 4)
    return lambda: rc.lstm_forward(*arguments, training=False)


def dense():
    layer, x = rc.Dense(512, 200_000, seed=0), _random(1000, 512)
    return lambda: layer(x)


def dense_backward():
    layer, x = rc.Dense(512, 200_000, seed=0), _random(1000, 512)
    y, cache = layer.forward(x)
    return lambda: layer.backward(y, cache)


def fused_cross_entropy():
    layer, h = rc.Dense(256, 200_000, seed=0), _random(4000, 1, 256)
    targets = np.random.default_rng(0).integers(200_000, size=(4000, 1))
    return lambda: rc.fused_softmax_cross_entropy(layer, h, targets)


def cross_entropy():
    logits = _random(1000, 1, 200_000)
    targets = np.random.default_rng(0).integers(200_000, size=(1000, 1))
    return lambda: rc.softmax_cross_entropy(logits, targets)


def ctc():
    logits, labels = _random(100_000, 2, 50), np.random.default_rng(0).integers(1, 50, size=200)
    return lambda: rc.ctc_loss(logits, [labels] * 2)


def crf():
    emissions, transitions = _random(100_000, 1, 100), _random(100, 100)
    tags = np.random.default_rng(0).integers(100, size=(100_000, 1))
    return lambda: rc.crf_loss(emissions, transitions, tags)


def viterbi():
    emissions, transitions = _random(100_000, 1, 300), _random(300, 300)
    return lambda: rc.viterbi(emissions, transitions)


def additive_attention():
    attention, queries, memory = rc.Attention(64, 64, "additive", seed=0), _random(2000, 1, 64), _random(20_000, 1, 64)
    return lambda: attention(queries, memory)


def additive_attention_backward():
    attention, memory = rc.Attention(64, 64, "additive", seed=0), _random(20_000, 1, 64)
    context, _, cache = attention.forward(_random(1000, 1, 64), memory)
    return lambda: attention.backward(context, cache)


def multiplicative_attention():
    attention, queries, memory = rc.Attention(1024, 1024, seed=0), _random(4000, 1, 1024), _random(20_000, 1, 1024)
    return lambda: attention(queries, memory)


#: Name -> function that prepares a call and returns it. An interrupted one leaves nothing behind that another reads.
LONG_CALLS = {
    function.__name__: function
    for function in (
        *(forward, training, backward, lengths, both_directions, frozen, int8, bfloat16, sample),
        *(wide_step, wide_step_int8, wide_step_backward, wide_input),
        *(dense, dense_backward, fused_cross_entropy, cross_entropy, ctc, crf, viterbi),
        *(additive_attention, additive_attention_backward, multiplicative_attention),
    )
}
