"""The equations of the optimisers, written down plainly in float64."""

import numpy as np

from rnncore.optim import SGD, Adagrad, RMSProp


def updated(kind, options, p, g, memory, t, rate):
    """The parameter after step t, of one element or of an array; ``memory`` is kept from step to step, at first {}."""
    eps = options.get("epsilon", 1e-8)
    if kind is SGD:
        momentum = options.get("momentum", 0.0)
        memory["v"] = momentum * memory.get("v", 0.0) + g
        return p - rate * memory["v"]
    if kind is RMSProp:
        decay = options.get("decay", 0.9)
        memory["v"] = decay * memory.get("v", 0.0) + (1 - decay) * g * g
        return p - rate * g / (np.sqrt(memory["v"]) + eps)
    if kind is Adagrad:
        memory["v"] = memory.get("v", 0.0) + g * g
        return p - rate * g / (np.sqrt(memory["v"]) + eps)
    b1, b2 = options.get("beta1", 0.9), options.get("beta2", 0.999)
    memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
    m_hat, v_hat = memory["m"] / (1 - b1**t), memory["v"] / (1 - b2**t)
    return p - rate * m_hat / (np.sqrt(v_hat) + eps)
