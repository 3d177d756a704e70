"""A small network with something of everything a saved engine holds: weights that are shared, folded and small, a kept tensor, fates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.model import load

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,64] x) => (float[n,64] y)
{ a = MatMul (x, w)  b = Add (a, c)  d = Relu (b)  e = MatMul (d, w)  f = Mul (e, s)  y = Tanh (f) }"""
X = {"x": np.random.default_rng(1).standard_normal((3, 64), np.float32)}


def small_engine(folder: Path) -> Engine:
    """Its model is ``folder/m.onnx``; ``d`` is kept in FP32."""
    rng = np.random.default_rng(5)
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in {"w": (64, 64), "c": (64,), "s": (1,)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    onnx.save(proto, folder / "m.onnx")
    return compile_model(load(folder / "m.onnx"), keep=["d"])
