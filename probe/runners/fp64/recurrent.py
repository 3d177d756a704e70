"""LSTM, GRU and RNN, as the operators' definitions write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from probe.runners.fp64.calls import Call, Kernel
from probe.runners.fp64.elementwise import sigmoid, softplus
from probe.runners.protocol import Array

Activation = Callable[[Array], Array]
State = tuple[Array, ...]  # each [batch, hidden]
Step = Callable[[Array, State], State]  # (what the input adds to all gates [batch, gates * hidden], state) -> state

# name -> (function of x and of the parameters it has, default of alpha, default of beta). None: it has no such parameter.
_ACTIVATIONS: dict[str, tuple[Callable[..., Array], float | None, float | None]] = {
    "sigmoid": (sigmoid, None, None),
    "tanh": (np.tanh, None, None),
    "relu": (lambda x: np.maximum(x, 0.0), None, None),
    "softsign": (lambda x: x / (1.0 + np.abs(x)), None, None),
    "softplus": (softplus, None, None),
    "leakyrelu": (lambda x, a: np.where(x < 0, a * x, x), float(np.float32(0.01)), None),
    "thresholdedrelu": (lambda x, a: np.where(x > a, x, 0.0), 1.0, None),
    "elu": (lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0.0))), 1.0, None),
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0.0, 1.0), float(np.float32(0.2)), 0.5),
}


def _activations(call: Call, defaults: list[str], directions: int) -> list[list[Activation]]:
    """The functions of each direction. Values of ``activation_alpha`` and ``_beta`` go, in order, to those that take one."""
    names = call.get("activations") or defaults * directions
    alphas, betas = iter(call.get("activation_alpha") or ()), iter(call.get("activation_beta") or ())
    found = [_activation(name, alphas, betas) for name in names]
    count = len(defaults)
    return [found[i * count : (i + 1) * count] for i in range(directions)]


def _activation(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    if name.lower() not in _ACTIVATIONS:
        raise ValueError(f"no activation is called {name!r}")
    function, alpha, beta = _ACTIVATIONS[name.lower()]
    given = [next(values, default) for values, default in ((alphas, alpha), (betas, beta)) if default is not None]
    return lambda x: function(x, *given)


@dataclass(frozen=True, slots=True)
class _Sequences:
    """Input of a recurrent operator, time first."""

    x: Array  # [time, batch, inputs]
    lengths: Array  # [batch]

    def reversed(self) -> _Sequences:
        """Each sequence backwards within its own length."""
        return _Sequences(_reverse(self.x, self.lengths), self.lengths)


def _reverse(x: Array, lengths: Array) -> Array:
    time = np.arange(x.shape[0])[:, None]
    index = np.where(time < lengths, lengths - 1 - time, time)  # [time, batch]
    return np.take_along_axis(x, index[:, :, None], 0)


def _unroll(given: _Sequences, w: Array, bias: Array, state: State, step: Step) -> tuple[Array, State]:
    """All steps of one direction: (hidden states [time, batch, hidden], last state). Past a sequence's end its state stays and the
    hidden state handed out is 0."""
    time, batch = given.x.shape[:2]
    gates = (given.x.reshape(time * batch, -1) @ w.T + bias).reshape(time, batch, -1)  # for all times in one product
    made = np.zeros((time, batch, state[0].shape[1]))
    same = bool((given.lengths >= time).all())
    for t in range(time):
        new = step(gates[t], state)
        if same:
            state, made[t] = new, new[0]
            continue
        running = (t < given.lengths)[:, None]
        state = tuple(np.where(running, after, before) for after, before in zip(new, state, strict=True))
        made[t] = np.where(running, new[0], 0.0)
    return made, state


Cell = Callable[
    [int, list[Activation]], tuple[Array, Step]
]  # (direction, activations) -> (bias of the input's product, step)


def _run(
    call: Call,
    x: Array,
    w: Array,
    lengths: Array | None,
    initial: list[Array | None],
    defaults: list[str],
    hidden: int,
    cell: Cell,
) -> tuple[Array, ...]:
    """(Y, last state, ...) of all directions, in the layout the node asks for."""
    batch_first = bool(call.get("layout", 0))
    x = np.swapaxes(x, 0, 1) if batch_first else x
    time, batch, _ = x.shape
    given = _Sequences(x, np.full(batch, time) if lengths is None else lengths.astype(np.int64))
    direction = call.get("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    made: list[Array] = []
    last: list[State] = []
    for d, activations in enumerate(_activations(call, defaults, count)):
        start = tuple(_initial(state, d, batch, hidden, batch_first=batch_first) for state in initial)
        backwards = direction == "reverse" or d == 1
        bias, step = cell(d, activations)
        states, end = _unroll(given.reversed() if backwards else given, w[d], bias, start, step)
        made.append(_reverse(states, given.lengths) if backwards else states)
        last.append(end)
    y = np.stack(made, 1)  # [time, direction, batch, hidden]
    ends = [np.stack(parts) for parts in zip(*last, strict=True)]  # each [direction, batch, hidden]
    if batch_first:
        return np.transpose(y, (2, 0, 1, 3)), *(np.swapaxes(end, 0, 1) for end in ends)
    return y, *ends


def _initial(state: Array | None, direction: int, batch: int, hidden: int, *, batch_first: bool) -> Array:
    if state is None:
        return np.zeros((batch, hidden))
    return state[:, direction] if batch_first else state[direction]


def _clipped(call: Call) -> Activation:
    limit = call.get("clip")
    return (lambda x: np.clip(x, -limit, limit)) if limit else (lambda x: x)


def _halves(bias: Array | None, direction: int, width: int) -> tuple[Array, Array]:
    """Biases of the input's product and of the recurrent one."""
    return (np.zeros(width), np.zeros(width)) if bias is None else (bias[direction, :width], bias[direction, width:])


def _lstm(
    call: Call, x: Array, w: Array, r: Array, bias: Array | None = None, lengths: Array | None = None,
    h: Array | None = None, c: Array | None = None, peepholes: Array | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """Gates in the order input, output, forget, cell."""
    hidden, clip, coupled = r.shape[2], _clipped(call), bool(call.get("input_forget", 0))

    def cell(d: int, functions: list[Activation]) -> tuple[Array, Step]:
        f, g, out = functions
        wb, rb = _halves(bias, d, 4 * hidden)
        pi, po, pf = np.zeros((3, hidden)) if peepholes is None else peepholes[d].reshape(3, hidden)

        def step(gates: Array, state: State) -> State:
            h_before, c_before = state
            i, o, forget, candidate = np.split(gates + h_before @ r[d].T, 4, axis=1)
            i = f(clip(i + pi * c_before))
            forget = 1.0 - i if coupled else f(clip(forget + pf * c_before))
            c_now = forget * c_before + i * g(clip(candidate))
            o = f(clip(o + po * c_now))
            return o * out(c_now), c_now

        return wb + rb, step

    return _run(call, x, w, lengths, [h, c], ["Sigmoid", "Tanh", "Tanh"], hidden, cell)


def _gru(
    call: Call,
    x: Array,
    w: Array,
    r: Array,
    bias: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
) -> tuple[Array, ...]:
    """Gates in the order update, reset, hidden."""
    hidden, clip, late_reset = r.shape[2], _clipped(call), bool(call.get("linear_before_reset", 0))

    def cell(d: int, functions: list[Activation]) -> tuple[Array, Step]:
        f, g = functions
        wb, rb = _halves(bias, d, 3 * hidden)
        gates_matrix, hidden_matrix = r[d, : 2 * hidden].T, r[d, 2 * hidden :].T
        gates_bias, hidden_bias = rb[: 2 * hidden], rb[2 * hidden :]

        def step(gates: Array, state: State) -> State:
            (before,) = state
            z, reset = np.split(f(clip(gates[:, : 2 * hidden] + before @ gates_matrix + gates_bias)), 2, axis=1)
            if late_reset:
                recurrent = reset * (before @ hidden_matrix + hidden_bias)
            else:
                recurrent = (reset * before) @ hidden_matrix + hidden_bias
            candidate = g(clip(gates[:, 2 * hidden :] + recurrent))
            return ((1.0 - z) * candidate + z * before,)

        return wb, step

    return _run(call, x, w, lengths, [h], ["Sigmoid", "Tanh"], hidden, cell)


def _rnn(
    call: Call,
    x: Array,
    w: Array,
    r: Array,
    bias: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
) -> tuple[Array, ...]:
    hidden, clip = r.shape[2], _clipped(call)

    def cell(d: int, functions: list[Activation]) -> tuple[Array, Step]:
        wb, rb = _halves(bias, d, hidden)
        return wb + rb, lambda gates, state: (functions[0](clip(gates + state[0] @ r[d].T)),)

    return _run(call, x, w, lengths, [h], ["Tanh"], hidden, cell)


KERNELS: dict[str, Kernel] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
