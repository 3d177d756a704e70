"""Which operators the engine knows and how the device runs each; for a model, which of its layers have no kernel."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from probe.results.ops import FallbackReport, OpReport, OpRuns, OpsResult

if TYPE_CHECKING:
    from probe.engine.operators import Operator
    from probe.model import Model

_ORDER: tuple[OpRuns, ...] = ("weight", "kernel", "function", "reference", "none")  # best first


def inspect_ops(model: str | Path | None = None, *, command: str = "") -> OpsResult:
    """The operators of the ONNX standard at the newest opset that onnx and ONNX Runtime both know, or those of a model.

    Args:
        model: path of an ONNX model; its layers are built, so that what is said of them holds for their types and attributes.

    Raises:
        InputError: a model that cannot be loaded or compiled.
    """
    from probe.model import load

    return _of_model(load(model), command) if model is not None else _of_standard(command)


def _of_standard(command: str) -> OpsResult:
    from probe.engine.device.cpu.kernels import how_run, newest_opset
    from probe.engine.operators import operators

    opset = newest_opset()
    ops = tuple(_report(one, how_run(one.op, one.domain, opset)) for one in operators(opset))
    return OpsResult("", "", opset, _device(), ops, environment=_environment(), command=command)


def _of_model(model: Model, command: str) -> OpsResult:
    from probe.engine.build import compile_model
    from probe.engine.device.cpu.kernels import how_run
    from probe.engine.operators import find_operator

    # As the file has it: a pass may compute the operator away, which says nothing of whether there is a kernel.
    engine = compile_model(model, precision="fp32", passes="none", fusion="none")
    fallbacks = tuple(FallbackReport(f.layer, f.op, f.reason, f.by) for f in engine.fallbacks)
    nodes = Counter((node.op, node.domain) for node in model.nodes)
    local = {(function.name, function.domain) for function in model.proto.functions}
    opset = engine.network.opset
    ops = []
    for (op, domain), count in sorted(nodes.items(), key=lambda item: (-item[1], item[0])):
        known = find_operator(op, domain, opset)
        lacking = [one for one in fallbacks if one.op == op]
        runs: OpRuns = "function" if (op, domain) in local else how_run(op, domain, opset) if known.since else "kernel"
        if lacking:
            runs = "none" if any(one.by == "nothing" for one in lacking) else "reference"
        elif _ORDER.index(runs) > _ORDER.index("function"):
            runs = "kernel"  # none for float32, but for the types it has here
        ops.append(_report(known, runs, count, len(lacking)))
    return OpsResult(
        str(model.path), model.sha256, opset, _device(), tuple(ops), fallbacks, _environment(), command
    )  # fmt: skip


def _report(one: Operator, runs: OpRuns, nodes: int = 0, falls_back: int = 0) -> OpReport:
    return OpReport(one.op, one.domain, one.since, one.kind, one.numerics, runs, one.tactics, nodes, falls_back)


def _device() -> str:
    from probe.engine.device.cpu.kernels import runtime_version

    return f"cpu: kernels of ONNX Runtime {runtime_version()}"


def _environment() -> dict[str, str]:
    from importlib.metadata import version

    from probe.compare.diff import environment
    from probe.engine.device.cpu.kernels import runtime_version

    return {**environment(), "onnx": version("onnx"), "onnxruntime": runtime_version()}
