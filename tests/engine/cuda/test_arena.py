"""The block that real networks run in: within 5 % of what is alive at its worst step, planned without a GPU."""

from __future__ import annotations

import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.ops.products.wgmma import ARCH
from probe.engine.plan.memory import NEAR
from probe.model import load
from probe.model.inputs import make_inputs
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_models import EXPORTS, MODELS

VALUES = frozenset(
    ("silero_vad", "convtasnet_cln", "nonzero_boxes", "scripted_loop_if")
)  # sizes depend on values, which nobody computes here


class Planned(NullBackend):
    """Chooses kernels as an H200 does."""

    arch = ARCH


@pytest.mark.parametrize("backend", [NullBackend, Planned], ids=["others", "sm_90a"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind, names in (("models", MODELS), ("exports", EXPORTS))
        for name in sorted(set(names) - VALUES)
    ],
)
def test_memory_is_near_the_peak(request, kind, name, backend):
    path = request.getfixturevalue(kind) / "models" / f"{name}.onnx"
    model = load(path)
    engine = compile_model(model, precision="fp16")
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend())
    feeds = make_inputs(model, seed=0)[0]
    engine(feeds)
    engine(feeds)
    (known,) = device.replays._known.values()
    assert known.prepared is not None
    layout = known.prepared.layout
    assert layout.nbytes <= NEAR * layout.peak_bytes
