"""Data movement: the same bits in another place: every case of the table, on both devices."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.model import load
from tests.engine.cuda.cases import MOVES
from tests.engine.cuda.compared import check, table


@pytest.mark.parametrize(("place", "case", "precision"), table(*MOVES))
def test_movement(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


PADDED = """<ir_version: 8, opset_import: ["" : {opset}]>
g ({type}[2,3] x) => ({type}[2,8] y{more}) {weights}
{{ a = Abs (x)  b = Pad {pad}  y = Neg (b) }}"""


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("value", [0.1, 1e30, -3.4e38, 0.0])
def test_what_is_put_around_is_rounded_by_whoever_reads_it(backend, tmp_path, value, precision):
    text = PADDED.format(opset=10, type="float", more="", weights="", pad=f"<pads = [0, 2, 0, 3], value = {value}> (a)")
    outputs = padded(backend, tmp_path, text, np.ones((2, 3), np.float32), precision)
    assert np.array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("value", [2**53 + 1, 2**63 - 1, -(2**63)])
def test_integers_are_put_around_as_they_are(backend, tmp_path, value):
    weights = f"<int64[4] p = {{0, 2, 0, 3}}, int64 v = {{{value}}}>"
    text = PADDED.format(opset=18, type="int64", more=", int64[2,8] b", weights=weights, pad="(a, p, v)")
    outputs = padded(backend, tmp_path, text, np.ones((2, 3), np.int64), "fp32", "b")
    assert np.array_equal(outputs[0], outputs[1]) and outputs[1][0, 0] == value


def padded(backend, folder, text, x, precision, name="y"):
    """What both devices make of a network."""
    onnx.save(onnx.parser.parse_model(text), folder / "m.onnx")
    engine = compile_model(load(folder / "m.onnx"), precision=precision, passes="none", fusion="none")
    expected = engine({"x": x})
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return expected[name], engine({"x": x})[name]
