"""Every public model and export in FP32 on kernels against the outputs stored beside it: ONNX Runtime's, PyTorch's for the exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.model import load
from tests.engine.cuda.test_models import EXPORTS, MODELS, QUANTISED, mostly_near

NEAR = 1e-3  # of an output's range
QUICK = ("mnist", "occ_image_classifier32")  # on the host too


def rows(*names: str) -> list:
    return [pytest.param("gpu", name, id=f"{name}-gpu", marks=pytest.mark.gpu) for name in names] + [
        pytest.param("host", name, id=f"{name}-host") for name in names if name in QUICK
    ]


def check(folder: Path, name: str, backend) -> None:
    engine = compile_model(load(folder / "models" / f"{name}.onnx"), precision="fp32")
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    for data in sorted((folder / "data").glob(f"{name}__*.npz")):
        with np.load(data) as stored:
            arrays = dict(stored)
        feeds = {key[3:]: array for key, array in arrays.items() if key.startswith("in/")}
        golden = {key[4:]: array for key, array in arrays.items() if key.startswith("out/")}
        for _ in range(2):  # recorded, then repeated
            actual = engine(feeds)
            for key, wanted in golden.items():
                if name in QUANTISED:
                    mostly_near(actual[key], wanted, *QUANTISED[name])
                else:
                    near(actual[key], wanted, f"{data.stem} {key}")


def near(actual: np.ndarray, golden: np.ndarray, what: str) -> None:
    assert actual.shape == golden.shape, what
    if golden.dtype.kind != "f":
        assert np.array_equal(actual, golden), what
        return
    wide, off = golden.astype(np.float64), np.abs(actual.astype(np.float64) - golden)
    assert off.max(initial=0.0) <= NEAR * (wide.max(initial=-np.inf) - wide.min(initial=np.inf)), (what, off.max())


@pytest.mark.parametrize(("place", "name"), rows(*MODELS))
def test_public_models(request, models, place, name):
    check(models, name, request.getfixturevalue(place))


@pytest.mark.parametrize(("place", "name"), rows(*EXPORTS))
def test_exports(request, exports, place, name):
    check(exports, name, request.getfixturevalue(place))


def test_none_is_left_out(models, exports):
    for folder, names in ((models, MODELS), (exports, EXPORTS)):
        assert {one["name"] for one in json.loads((folder / "MANIFEST.json").read_text())["models"]} == set(names)
