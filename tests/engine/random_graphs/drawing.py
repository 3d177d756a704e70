"""A model and its feeds, drawn by a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from tests.engine.random_graphs.exports import EXPORTS
from tests.engine.random_graphs.graph import LOUDEST, Array, Graph, Unfit, Value
from tests.engine.random_graphs.images import IMAGES
from tests.engine.random_graphs.pieces import PIECES
from tests.engine.random_graphs.tokens import TOKENS


@dataclass(frozen=True)
class Drawn:
    seed: int
    model: onnx.ModelProto
    feeds: dict[str, Array]


def begun(g: Graph) -> None:
    """The inputs: an image, a signal, a volume, tokens, a matrix or anything; a batch of 1 more often than not."""
    batch = g.pick(1, 1, 1, 2, 3)
    kind = g.pick("image", "image", "tokens", "tokens", "matrix", "signal", "volume", "any")
    shape: tuple[int, ...]
    if kind == "image":
        shape = (batch, g.size(65), g.size(17), g.size(17))
    elif kind == "tokens":
        shape = (batch, g.size(65), g.size(129))
    elif kind == "matrix":
        shape = (g.size(129), g.size(129))
    elif kind == "signal":
        shape = (batch, g.size(33), g.size(129))
    elif kind == "volume":
        shape = (1, g.size(9), g.size(5), g.size(8), g.size(8))
    else:
        shape = tuple(g.size(33) for _ in range(g.random.randint(0, 4)))
    if g.chance(0.02) and shape:
        at = g.random.randrange(len(shape))
        shape = (*shape[:at], 0, *shape[at + 1 :])
    while np.prod(shape) > 8192:
        shape = tuple(max(1, one // 2) for one in shape)
    g.input(g.normal(*shape))
    if g.chance(0.3):
        g.input(g.normal(*shape))


def grown(g: Graph, x: Value) -> Value:
    """A block behind a value. Raises ``Unfit``."""
    families = [PIECES, PIECES, EXPORTS, EXPORTS]
    if x.rank >= 3 and x.array.size:
        families += [IMAGES] * (4 if x.rank == 4 else 1)
    if x.rank in (2, 3) and x.array.size:
        families += [TOKENS] * 3
    y = g.pick(*g.pick(*families))(g, x)
    if not np.isfinite(y.array).all() or abs(y.array).max(initial=0) > LOUDEST:
        raise Unfit
    loud = float(abs(y.array).max(initial=0))
    if loud > 32:  # brought back, as a norm would
        y = g.op("Mul", y, g.constant(2.0 ** -int(np.log2(loud))))
    return y


def drawn(seed: int) -> Drawn:
    g = Graph(seed)
    begun(g)
    x, many = g.values[0], g.random.randint(1, 9)
    blocks = 0
    for _ in range(4 * many):
        mark = g.mark()
        try:
            if g.chance(0.15):
                x = g.another(lambda one: one.is_float)
            x = grown(g, x)
            blocks += 1
        except (Unfit, ZeroDivisionError):  # or without elements
            g.rollback(mark)
            x = x if any(x is one for one in g.values) else g.values[-1]
            if not x.is_float:
                x = g.values[0]
        if blocks >= many:
            break
    if not g.nodes or all(one.op_type == "Constant" for one in g.nodes):
        g.op("Relu", g.values[0])
    made = [one for one in g.values if one not in g.inputs]
    read = {name for node in g.nodes for name in node.input}
    ends = [one for one in made if one.name not in read]
    outputs = ends[-5:] or made[-1:]
    outputs += [
        one for one in g.random.sample(made, min(len(made), g.pick(0, 0, 0, 1, 2))) if one not in outputs
    ]  # read inside as well
    if g.chance(0.03):  # an input handed on as it is
        outputs.append(g.op("Identity", g.values[0]))
    g.random.shuffle(outputs)
    model = g.model(outputs, symbolic=g.chance(0.2))
    names = {one.name for one in model.graph.input}
    return Drawn(seed, model, {one.name: one.array for one in g.inputs if one.name in names})
