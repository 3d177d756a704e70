"""Where choices and times come from: the model, the device, the software that computes on it, the sources of the tactics."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.results.tactics import Fingerprint

if TYPE_CHECKING:
    from probe.engine.engine import Engine

_ENGINE = Path(__file__).resolve().parents[1]
_KERNELS = (_ENGINE.parent / "_kernels", _ENGINE.parents[1] / "kernels")  # of a wheel, of a checkout
_SUFFIXES = (".py", ".cu", ".cuh")


def fingerprint_of(engine: Engine) -> Fingerprint:
    """Of a compiled network on its device.

    Raises:
        InputError: the model's file is gone.
    """
    device = engine.settings.device
    name, processor, driver = _cuda(engine.device) if device == "cuda" else _cpu()
    return Fingerprint(
        model_sha256=engine.model.sha256, device=name, processor=processor, driver=driver, sources=_sources(device)
    )


def _cpu() -> tuple[str, str, str]:
    from probe.engine.device.cpu.kernels import runtime_version

    return f"cpu {platform.machine()}", _processor(), f"onnxruntime {runtime_version()}"


def _cuda(device: Any) -> tuple[str, str, str]:
    backend = device.backend
    driver = str(getattr(backend, "driver_version", ""))
    if getattr(backend, "compiler", None) is not None:
        from probe.engine.device.cuda.compiling.compile import nvrtc_version

        driver = ", ".join([*filter(None, [driver]), f"NVRTC {'.'.join(map(str, nvrtc_version()))}"])
    return f"cuda {backend.arch}", backend.name, driver


@cache
def _processor() -> str:
    """The CPU's model name where the system tells it; "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


@cache
def _sources(device: str) -> str:
    """Hash of the files that say how tactics compute. It makes measured times stale, never a name."""
    folders = [_ENGINE / "tactics", _ENGINE / "device" / "cpu"]
    if device == "cuda":
        folders += [_ENGINE / "device" / "cuda", next((one for one in _KERNELS if one.is_dir()), _KERNELS[0])]
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(one for one in folder.rglob("*") if one.suffix in _SUFFIXES):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
