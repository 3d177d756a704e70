"""A network of products of few rows, as a decoder's step without attention: twelve blocks of two products with bias, GELU and residual, then a head of
16384 columns; with kernels/matmul_few.cu where ``exact`` takes it and without, in one run.

    python -m tests.bench.cuda_few_network [--rows 1,16] [--precision fp16,fp32]

Needs a GPU. Errors are those of the outputs against the CPU device's in the same precision, over the output's norm.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import onnx

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.ops.products import few
from probe.model import load

BLOCKS, WIDTH, INNER, HEAD = 12, 768, 3072, 16384


def save(folder: Path, rows: int) -> Path:
    """The network in FP32, with random weights."""
    random, texts, weights, x = np.random.default_rng(0), [], {}, "x"
    for at in range(BLOCKS):
        texts.append(
            f"a{at} = MatMul ({x}, u{at})  b{at} = Add (a{at}, c{at})  d{at} = Div (b{at}, root)  e{at} = Erf (d{at})  f{at} = Add (e{at}, one)"
        )
        texts.append(
            f"g{at} = Mul (b{at}, f{at})  h{at} = Mul (g{at}, half)  i{at} = MatMul (h{at}, v{at})  j{at} = Add (i{at}, k{at})  x{at} = Add (j{at}, {x})"
        )
        x = f"x{at}"
        weights |= {f"u{at}": (WIDTH, INNER), f"c{at}": (INNER,), f"v{at}": (INNER, WIDTH), f"k{at}": (WIDTH,)}
    texts.append(f"y = Gemm <transB = 1> ({x}, w)")
    weights["w"] = (HEAD, WIDTH)
    numbers = "<float root = {1.4142135}, float one = {1.0}, float half = {0.5}>"
    text = f'<ir_version: 8, opset_import: ["" : 18]>\ng (float[{rows},{WIDTH}] x) => (float[{rows},{HEAD}] y) {numbers} {{ {" ".join(texts)} }}'
    made = onnx.parser.parse_model(text)
    for name, shape in weights.items():
        array = random.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(made, folder / f"m{rows}.onnx")
    return folder / f"m{rows}.onnx"


def measure(path: Path, rows: int, precision: str) -> None:
    engine = compile_model(load(path), precision=precision)
    plans = engine._plans(engine.assignment)
    given = {"x": np.random.default_rng(1).standard_normal((rows, WIDTH), dtype=np.float32)}
    feeds, expected = engine._feeds(given), engine(given)["y"].astype(np.float64)
    ready, said = {}, []
    for name in ("other", "few"):
        with mock.patch.object(few, "chosen", few.chosen if name == "few" else lambda *_: None):
            backend = Driver()
            device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
            ready[name] = device.prepare(feeds, plans)
            ready[name].replay()
            found = ready[name].outputs()["y"].array(backend).astype(np.float64)
        said.append(
            f"{name} off {np.linalg.norm(found - expected) / np.linalg.norm(expected):.1e}, {dict(device.queue.launches)}"
        )
    times = {name: [] for name in ready}
    for _ in range(3):
        for name, one in ready.items():
            times[name].append(one.time(30, rounds=3))
    print(
        f"{precision} {rows} rows: "
        + ", ".join(f"{name} {min(all_of) * 1e6:.0f} us" for name, all_of in times.items()),
        *said,
        sep="\n    ",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="1,16")
    parser.add_argument("--precision", default="fp16,fp32")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for rows in map(int, given.rows.split(",")):
            path = save(Path(folder), rows)
            for precision in given.precision.split(","):
                measure(path, rows, precision)


if __name__ == "__main__":
    main()
