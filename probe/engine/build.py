"""The compiler on one screen: network -> passes -> layers -> rounding sites -> device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from probe.engine.assignment import Assignment, Choice
from probe.engine.engine import Engine, Settings
from probe.engine.fusion import group
from probe.engine.layers import all_layers, form_layers, tensor_names
from probe.engine.network import check, read_network
from probe.engine.passes import run_passes
from probe.engine.rounding import Interior, Rounding
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.device.protocol import Device
    from probe.engine.layers import Layer
    from probe.engine.network import Network
    from probe.model.model import Model

PassLevel = Literal["none", "safe", "all"]
FusionLevel = Literal["none", "safe", "full"]
DEVICES = ("cpu", "cuda")
LEVELS = {"passes": ("none", "safe", "all"), "fusion": ("none", "safe", "full"), "interior": ("storage", "fp32")}


def compile_model(
    model: Model,
    *,
    precision: str = "fp16",
    device: str = "cpu",
    passes: PassLevel = "safe",
    fusion: FusionLevel = "safe",
    interior: Interior = "storage",
    passes_limit: int | None = None,
    threads: int = 0,
    libraries: Sequence[Path] = (),
    keep: Iterable[str] = (),
) -> Engine:
    """Compile a loaded model.

    Args:
        precision: that layers start in: fp32, tf32, fp16 or bf16.
        device: cpu, or cuda: the first GPU.
        passes: clean-up: none, safe (what every runtime does), all.
        fusion: none, safe, full.
        interior: ``storage`` rounds every ONNX tensor inside a fused layer, ``fp32`` only what leaves it.
        passes_limit: stop after this many changes, to find the one that does harm; None: no limit.
        threads: of one operator; 0: as many as there are cores.
        libraries: of custom operators, for ONNX Runtime.
        keep: names of tensors that are never rounded, or of layers or ONNX nodes that stay FP32.

    Raises:
        InputError: an unknown precision, device or level; a kept name that is nowhere; a model that cannot be compiled.
    """
    for option, value in (("passes", passes), ("fusion", fusion), ("interior", interior)):
        if value not in LEVELS[option]:
            raise InputError(f"--{option} {value}: unknown", hint=", ".join(LEVELS[option]))
    if device not in DEVICES:
        raise InputError(f"unknown device {device!r}", hint=f"devices: {', '.join(DEVICES)}")
    choice = Choice(precision)
    if device == "cuda":
        from probe.engine.device.cuda.guard import open_early

        open_early()
    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        from probe.engine.device.cpu.types import complete_types

        network = read_network(model)
        complete_types(network, libraries)
        check(network, "reading the model")
    with _timed(seconds, "passes"):
        report = run_passes(network, passes, passes_limit)
    with _timed(seconds, "fusion"):
        grouping = group(network, fusion)
        layers = form_layers(network, grouping)
    with _timed(seconds, "sites"):
        rounding = Rounding(layers, interior)
        assignment = resolve_keep(Assignment(choice), keep, list(all_layers(layers)), network)
    with _timed(seconds, "device"):
        device_for = device_maker(device, network, layers, precision, threads, libraries)
        made = device_for(rounding)
    settings = Settings(precision, device, passes, fusion, interior)
    return Engine(
        model, network, layers, rounding, made, settings,
        report=report, refusals=grouping.refusals, assignment=assignment, seconds=seconds, device_for=device_for,
    )  # fmt: skip


def require_device(device: str) -> None:
    """Ask for a device before minutes are spent on what comes ahead of compiling.

    Raises:
        InputError: there is no GPU; says why.
    """
    if device == "cuda":
        from probe.engine.device.cuda.guard import first_gpu

        first_gpu()


def device_maker(
    device: str, network: Network, layers: Sequence[Layer], precision: str, threads: int, libraries: Sequence[Path]
) -> Callable[[Rounding], Device]:
    """Makes devices for one network: on the CPU they share its weights, on a GPU the GPU."""
    if device == "cuda":
        from probe.engine.device.cuda.device import CudaDevice
        from probe.engine.device.cuda.guard import first_gpu

        gpu = first_gpu()
        gpu.enter()  # another thread may have opened it
        return lambda rounding: CudaDevice(network, layers, rounding, gpu, threads=threads, libraries=libraries)
    from probe.engine.device.cpu.device import CpuDevice
    from probe.engine.device.cpu.program import Program
    from probe.engine.device.cpu.session import Weights

    weights = Weights(network)
    return lambda rounding: CpuDevice(Program(network, layers, rounding, weights, threads, tuple(libraries)), precision)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - begin


def resolve_keep(
    assignment: Assignment, names: Iterable[str], layers: Sequence[Layer], network: Network | None = None
) -> Assignment:
    """``assignment`` with the named tensors kept, and the layers named so or computing a node named so in FP32.

    Args:
        network: knows what passes made of a tensor: one whose values live on under another name is kept under that.

    Raises:
        InputError: a name that is neither a tensor, a layer nor a node of the network; or a tensor that a pass computed away.
    """
    by_layer = {layer.name: layer for layer in layers}
    by_node = {identity: layer for layer in layers for identity in layer.origin}
    tensors = tensor_names(layers)
    for name in names:
        fate = network.fate(name) if network is not None and name not in tensors else None
        if fate is not None and fate.status == "equivalent" and fate.to in tensors:
            assignment = assignment.keeping(tensors=[fate.to])
        elif name in tensors:
            assignment = assignment.keeping(tensors=[name])
        elif name in by_layer or name in by_node:
            assignment = assignment.keeping(layers=[(by_layer.get(name) or by_node[name]).name])
        elif fate is not None:
            raise InputError(
                f"{name!r} cannot be kept: the pass {fate.by} computed it away",
                where="--keep",
                hint="--passes none leaves it",
            )
        else:
            import difflib

            near = difflib.get_close_matches(name, [*tensors, *by_layer, *by_node], 1, 0.6)
            raise InputError(
                f"nothing to keep is called {name!r}", where="--keep", hint=f"did you mean {near[0]!r}?" if near else ""
            )
    return assignment
