"""Data movement: the same bits in another place: every case of the table, on both devices."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import in_dense_order, lying_of
from probe.engine.device.cuda.tensors.formats import F16
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.model import load
from tests.engine.cuda.cases import MOVES
from tests.engine.cuda.compared import check, table


@pytest.mark.parametrize(("place", "case", "precision"), table(*MOVES))
def test_movement(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


# extents of x, how often each element of an axis is there, and the first element of the last axis that is
REPEATED = {
    "images": ((2, 3, 4, 16), (1, 1, 2, 2), 0), "odd": ((3, 5, 7), (1, 1, 2), 0), "by three": ((2, 4, 16), (1, 3, 3), 0), "by five": ((3, 24), (1, 5), 0),
    "by twelve": ((3, 8), (1, 12), 0), "wide": ((3, 5), (1, 32), 0), "volumes": ((2, 3, 4, 8), (1, 2, 5, 4), 0), "shifted": ((3, 4, 21), (1, 1, 2), 1),
    "shifted rows": ((3, 4, 24), (1, 2, 2), 4), "a row": ((1, 64), (4, 8), 0),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64"])
@pytest.mark.parametrize("name", REPEATED)
def test_what_stands_still_is_read_once(backend, name, dtype):
    if backend.name == "host" and dtype == "float32" and name not in ("images", "volumes"):
        pytest.skip("compiling takes longest; the GPU computes all")
    shape, times, first = REPEATED[name]
    data = np.random.default_rng(7).integers(0, 200, shape).astype(dtype)
    queue = Queue(backend, 18)
    x = queue.convert(host_tensor(data.astype(np.float32)), F16) if dtype == "float16" else host_tensor(data)
    lies = lying_of(queue, x).cut(len(shape) - 1, first, shape[-1] - first)
    assert lies is not None
    expected = data[..., first:]
    for axis, many in enumerate(times):
        lies, expected = lies.spread(axis, many), expected.repeat(many, axis)
    made = in_dense_order(queue, lies)
    assert queue.launches["repeat"] == 1 and "copy_strided" not in queue.launches
    np.testing.assert_array_equal(made.array(backend).astype(dtype), expected)


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
