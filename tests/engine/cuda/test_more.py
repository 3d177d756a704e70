"""Recurrent cells, indexed elements, tensors made from numbers, scans, quantisation: every case of the table, on both devices."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.errors import ProbeError
from probe.model import load
from tests.engine.cuda.cases import Case
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.more_cases import GENERATED, INDEXED, QUANTISED, RECURRENT


@pytest.mark.parametrize(("place", "case", "precision"), table(*RECURRENT))
def test_recurrent(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*INDEXED))
def test_indexed(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*GENERATED))
def test_generated(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*QUANTISED))
def test_quantised(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_length_that_is_out_of_range_is_refused(backend, tmp_path, op):
    """Looked at before, or noted by the kernel of a run that is repeated: nothing is read or written outside of a tensor."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    given = {
        "x": (5, 2, 3),
        "w": ("w", (1, 4 * gates, 3)),
        "r": ("w", (1, 4 * gates, 4)),
        "": (),
        "lengths": np.array([5, 3], np.int32),
    }
    path, feeds = Case(op, given, {"hidden_size": 4, "direction": "reverse"}).save(tmp_path)
    engine = compile_model(load(path), precision="fp32", passes="none", fusion="none")
    golden = engine(feeds)["y0"]
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    for lengths, fits in (([5, 3], True), ([5, 3], True), ([9, 3], False), ([-1, 3], False), ([5, 3], True)):
        one = {**feeds, "lengths": np.array(lengths, np.int32)}
        if fits:
            np.testing.assert_allclose(engine(one)["y0"], golden, atol=1e-5)
        else:
            with pytest.raises(ProbeError):
                engine(one)
