"""How wrong an output of the six networks is, and how wrong it may be."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from probe.engine.build import compile_model
from probe.model import load
from tests.bench.network_exports import Arrays, Net, export, file_of, golden

MARGIN, FP32 = 1.5, 1e-3
OF_PEERS = 4.0  # times what is allowed: they round elsewhere, and some sum in FP16


def range_rel(actual: Arrays, expected: Arrays) -> float:
    """The largest of the outputs' largest differences, each over the range of its golden; Inf where one is not finite."""
    found = []
    for name, wanted in expected.items():
        off = np.abs(actual[name].astype(np.float64) - wanted).max()
        found.append(float(off / (float(wanted.max()) - float(wanted.min()))) if np.isfinite(off) else math.inf)
    return max(found)


def allowed_error(net: Net, precision: str, folder: Path) -> float:
    """What ``cuda_networks`` says; what the CPU device computes is kept beside the model."""
    if precision == "fp32":
        return FP32
    path = file_of(net, folder).with_suffix(f".{precision}.npz")
    if not path.exists():
        engine = compile_model(load(export(net, folder)), precision=precision)
        part = path.with_suffix(".part.npz")
        np.savez(part, allow_pickle=False, **engine.run(net.inputs()))
        part.replace(path)
    with np.load(path) as stored:
        return MARGIN * range_rel(dict(stored), golden(net, folder))
