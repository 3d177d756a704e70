"""Which checks a seed has on a device, and one of them made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import onnx

from probe.engine.device.cuda.device import CudaDevice
from tests.engine.cuda.host_backend import HostBackend
from tests.engine.random_graphs import judge, runtime
from tests.engine.random_graphs.graph import Array
from tests.engine.random_graphs.judge import Failed, Mode


class Hopper(HostBackend):
    """The host, taken for a GPU of sm_90a."""

    arch, multiprocessors = "sm_90a", 1  # fewer than any cluster has blocks


@dataclass(frozen=True)
class Check:
    """One thing that is done with a model: beside ONNX Runtime after some passes, or on a device in some mode."""

    passes: str = ""
    mode: Mode | None = None

    def __str__(self) -> str:
        return str(self.mode) if self.mode else f"passes {self.passes} beside ONNX Runtime"


def backend_of(device: str, folder: Path) -> Any:
    """What kernels run on; None on the CPU, a pair on the host: an old GPU and one of sm_90a."""
    if device == "host":
        return tuple(
            _host(kind, folder / name) for kind, name in ((HostBackend, "kernels"), (Hopper, "kernels-hopper"))
        )
    if device == "gpu":
        from tests.engine.cuda.guarded import GuardedDriver

        return GuardedDriver()
    return None


def _host(kind: type[HostBackend], folder: Path) -> HostBackend:
    folder.mkdir(parents=True, exist_ok=True)
    return kind(folder)


def checks_of(seed: int, device: str, many: int) -> list[Check]:
    """``many`` of the ways to compile a model, in another choice for every seed."""
    if device == "cpu":
        return [Check(passes=one) for one in ("none", "safe", "all")]
    random = Random(seed)
    found = []
    for precision in random.sample(("fp32", "fp16", "fp16", "bf16", "tf32", "mixed", "mixed", "mixed"), many):
        fusion, passes = (
            random.choice(("safe", "safe", "safe", "full", "none")),
            random.choice(("safe", "safe", "none", "all")),
        )
        interior = random.choice(("storage", "storage", "storage", "fp32"))
        hopper = (
            device == "host" and precision not in {"fp32", "mixed"} and random.random() < 0.5
        )  # FP32's clusters need a GPU
        found.append(Check(mode=Mode(precision, fusion, passes, interior, hopper, seed)))
    return found


def fault(check: Check, model: onnx.ModelProto, feeds: Mapping[str, Array], backend: Any, path: Path) -> Failed | None:
    """What is wrong with a model, written to ``path``; None when nothing is."""
    onnx.save(model, path)
    try:
        if check.mode is None:
            runtime.check(path, feeds, check.passes)
            return None
        on = backend[check.mode.hopper] if isinstance(backend, tuple) else backend
        judge.check(
            path, feeds, check.mode, lambda engine: CudaDevice(engine.network, engine.top_layers, engine.rounding, on)
        )
    except Failed as failed:
        return failed
    except Exception as error:  # of the reference: a smaller model may be none that ONNX Runtime takes
        return Failed(f"the reference broke: {type(error).__name__}", "", str(error)[:300])
    return None
