"""Tiny graphs with one fault each, or with what looks like one and is none; and ``checked``, which checks them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from probe.debug.check import CheckOptions, check_network
from probe.model import load
from probe.results.check import CheckResult
from probe.store.feeds import InputSet
from tests.model.builders import INT64, model, node, save, value, weight

Feeds = dict[str, np.ndarray]
RNG = np.random.default_rng(0)
UNIT = RNG.normal(size=(4, 64)).astype(np.float32)  # ordinary activations


def checked(
    proto: onnx.ModelProto, feeds: Feeds | Sequence[Feeds], folder: Path, precision: str = "fp16", **options: object
) -> CheckResult:
    """Check a graph on one input, or on several called ``0``, ``1``..."""
    path = save(proto, folder / "model.onnx")
    several = [feeds] if isinstance(feeds, dict) else list(feeds)
    sets = [InputSet(str(at), one, f"file {at}.npz") for at, one in enumerate(several)]
    return check_network(load(path), sets, CheckOptions(precision=precision, **options))  # type: ignore[arg-type]


def chain(
    nodes: Sequence[onnx.NodeProto], *weights: onnx.TensorProto, x: Sequence[int] = (4, 64), opset: int = 17
) -> onnx.ModelProto:
    """x -> ... -> y, shapes of the result not declared."""
    return model(
        nodes, [value("x", tuple(x))], [onnx.ValueInfoProto(name="y", type=value("y", None).type)], weights, opset=opset
    )


def scalar(name: str, number: float) -> onnx.TensorProto:
    return weight(name, np.float32(number))


def rms_norm(epsilon: float = 1e-6) -> onnx.ModelProto:
    """x / sqrt(mean(x^2) + epsilon), node by node."""
    return chain(
        [
            node("Pow", ["x", "two"], ["square"], name="square"),
            node("ReduceMean", ["square"], ["mean"], name="mean", axes=[-1]),
            node("Add", ["mean", "eps"], ["shifted"], name="add"),
            node("Sqrt", ["shifted"], ["root"], name="root"),
            node("Div", ["x", "root"], ["y"], name="div"),
        ],
        scalar("two", 2.0),
        scalar("eps", epsilon),
    )


def saturated() -> onnx.ModelProto:
    """tanh(x^3): an Inf in FP16 that is as good as a large number."""
    return chain(
        [node("Pow", ["x", "three"], ["cube"], name="cube"), node("Tanh", ["cube"], ["y"], name="tanh")],
        scalar("three", 3.0),
    )


def masked(number: float = -3.4028234663852886e38, *, multiplied: bool = False) -> onnx.ModelProto:
    """softmax(x + mask), the mask selected or multiplied from ``keep`` (1: visible)."""
    made = (
        [
            node("Sub", ["one", "keep"], ["hidden"], name="hidden"),
            node("Mul", ["hidden", "never"], ["mask"], name="times"),
        ]
        if multiplied
        else [
            node("Greater", ["keep", "half"], ["seen"], name="seen"),
            node("Where", ["seen", "zero", "never"], ["mask"], name="where"),
        ]
    )
    return model(
        [*made, node("Add", ["x", "mask"], ["scores"], name="add"), node("Softmax", ["scores"], ["y"], name="softmax", axis=-1)],
        [value("x", (4, 64)), value("keep", (4, 64))], [value("y", (4, 64))],
        [scalar("one", 1.0), scalar("never", number), scalar("half", 0.5), scalar("zero", 0.0)],
    )  # fmt: skip


def floored(floor: float = 1e-12) -> onnx.ModelProto:
    """log(max(x, floor)) as in log-power features, scaled."""
    return chain(
        [node("Max", ["x", "floor"], ["floored"], name="max"), node("Log", ["floored"], ["log"], name="log"), node("Mul", ["log", "scale"], ["y"], name="scale")],
        scalar("floor", floor), scalar("scale", 0.1),
    )  # fmt: skip


def logits() -> onnx.ModelProto:
    """softmax(x * 0.5): what is stored twice before it is read."""
    return chain(
        [
            node("Mul", ["x", "half"], ["scaled"], name="scaled"),
            node("Softmax", ["scaled"], ["y"], name="softmax", axis=-1),
        ],
        scalar("half", 0.5),
    )


def variance(share: float = 1.0) -> onnx.ModelProto:
    """share * (x - E[x]) / sqrt(E[x^2] - E[x]^2 + 1e-5), added to x unless it is all, which cancels where the mean is large."""
    return chain(
        [
            node("Mul", ["x", "x"], ["square"], name="square"),
            node("ReduceMean", ["square"], ["mean_of_squares"], name="mean_of_squares", axes=[-1]),
            node("ReduceMean", ["x"], ["mean"], name="mean", axes=[-1]),
            node("Mul", ["mean", "mean"], ["square_of_mean"], name="square_of_mean"),
            node("Sub", ["mean_of_squares", "square_of_mean"], ["variance"], name="variance"),
            node("Add", ["variance", "eps"], ["shifted"], name="shifted"),
            node("Sqrt", ["shifted"], ["root"], name="root"),
            node("Sub", ["x", "mean"], ["centred"], name="centred"),
            node("Div", ["centred", "root"], ["normed"], name="div"),
            node("Mul", ["normed", "share"], ["part"], name="part"),
            node("Add", ["x", "part"], ["y"], name="y")
            if share != 1.0
            else node("Identity", ["part"], ["y"], name="y"),
        ],
        scalar("eps", 1e-5),
        scalar("share", share),
    )


def counted() -> onnx.ModelProto:
    """Rows of a table taken by a position computed in float."""
    return model(
        [node("Cast", ["x"], ["at"], name="cast", to=INT64), node("Gather", ["table", "at"], ["y"], name="gather")],
        [value("x", (4,))], [value("y", (4, 2))], [weight("table", RNG.normal(size=(5000, 2)).astype(np.float32))],
    )  # fmt: skip


def single(
    op: str,
    x: Sequence[int] = (4, 64),
    *,
    weights: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node that reads x and the weights."""
    return chain(
        [node(op, ["x", *(w.name for w in weights)], ["y"], name=op.lower(), **attributes)], *weights, x=x, opset=opset
    )


def linear(k: int, n: int, array: np.ndarray | None = None) -> onnx.ModelProto:
    held = (RNG.normal(size=(k, n)) / np.sqrt(k)).astype(np.float32) if array is None else array
    return single("MatMul", (4, k), weights=[weight("w", held)])


def filled(number: float, shape: tuple[int, ...] = (4, 64)) -> np.ndarray:
    return np.full(shape, number, np.float32)
