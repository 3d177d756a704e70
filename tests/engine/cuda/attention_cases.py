"""Attention as networks write it: a table of graphs, with feeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


@dataclass(frozen=True)
class Attended:
    """One attention layer.

    Attributes:
        queries: batch, heads, queries; ``keys``: so many.
        sizes: elements of a query or key, and of a value.
        steps: what lies between the products; reads ``p``, writes ``s``.
        before: how the operands come about; makes ``a``, ``b`` and ``c`` of ``q``, ``k``, ``v``.
        shapes: of q, k, v where they are not dense matrices.
        beside: inputs that steps read, by name: shapes; of bools where the name begins with an m, with a row of False for mz.
        behind: what comes after the softmax ``w``; makes ``u``.
        moved: how the result is transposed, from [batch, heads, queries, width].
        gain: of the operands.
    """

    queries: tuple[int, int, int]
    keys: int
    sizes: tuple[int, int] = (16, 16)
    steps: str = "s = Div (p, root)"
    before: str = "b = Transpose <perm = [0, 1, 3, 2]> (k)"
    shapes: tuple[tuple[int, ...], ...] = ()
    beside: tuple[tuple[str, tuple[int, ...]], ...] = ()
    behind: str = ""
    moved: tuple[int, ...] = ()
    gain: float = 1.0

    def save(self, path: Path) -> dict[str, np.ndarray]:
        """The network as a file, and its feeds. Each input passes a Relu, so that what attention reads was made, and rounded, by a layer."""
        batch, heads, queries = self.queries
        depth, width = self.sizes
        plain = ((batch, heads, queries, depth), (batch, heads, self.keys, depth), (batch, heads, self.keys, width))
        shapes = dict(zip("qkv", self.shapes or plain, strict=True))
        others = dict(self.beside)
        kinds = {name: "bool" if name[0] == "m" else "float" for name in others}
        inputs = [f"float[{','.join(map(str, shape))}] {name}0" for name, shape in shapes.items()]
        inputs += [f"{kinds[name]}[{','.join(map(str, shape))}] {name}" for name, shape in others.items()]
        lines = [f"{name} = Neg ({name}0)" for name in shapes]
        lines += self.before.split("; ") if self.before else []
        a, b, c = (made if f"{made} =" in self.before else name for made, name in zip("abc", "qkv", strict=True))
        lines += [f"p = MatMul ({a}, {b})", *self.steps.split("; "), "w = Softmax <axis = -1> (s)"]
        lines += self.behind.split("; ") if self.behind else []
        lines += [f"{'z' if self.moved else 'y'} = MatMul ({'u' if self.behind else 'w'}, {c})"]
        lines += [f"y = Transpose <perm = {list(self.moved)}> (z)"] if self.moved else []
        text = f"<ir_version: 9, opset_import: ['' : 17]>\nagraph ({', '.join(inputs)}) => (float[n0,n1,n2,n3] y) {{\n".replace(
            "'", '"'
        )
        made = onnx.parser.parse_model(text + "\n".join(lines) + "\n}")
        for name, value in (
            ("root", depth**0.5),
            ("root_of_root", depth**-0.25),
            ("low", -65504.0),
            ("far", -1e10),
            ("lowest", np.finfo(np.float32).min),
            ("none", 0.0),
            ("minus_inf", -np.inf),
            ("third", 0.3),
        ):
            made.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        onnx.save(made, path)
        random = np.random.default_rng(3)
        feeds: dict[str, np.ndarray] = {
            f"{name}0": self.gain * random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
        }
        for name, shape in others.items():
            drawn = random.standard_normal(shape, dtype=np.float32)
            feeds[name] = drawn > -0.5 if name[0] == "m" else drawn
            if name == "mz":
                feeds[name][..., 3, :] = False  # a row without keys
        return feeds


_HEADS = "a = Transpose <perm = [0, 2, 1, 3]> (q); b = Transpose <perm = [0, 2, 3, 1]> (k); c = Transpose <perm = [0, 2, 1, 3]> (v)"


def of_heads(batch: int, heads: int, queries: int, keys: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of q, k and v as linear layers leave them."""
    return tuple((batch, n, heads, size) for n in (queries, keys, keys))


CASES = {
    "plain": Attended((1, 2, 16), 16),
    "ragged": Attended((2, 1, 19), 37, (24, 8)),
    "bert": Attended(
        (2, 3, 33), 33, (24, 24), "d = Div (p, root); s = Add (d, x)", _HEADS, of_heads(2, 3, 33, 33, 24), (("x", (2, 1, 1, 33)),), moved=(0, 2, 1, 3)
    ),
    "even mask": Attended((2, 2, 20), 40, (16, 32), "d = Mul (p, third); s = Add (x, d)", beside=(("x", (1, 2, 20, 40)),)),
    "vit": Attended(
        (1, 2, 21), 21, (32, 32), "s = Mul (p, third)",
        "qt = Transpose <perm = [0, 2, 1, 3]> (q); a = Mul (qt, root_of_root); kt = Transpose <perm = [0, 2, 3, 1]> (k); "
        "b = Mul (kt, root_of_root); c = Transpose <perm = [0, 2, 1, 3]> (v)",
        of_heads(1, 2, 21, 21, 32), moved=(0, 2, 1, 3),
    ),
    "where": Attended(
        (1, 2, 18), 18, (16, 16), "d = Mul (p, third); s = Where (m, d, low)", beside=(("m", (1, 1, 18, 18)),),
        behind="n = IsNaN (w); u = Where (n, none, w)",
    ),
    "rows without keys": Attended((1, 2, 18), 19, steps="s = Where (mz, p, minus_inf)", beside=(("mz", (1, 1, 18, 19)),)),
    "rows without keys made zero": Attended(
        (1, 2, 18), 19, steps="s = Where (mz, p, minus_inf)", beside=(("mz", (1, 1, 18, 19)),),
        behind="n = IsNaN (w); u = Where (n, none, w)",
    ),
    "rows of the least number": Attended((1, 2, 18), 19, steps="d = Mul (p, third); s = Where (mz, d, lowest)", beside=(("mz", (1, 1, 18, 19)),)),
    "rows of large numbers": Attended((1, 2, 18), 19, steps="d = Mul (p, third); s = Where (mz, d, far)", beside=(("mz", (1, 1, 18, 19)),)),
    "overflow": Attended((1, 1, 16), 40, gain=90.0),
    "cap": Attended((1, 1, 17), 30, (16, 16), "d = Div (p, third); t = Tanh (d); s = Mul (t, third)"),
    "long": Attended((1, 2, 20), 300, (16, 16), "d = Div (p, root); s = Add (d, x)", beside=(("x", (1, 2, 20, 300)),)),
    "keys scaled first": Attended((1, 1, 17), 20, before="a = Div (q, third); kk = Mul (k, third); b = Transpose <perm = [0, 1, 3, 2]> (kk)", steps="s = Mul (p, third)"),
    "wide heads": Attended((1, 1, 17), 20, (136, 152)),
    "heads of 40": Attended((1, 2, 9), 70, (40, 40)),
    "one key": Attended((3, 1, 1), 1),
    "one query": Attended((1, 2, 1), 75, (64, 64)),
    "broadcast keys": Attended((2, 4, 9), 10, (16, 16), shapes=((2, 4, 9, 16), (2, 1, 10, 16), (2, 1, 10, 16))),
    "queries first": Attended((3, 2, 17), 17, (16, 16), "s = Mul (p, third)", _HEADS, of_heads(3, 2, 17, 17, 16), moved=(2, 0, 1, 3)),
}  # fmt: skip
