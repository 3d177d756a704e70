"""The networks that faults are planted in: residual convnets, transformers with decomposed normalisation, RMSNorm MLPs.

Each is a residual stream of about unit size to which every block adds a share of fixed size, so that no block is lost among many and
FP16 without faults passes with a wide margin. Inputs are exact in FP16.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.culprits.planted.tracer import Array, Tracer

SHARE = 0.2  # root mean square of what a block adds to the stream
OUTPUTS = 10


class Base:
    """Stem, blocks and head of one kind of network.

    Attributes:
        shape: of the graph input ``x``.
        axis: of the stream's channels.
        channels: of the stream.
        stem_nodes, block_nodes, head_nodes: how many nodes each writes; blocks take turns.
    """

    shape: tuple[int, ...]
    axis: int
    channels: int
    stem_nodes: int
    block_nodes: tuple[int, ...]
    head_nodes: int

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        data = rng.standard_normal(self.shape, np.float32)
        # Nothing near 0: what accumulates needs factors of FP16 that lift each element to one binade.
        data = np.copysign(np.maximum(np.abs(data), 0.05), data)
        self.tracer = Tracer({"x": data.astype(np.float16).astype(np.float32)})

    def stem(self) -> str:
        """Writes the stem; returns the stream, at unit size."""
        raise NotImplementedError

    def block(self, h: str, number: int) -> str:
        """Writes a block that adds to the stream; returns the stream after it."""
        raise NotImplementedError

    def head(self, h: str, loudness: Array) -> str:
        """Writes the head, output channel i scaled by ``loudness[i]``; returns the logits."""
        raise NotImplementedError

    def along_channels(self, vector: Array) -> Array:
        """``vector`` in the shape that broadcasts over the stream along its channels."""
        return vector.reshape([-1] + [1] * (len(self.shape) - 1 - self.axis % len(self.shape)))

    def _product(self, op: str, x: str, name: str, shape: tuple[int, ...], size: float, **attributes: Any) -> str:
        """A convolution or matrix product whose result has root mean square ``size``."""
        b = self.tracer
        w = b.weight(name, self.rng.standard_normal(shape))
        b.values[w] *= np.float32(size / np.sqrt(np.mean(b.peek(op, x, w, **attributes) ** 2)))
        return b.node(op, x, w, **attributes)


class ConvNet(Base):
    """Pre-activation residual blocks: BatchNormalization, Relu, Conv, twice. Output [1, 10, 8, 8], as of segmentation."""

    shape, axis, channels = (1, 3, 8, 8), 1, 16
    stem_nodes, block_nodes, head_nodes = 1, (7,), 3

    def stem(self) -> str:
        self.tracer.scope = "stem"
        return self._product("Conv", "x", "weight", (self.channels, 3, 3, 3), 1.0, pads=[1] * 4)

    def block(self, h: str, number: int) -> str:
        b = self.tracer
        b.scope = f"layers.{number}"
        c = self.channels
        y = self._product("Conv", self._active(h), "conv1.weight", (c, c, 3, 3), 1.0, pads=[1] * 4)
        y = self._product("Conv", self._active(y), "conv2.weight", (c, c, 3, 3), SHARE, pads=[1] * 4)
        return b.node("Add", h, y)

    def head(self, h: str, loudness: Array) -> str:
        self.tracer.scope = "head"
        x = self._active(h)
        return _scaled_head(self, "Conv", x, (OUTPUTS, self.channels, 1, 1), loudness.reshape(-1, 1, 1, 1))

    def _active(self, x: str) -> str:
        b, rng, c = self.tracer, self.rng, self.channels
        # Statistics are those of the data, as after training: a channel that a branch has offset is no dead one.
        mean, variance = b.values[x].mean((0, 2, 3)), b.values[x].var((0, 2, 3))
        variance = np.maximum(variance, 0.2 * variance.mean())
        parts = {
            "weight": rng.uniform(0.8, 1.2, c),
            "bias": 0.1 * rng.standard_normal(c),
            "mean": mean,
            "var": variance,
        }
        weights = [b.weight(f"bn.{name}", data) for name, data in parts.items()]
        return b.node("Relu", b.node("BatchNormalization", x, *weights))


class RmsMlp(Base):
    """RMSNorm (decomposed), up, SiLU, down. Output [1, 8, 10]."""

    shape, axis, channels = (1, 8, 32), -1, 32
    stem_nodes, block_nodes, head_nodes = 1, (11,), 7

    def stem(self) -> str:
        self.tracer.scope = "embed"
        return self._product("MatMul", "x", "weight", (32, 32), 1.0)

    def block(self, h: str, number: int) -> str:
        b = self.tracer
        b.scope = f"layers.{number}"
        y = self._product("MatMul", self._norm(h), "up.weight", (32, 48), 1.0)
        y = b.node("Mul", y, b.node("Sigmoid", y))
        return b.node("Add", h, self._product("MatMul", y, "down.weight", (48, 32), SHARE))

    def head(self, h: str, loudness: Array) -> str:
        self.tracer.scope = "head"
        return _scaled_head(self, "MatMul", self._norm(h), (32, OUTPUTS), loudness)

    def _norm(self, h: str) -> str:
        b = self.tracer
        mean = b.node("ReduceMean", b.node("Mul", h, h), axes=[-1], keepdims=1)
        root = b.node("Sqrt", b.node("Add", mean, b.weight("norm.eps", 1e-5)))
        return b.node("Mul", b.node("Div", h, root), b.weight("norm.weight", self.rng.uniform(0.8, 1.2, 32)))


class Transformer(Base):
    """Attention and feed-forward blocks by turns, LayerNormalization and GELU decomposed. Output [1, 8, 10]."""

    shape, axis, channels = (1, 8, 32), -1, 32
    stem_nodes, block_nodes, head_nodes = 2, (27, 18), 10

    def stem(self) -> str:
        b = self.tracer
        b.scope = "embed"
        h = self._product("MatMul", "x", "weight", (32, 32), 0.9)
        return b.node("Add", h, b.weight("position", 0.4 * self.rng.standard_normal((8, 32))))

    def block(self, h: str, number: int) -> str:
        self.tracer.scope = f"layers.{number // 2}.{'attention' if number % 2 == 0 else 'mlp'}"
        y = self._attention(self._norm(h)) if number % 2 == 0 else self._mlp(self._norm(h))
        return self.tracer.node("Add", h, y)

    def head(self, h: str, loudness: Array) -> str:
        self.tracer.scope = "head"
        return _scaled_head(self, "MatMul", self._norm(h), (32, OUTPUTS), loudness)

    def _norm(self, h: str) -> str:
        b, rng = self.tracer, self.rng
        centred = b.node("Sub", h, b.node("ReduceMean", h, axes=[-1], keepdims=1))
        variance = b.node("ReduceMean", b.node("Pow", centred, b.weight("norm.two", 2.0)), axes=[-1], keepdims=1)
        root = b.node("Sqrt", b.node("Add", variance, b.weight("norm.eps", 1e-5)))
        y = b.node("Mul", b.node("Div", centred, root), b.weight("norm.weight", rng.uniform(0.8, 1.2, 32)))
        return b.node("Add", y, b.weight("norm.bias", 0.1 * rng.standard_normal(32)))

    def _attention(self, x: str) -> str:
        b = self.tracer
        heads = b.weight("heads", np.array([1, 8, 2, 16]))

        def split(name: str, order: list[int]) -> str:
            y = self._product("MatMul", x, f"{name}.weight", (32, 32), 1.0)
            return b.node("Transpose", b.node("Reshape", y, heads), perm=order)

        query, key, value = split("q", [0, 2, 1, 3]), split("k", [0, 2, 3, 1]), split("v", [0, 2, 1, 3])
        logits = b.node("Mul", b.node("MatMul", query, key), b.weight("scale", 0.25))
        mixed = b.node("Transpose", b.node("MatMul", b.node("Softmax", logits, axis=-1), value), perm=[0, 2, 1, 3])
        joined = b.node("Reshape", mixed, b.weight("joined", np.array([1, 8, 32])))
        return self._product("MatMul", joined, "out.weight", (32, 32), SHARE)

    def _mlp(self, x: str) -> str:
        b = self.tracer
        y = self._product("MatMul", x, "up.weight", (32, 64), 1.0)
        y = b.node("Add", y, b.weight("up.bias", 0.1 * self.rng.standard_normal(64)))
        erf = b.node("Erf", b.node("Mul", y, b.weight("gelu.root", 0.5**0.5)))
        y = b.node("Mul", b.node("Mul", y, b.node("Add", erf, b.weight("gelu.one", 1.0))), b.weight("gelu.half", 0.5))
        return self._product("MatMul", y, "down.weight", (64, 32), SHARE)


def _scaled_head(base: Base, op: str, x: str, shape: tuple[int, ...], loudness: Array) -> str:
    b = base.tracer
    w = b.weight("weight", base.rng.standard_normal(shape) * loudness)
    b.values[w] *= np.float32(1 / np.sqrt(np.mean(b.peek(op, x, w) ** 2)))
    return b.node(op, x, w)


BASES: dict[str, type[Base]] = {"convnet": ConvNet, "transformer": Transformer, "rmsnorm": RmsMlp}
