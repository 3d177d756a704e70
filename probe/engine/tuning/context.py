"""What a selector is asked about: a layer as a problem to solve, and the ways there are to solve it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe import ir
from probe.engine import tactics
from probe.engine.assignment import Choice
from probe.engine.costs import shape_of
from probe.engine.rounding import is_float
from probe.model.movement import is_standard

if TYPE_CHECKING:
    from probe.engine.costs import Shape, Shapes
    from probe.engine.device.protocol import Tuner
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

_FREE = ("if", "shape")  # an If is its branches' layers; shapes are integers
_VALUES = 16  # elements of an integer weight that are part of the problem: axes, pads, shapes
_TEXT = 48  # characters of an attribute that are written out


@dataclass(frozen=True, slots=True)
class LayerContext:
    """A layer to choose a tactic for.

    Attributes:
        layer: its name.
        kind: conv, matmul, gemm, reduce, norm, softmax, ...
        nodes: the ONNX nodes it computes, by identity.
        reads, outputs: ONNX names of the tensors it reads and makes: its identity.
        precision: what its tensors are stored in.
        problem: its operators, the types and shapes they compute on, their attributes: ``Conv(fp16[1,3,8,8], fp16[4,3,3,3]){pads=[1,1,1,1]}
            -> fp16[1,4,8,8]``. Layers with the same problem take the same time; ``.`` is a tensor made inside.
    """

    layer: str
    kind: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    outputs: tuple[str, ...]
    precision: str
    problem: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tactic that can compute a layer.

    Attributes:
        tactic: its name.
        numerics: what it promises, in a sentence.
        workspace: bytes it needs beside what the layer reads and makes; None: a shape is not known.
        formats: what is stored of each tensor of the context's ``reads``, then of its ``outputs``: fp16, int64, ...
        deterministic: whether the same inputs give the same bits, run for run.
        median_us: measured time in microseconds; None: not measured.
        wrong: why it is none after all, as was found before it was to be timed: it does not compute what exact does.
    """

    tactic: str
    numerics: str
    workspace: int | None
    formats: tuple[str, ...]
    deterministic: bool
    median_us: float | None = None
    wrong: str = ""


def chosen_layers(engine: Engine) -> tuple[Layer, ...]:
    """Layers that compute, in execution order: those a tactic is chosen for. Data movement, shapes and Ifs are none."""
    return tuple(layer for layer in engine.layers if not layer.moves and layer.kind not in _FREE)


def context_of(layer: Layer, precision: str, shapes: Shapes | None = None) -> LayerContext:
    """A layer as selectors see it.

    Args:
        shapes: actual shapes by tensor name.
    """
    return LayerContext(
        layer=layer.name, kind=layer.kind, nodes=layer.origin,
        reads=tuple(value.name or "" for value in layer.reads),
        outputs=tuple(value.name or "" for value in layer.outputs),
        precision=precision, problem=problem_of(layer, precision, shapes),
    )  # fmt: skip


def runs_in(layer: Layer, precision: str, kept: frozenset[str]) -> frozenset[str]:
    """The precisions that a layer's tactic must exist for: its own, and FP32 where it reads or makes a tensor that is kept."""
    names = {value.name for value in (*layer.reads, *layer.weights, *layer.tensors)}
    return frozenset({precision, "fp32"} if names & kept else {precision})


def candidates_of(
    engine: Engine,
    layer: Layer,
    precision: str,
    shapes: Shapes | None = None,
    kept: frozenset[str] = frozenset(),
    named: Sequence[str] = (),
) -> tuple[Candidate, ...]:
    """The tactics that the engine's device can compute a layer with, exact first, its own last; not measured.

    Args:
        kept: tensors that are not rounded: a layer at one of them runs in FP32.
        named: tactics that somebody wants, beside those that the device offers as worth a try.
    """
    stored = "fp32" if precision == "tf32" else precision  # TF32 concerns what products read, not what is stored
    formats = tuple(_storage(value, stored) for value in (*layer.reads, *layer.outputs))
    offered = _offered(engine.tuner, layer, precision, shapes or {}, named) if engine.tuner is not None else ()
    return tuple(
        Candidate(tactic.name, tactic.numerics, tactic.workspace(layer, shapes), formats, tactic.deterministic)
        for tactic in (*tactics.TACTICS, *map(tactics.tactic_of, offered))
        if all(
            tactic.supports(layer, one, shapes) is None and engine.device.supports(layer, one, tactic.name) is None
            for one in runs_in(layer, precision, kept)
        )
    )


def _offered(tuner: Tuner, layer: Layer, precision: str, shapes: Shapes, named: Sequence[str]) -> tuple[str, ...]:
    found = tuner.offered(layer, precision, shapes)
    others = (one for one in named if one not in found and tactics.tactic_of(one).device)
    return (*found, *(one for one in others if tuner.refusal(layer, Choice(precision, one), shapes) is None))


# --- the problem -----------------------------------------------------------------------------------------------------


def problem_of(layer: Layer, precision: str, shapes: Shapes | None = None) -> str:
    """Operators with types, shapes and attributes, without any name: what the time of a tactic depends on."""
    inside = {id(value) for node in layer.nodes for value in node.outputs}
    steps = " + ".join(_step(node, inside, precision, shapes) for node in layer.nodes)
    return f"{steps} -> {', '.join(_typed(value, precision, shapes) for value in layer.outputs)}"


def _step(node: ir.Node, inside: set[int], precision: str, shapes: Shapes | None) -> str:
    operands = ", ".join(
        "" if value is None else "." if id(value) in inside else _typed(value, precision, shapes)
        for value in node.inputs
    )
    attributes = ", ".join(f"{name}={text}" for name, text in sorted(_attributes(node)))
    operator = node.op_type if is_standard(node) else f"{node.domain}.{node.op_type}"
    return f"{operator}({operands})" + (f"{{{attributes}}}" if attributes else "")


def _typed(value: ir.Value, precision: str, shapes: Shapes | None) -> str:
    shape = shape_of(value, shapes)
    text = f"{_storage(value, precision)}[{_extents(value) if shape is None else ','.join(map(str, shape))}]"
    small = _small_values(value, shape)
    return f"{text}={small}" if small else text


def _extents(value: ir.Value) -> str:
    """Of a tensor whose shape is not known whole."""
    if value.shape is None:
        return "..."
    return ",".join(str(extent) if isinstance(extent, int) else "?" for extent in value.shape)


def _storage(value: ir.Value, precision: str) -> str:
    if is_float(value):
        return precision
    return "?" if value.dtype is None else value.dtype.name.lower()


def _small_values(value: ir.Value, shape: Shape | None) -> str:
    """The values of a small integer weight, such as the axes of a reduction: the problem depends on them."""
    if value.const_value is None or not value.is_initializer() or is_float(value) or shape is None:
        return ""
    if math.prod(shape) > _VALUES:
        return ""
    return str(value.const_value.numpy().tolist()).replace(" ", "")


def _attributes(node: ir.Node) -> Iterator[tuple[str, str]]:
    for name, attribute in node.attributes.items():
        yield name, _text(attribute.value)


def _text(value: Any) -> str:
    """An attribute, short and the same for the same value."""
    if isinstance(value, ir.Graph):
        return f"graph of {len(list(value))} nodes {_digest([(node.domain, node.op_type) for node in value])}"
    if isinstance(value, ir.Tensor):
        return f"tensor {_digest((value.dtype.name, value.shape.numpy(), value.tobytes()))}"
    if isinstance(value, (list, tuple)):
        text = f"[{','.join(_text(one) for one in value)}]"
    else:
        text = f"{value:.9g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _TEXT and text.isprintable() else f"{len(text)} characters {_digest(text)}"


def on_one_line(text: str) -> str:
    """A sentence about a layer as a line of a list: names may hold line ends, which would be lines of their own."""
    return "\\n".join(text.replace("\r", "\\r").split("\n"))


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()[:12]
