"""Recurrent layers, normalisations, softmax, matrix products."""

from __future__ import annotations

import numpy as np

from tests.runners.fp64.cases import case, f, ints

_T, _B, _I, _H = 5, 3, 4, 6
_X = f(_T, _B, _I)
_LENGTHS = np.array([5, 2, 3], np.int32)


def _weights(gates: int, directions: int = 1):
    return (
        f(directions, gates * _H, _I, low=-1, high=1),
        f(directions, gates * _H, _H, low=-1, high=1),
        f(directions, 2 * gates * _H),
    )


def _state(directions: int = 1):
    return f(directions, _B, _H, low=-1, high=1)


def _recurrent(op, gates, directions=1, *, bias=True, lengths=None, states=(), outputs=2, **attributes):
    w, r, b = _weights(gates, directions)
    return case(op, _X, w, r, b if bias else None, lengths, *states, hidden_size=_H, outputs=outputs, **attributes)


_BOTH = {"directions": 2, "direction": "bidirectional"}
RECURRENT = [
    _recurrent("LSTM", 4, outputs=3),
    _recurrent("LSTM", 4, outputs=3, bias=False, direction="reverse", opset=7),
    _recurrent("LSTM", 4, **_BOTH, outputs=3, lengths=_LENGTHS),
    _recurrent("LSTM", 4, **_BOTH, outputs=3, states=(_state(2), _state(2), f(2, 3 * _H))),
    _recurrent("LSTM", 4, lengths=_LENGTHS, direction="reverse", states=(_state(), _state()), outputs=3),
    _recurrent("LSTM", 4, states=(_state(), _state(), f(1, 3 * _H)), outputs=3, clip=0.5),
    _recurrent(
        "LSTM", 4, activations=["HardSigmoid", "Softsign", "Tanh"], activation_alpha=[0.3], activation_beta=[0.4]
    ),
    _recurrent("LSTM", 4, activations=["Sigmoid", "Relu", "ScaledTanh"], activation_alpha=[0.7], activation_beta=[0.9]),
    _recurrent("LSTM", 4, input_forget=1, outputs=3),
    _recurrent("LSTM", 4, outputs=3, skip=(0,)),
    _recurrent("GRU", 3),
    _recurrent("GRU", 3, linear_before_reset=1),
    _recurrent("GRU", 3, **_BOTH, lengths=_LENGTHS, states=(_state(2),), linear_before_reset=1),
    _recurrent("GRU", 3, direction="reverse", bias=False, opset=7),
    _recurrent("GRU", 3, clip=0.4),
    _recurrent(
        "GRU",
        3,
        **_BOTH,
        activations=["Sigmoid", "Tanh", "HardSigmoid", "Affine"],
        activation_alpha=[0.2, 0.5],
        activation_beta=[0.5, 0.1],
    ),
    _recurrent("GRU", 3, activations=["Sigmoid", "LeakyRelu"], activation_alpha=[0.05]),
    _recurrent("RNN", 1),
    _recurrent("RNN", 1, **_BOTH, lengths=_LENGTHS, states=(_state(2),)),
    _recurrent("RNN", 1, direction="reverse", activations=["Relu"]),
    _recurrent("RNN", 1, clip=0.5, bias=False),
    _recurrent("RNN", 1, activations=["Elu"], activation_alpha=[0.5]),
]

_Y = f(2, 6, 5, 4)
_C = f(6), f(6)
NORMALISATION = [
    case("BatchNormalization", _Y, *_C, f(6), f(6, low=0.1, high=2), opset=15),
    case("BatchNormalization", _Y, *_C, f(6), f(6, low=0.1, high=2), epsilon=0.01, opset=9),
    case("BatchNormalization", f(3, 6), *_C, f(6), f(6, low=0.1, high=2)),
    case("BatchNormalization", f(2, 6, 5), *_C, f(6), f(6, low=0.1, high=2), opset=7),
    case("InstanceNormalization", _Y, *_C),
    case("InstanceNormalization", f(2, 6, 50), *_C, epsilon=0.1),
    case("GroupNormalization", _Y, *_C, num_groups=3, epsilon=0.01, double=False),
    case("LayerNormalization", _Y, f(4), f(4)),
    case("LayerNormalization", _Y, f(5, 4), axis=2, epsilon=0.01),
    case("LayerNormalization", _Y, f(6, 5, 4), f(6, 5, 4), axis=1, outputs=3, double=False),
    case("RMSNormalization", _Y, f(4), opset=23),
    case("RMSNormalization", _Y, f(5, 4), axis=-2, opset=23),
    case("LpNormalization", _Y, axis=1, p=1),
    case("LpNormalization", _Y),
    case("MeanVarianceNormalization", _Y, axes=[0, 2, 3]),
    case("MeanVarianceNormalization", _Y, axes=[2, 3]),
    case("LRN", _Y, size=3),
    case("LRN", _Y, size=4, alpha=0.2, beta=0.6, bias=1.5, ort=False),
    case("LRN", f(1, 3, 4, 4), size=7),
    case("Softmax", _Y),
    case("Softmax", _Y, axis=1),
    case("Softmax", _Y, opset=11),
    case("Softmax", _Y, axis=2, opset=7),
    case("Softmax", f(3, 4) * 200),
    case("LogSoftmax", _Y, axis=-2),
    case("LogSoftmax", _Y, axis=2, opset=11),
    case("Hardmax", _Y, axis=1, discrete=True),
    case("Hardmax", _Y, opset=11, discrete=True),
]

PRODUCTS = [
    case("MatMul", f(3, 4), f(4, 5)),
    case("MatMul", f(4), f(2, 4, 5)),
    case("MatMul", f(2, 1, 3, 4), f(5, 4, 2)),
    case("MatMul", ints(3, 4), ints(4, 2), discrete=True),
    case("Gemm", f(3, 4), f(4, 5), f(5)),
    case("Gemm", f(4, 3), f(5, 4), f(3, 1), transA=1, transB=1, alpha=0.3, beta=1.7),
    case("Gemm", f(3, 4), f(4, 5), opset=13),
    case("Einsum", f(2, 3, 4), f(2, 5, 4), equation="bij, bkj -> bik"),
    case("Einsum", f(3, 3), equation="ii"),
    case("Einsum", f(2, 3, 4), equation="...ij->...ji"),
    case("Det", f(2, 3, 3)),
    case(
        "MatMulInteger",
        ints(3, 4, low=0, high=255, dtype=np.uint8),
        ints(4, 5, dtype=np.int8),
        np.uint8(100),
        np.int8(3),
        discrete=True,
    ),
    case("MatMulInteger", ints(2, 3, 4, dtype=np.int8), ints(4, 5, dtype=np.int8), discrete=True),
    case(
        "QLinearMatMul",
        ints(3, 4, low=0, high=255, dtype=np.uint8),
        0.03,
        np.uint8(110),
        ints(4, 5, dtype=np.uint8, low=0, high=255),
        0.04,
        np.uint8(130),
        0.3,
        np.uint8(120),
        discrete=True,
    ),
    case("Attention", f(1, 2, 4, 8), f(1, 2, 6, 8), f(1, 2, 6, 8), opset=23, tolerance=1e-5, double=False),
    case(
        "Attention",
        f(1, 4, 16),
        f(1, 4, 16),
        f(1, 4, 16),
        opset=23,
        is_causal=1,
        q_num_heads=2,
        kv_num_heads=2,
        tolerance=1e-5,
        double=False,
    ),
    case("RotaryEmbedding", f(1, 2, 3, 8), f(5, 4), f(5, 4), np.array([[0, 2, 4]]), opset=23),
]
