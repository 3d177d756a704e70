"""``find`` side by side with prefix bisection, ddmin, onnxconverter-common and ModelOpt AutoCast, judged by one neutral evaluator.

    python -m venv NAME1 && NAME1/bin/python -m pip install onnxconverter-common==1.16.0 onnxruntime onnx
    python -m venv NAME2 && NAME2/bin/python -m pip install "nvidia-modelopt[onnx]==0.47.0"
    python tests/bench/find_peers.py --onnxconverter-python NAME1/bin/python --modelopt-python NAME2/bin/python

or with the interpreters in $PROBE_ONNXCONVERTER_PYTHON and $PROBE_MODELOPT_PYTHON. The packages are the real ones, each in its environment
(tests/bench/peer_mixed.py runs there); what they raise is their result. Prefix bisection is the algorithm of Polygraphy's ``debug precision``
over layers in model order, without its two wrong answers (it never tries to keep nothing, and gives up on a culprit in the last place); the tool
itself needs TensorRT's removed layer precisions. It and ddmin (over the same tensors as ``find``) ask our engine, and what they keep is exported
by probe.

Every output model is judged by tests/bench/neutral.py. Columns: passes; nodes that compute in FP32 of those that compute on floats; their
share of the FLOPs; Casts in the file; models or assignments evaluated (``find``: search + probes + proof); seconds, start of the tool included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import onnx

import probe
from probe.culprits.costs import Costs
from probe.culprits.space import search_space
from probe.culprits.suspicion import Suspicion
from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.model.load import load
from probe.model.mixed import convert_mixed
from probe.search.units import Unit
from tests.bench import machine, neutral
from tests.bench.mixed_cost import MixedCost, cost_of
from tests.culprits.planted.build import build
from tests.search.peers import Counted, ddmin, prefix_bisection

Array = np.ndarray[Any, Any]
PACKAGES = {
    "onnxconverter": "onnxconverter-common auto_mixed_precision",
    "modelopt": "ModelOpt AutoCast",
}
PLANTED = [
    ("overflow", 60, 1, 0), ("mixed", 60, 3, 1), ("decoys", 60, 3, 2), ("compensating", 60, 1, 0), ("accumulated", 60, 3, 1),
    ("mixed", 200, 3, 2), ("mixed", 200, 12, 0), ("vanishing", 200, 12, 1), ("coupled", 200, 12, 2), ("decoys", 200, 3, 0),
    ("compensating", 200, 3, 1), ("accumulated", 200, 12, 2),
]  # fmt: skip
HEAD = "| way | passes | error | nodes in FP32 | their FLOPs | Casts | evaluations | s | |"


@dataclass(frozen=True, slots=True)
class Case:
    """A model that fails in FP16."""

    title: str
    model: bytes
    inputs: dict[str, Array]
    golden: dict[str, Array]
    limit: float

    @property
    def accept(self) -> tuple[str, ...]:
        return (f"range_rel<={self.limit:g}",)


@dataclass(frozen=True, slots=True)
class Made:
    """What a way has made: a file, or the reason why not."""

    evaluations: int | None
    seconds: float
    failure: str = ""
    note: str = ""


def planted_cases(table: Sequence[tuple[str, int, int, int]]) -> Iterator[Case]:
    for kind, nodes, faults, seed in table:
        one = build(kind, nodes, faults, seed)
        limit = float(one.accept[0].partition("<=")[2])
        title = f"{kind}, {one.nodes} nodes ({one.base}), minimum {len(one.minimum)}"
        yield Case(title, one.model.SerializeToString(), one.inputs, one.golden, limit)


def fragile_cases(folder: Path) -> Iterator[Case]:
    """The models of a KNOWN_FRAGILE.json, on the data that shows their fault, golden by ONNX Runtime in FP32 as find has it."""
    for name, facts in json.loads((folder / "KNOWN_FRAGILE.json").read_text()).items():
        tag = facts.get("tag") or facts.get("on")
        with np.load(folder / "data" / f"{name}__{tag}.npz") as data:
            inputs = {key[3:]: data[key] for key in data.files if key.startswith("in/")}
        content = (folder / "models" / f"{name}.onnx").read_bytes()
        golden = _golden(content, inputs)
        title = f"{name} ({tag}), {len(onnx.load_from_string(content).graph.node)} nodes"
        yield Case(title, content, inputs, golden, float(facts["tolerance_rel_max"]))


def _golden(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, settings)
    names = [one.name for one in session.get_outputs()]
    found = cast(list[Array], session.run(names, dict(inputs)))
    return dict(zip(names, found, strict=True))


# --- the ways --------------------------------------------------------------------------------------------------------


def ours(case: Case, model: Path, out: Path) -> Made:
    begin = time.perf_counter()
    found = probe.find(model, out, inputs=case.inputs, accept=case.accept, lighter=False, overwrite=True)
    asked = sum(found.evaluations[kind] for kind in ("search", "probes", "proof"))
    kept = len({one.unit for one in found.keep})
    kinds = ", ".join(f"{kind} {found.evaluations[kind]}" for kind in ("search", "probes", "proof"))
    note = f"{found.status}, keeps {kept}; {kinds}"
    return Made(asked, time.perf_counter() - begin, "" if found else found.reason, note)


class Asked:
    """Our engine with names kept, judged plainly."""

    def __init__(self, case: Case, model: Path) -> None:
        self._case = case
        self.engine: Engine = compile_model(load(model), passes="none", fusion="none")

    def tensors(self, kept: frozenset[str]) -> bool:
        return self._passes(tensors=kept)

    def layers(self, kept: frozenset[str]) -> bool:
        return self._passes(layers=kept)

    def units(self) -> tuple[Unit, ...]:
        return search_space(self.engine, "tensor", Suspicion(), Costs(self.engine, {}, "fp16")).units

    def _passes(self, **kept: frozenset[str]) -> bool:
        found = self.engine.run(self._case.inputs, self.engine.assignment.keeping(**kept))
        return neutral.judge(found, self._case.golden, self._case.accept).passed


def bisected(case: Case, model: Path, out: Path) -> Made:
    begin = time.perf_counter()
    asked = Asked(case, model)
    layers = [layer for layer in asked.engine.layers if not layer.moves]
    passes = Counted(asked.layers)
    kept = frozenset(prefix_bisection(passes, [layer.name for layer in layers]))
    nodes = [node for layer in layers if layer.name in kept for node in layer.origin]
    convert_mixed(load(model), "fp16", keep_nodes=nodes).save(out)
    note = f"the first {len(kept)} of {len(layers)} layers"
    return Made(passes.evaluations, time.perf_counter() - begin, note=note)


def deltas(case: Case, model: Path, out: Path) -> Made:
    begin = time.perf_counter()
    asked = Asked(case, model)
    members = {unit.id: unit.members for unit in asked.units()}
    passes = Counted(lambda kept: asked.tensors(frozenset().union(*(members[name] for name in kept))))
    kept = ddmin(passes, [*members])
    tensors = sorted(frozenset().union(*(members[name] for name in kept)))
    convert_mixed(load(model), "fp16", keep_tensors=tensors).save(out)
    return Made(passes.evaluations, time.perf_counter() - begin, note=f"keeps {len(kept)} units")


def package(name: str, python: str) -> Callable[[Case, Path, Path], Made]:
    """A peer in its own environment."""

    def run(case: Case, model: Path, out: Path) -> Made:
        data = model.with_suffix(".npz")
        np.savez(data, allow_pickle=False, **{f"in/{key}": x for key, x in case.inputs.items()})
        script = Path(__file__).with_name("peer_mixed.py")
        command = [python, str(script), name, str(model), str(data), str(out), "--limit", f"{case.limit:g}"]
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begin
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        try:
            said = json.loads(lines[-1]) if lines else {}
        except json.JSONDecodeError:
            said = {}
        if done.returncode or "error" in said:
            tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return Made(None, seconds, said.get("error", f"exit {done.returncode}: {tail[:300]}"))
        return Made(said["evaluations"], seconds, note=f"{said['seconds']:.1f} s of it converting")

    return run


# --- the table -------------------------------------------------------------------------------------------------------


def measure(case: Case, ways: Mapping[str, Callable[[Case, Path, Path], Made] | str]) -> list[str]:
    """Rows of one model."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model.onnx"
        model.write_bytes(case.model)
        for title, way in ways.items():
            if isinstance(way, str):
                rows.append(f"| {title} | not run | | | | | | | {way} |")
                continue
            out = Path(name) / "out.onnx"
            out.unlink(missing_ok=True)
            try:
                made = way(case, model, out)
            except Exception as error:  # a way that breaks has that for its result
                made = Made(None, 0.0, f"{type(error).__name__}: {error}")
            rows.append(_row(title, case, made, out))
    return rows


def _row(title: str, case: Case, made: Made, out: Path) -> str:
    asked = "-" if made.evaluations is None else str(made.evaluations)
    if made.failure or not out.exists():
        said = (made.failure or "no model").replace("|", "\\|").replace("\n", " ")
        return f"| {title} | no model | | | | | {asked} | {made.seconds:.1f} | {said} |"
    mixed = onnx.load(out)
    try:
        verdict = neutral.evaluate(mixed, case.inputs, case.golden, case.accept)
        cost: MixedCost = cost_of(mixed, case.inputs)
    except Exception as error:  # a model that cannot be run is the way's result, too
        return f"| {title} | does not run | | | | | {asked} | {made.seconds:.1f} | {type(error).__name__}: {str(error)[:200]} |"
    share = f"{100 * cost.flops_fp32 / max(1, cost.flops):.1f} %"
    return (
        f"| {title} | {'yes' if verdict.passed else '**no**'} | {verdict.error:.2g} | {cost.nodes_fp32} of {cost.nodes} | {share} "
        f"| {cost.casts} | {asked} | {made.seconds:.1f} | {made.note} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PACKAGES:
        variable = f"PROBE_{name.upper()}_PYTHON"
        parser.add_argument(f"--{name}-python", default=os.environ.get(variable), help=f"interpreter (or ${variable})")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="folders with a KNOWN_FRAGILE.json")
    parser.add_argument("--only", help="models whose title contains this")
    parser.add_argument("--no-planted", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the page here")
    options = parser.parse_args()
    ways: dict[str, Callable[[Case, Path, Path], Made] | str] = {
        "probe find": ours, "prefix bisection": bisected, "ddmin": deltas,
    }  # fmt: skip
    lines = []
    for name, title in PACKAGES.items():
        python = getattr(options, f"{name}_python")
        ways[title] = package(name, python) if python else f"--{name}-python is not given"
        if python:
            wanted = ("onnxconverter-common", "nvidia-modelopt", "onnx", "onnxruntime", "onnxruntime-gpu")
            lines.append(f"{title}: {machine.versions(python, wanted)}")
    lines.append("")
    print(*lines, sep="\n", flush=True)
    cases = [] if options.no_planted else [planted_cases(PLANTED)]
    for source in (*cases, *(fragile_cases(folder) for folder in options.models)):
        for case in source:
            if options.only and options.only not in case.title:
                continue
            page = [f"### {case.title}", "", f"range_rel<={case.limit:g}", "", HEAD, "|---" * 9 + "|"]
            page += [*measure(case, ways), ""]
            print(*page, sep="\n", flush=True)
            lines += page
    if options.out:
        options.out.write_text("\n".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
