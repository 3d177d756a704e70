"""Every node test of the ONNX standard through the engine.

``python tests/engine/test_backend_nodes.py [PART OF A NAME]`` prints the table: what ONNX Runtime and the engine make of each case.
PROBE_THOROUGH=1: fused layers one by one, and bfloat16, for every case and not for one in four, mixtures at fp16 for every case and not for
one in three.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.errors import InputError
from probe.model import Model, load
from probe.model.elements import element_name
from probe.ort.session import CPU, session_options
from probe.ort.values import _sequence, from_ort, to_value
from tests.thorough import chosen

pytestmark = pytest.mark.slow

Arrays = dict[str, np.ndarray]
_SEQUENCES = "inputs are tensors and sequences of tensors: what an optional sequence holds cannot be fed"
_OPSET_1 = "the model declares opset 1; probe reads opset 7 and later"
# Cases that ONNX Runtime passes and the engine does not.
EXCEPTIONS = {
    "test_identity_opt": _SEQUENCES,
    "test_loop16_seq_none": _SEQUENCES,
    "test_not_2d": _OPSET_1,
    "test_not_3d": _OPSET_1,
    "test_not_4d": _OPSET_1,
}
RANDOM = "test_bernoulli"  # other numbers every time
_HALVES = ("float16", "bfloat16")


@dataclass
class Row:
    """What became of a case: "" where the outputs are those expected, else why not."""

    ort: str
    engine: dict[str, str] = field(default_factory=dict)  # way of running -> ...
    low: dict[str, str] = field(default_factory=dict)  # precision -> what went wrong, results not judged

    @property
    def passes(self) -> bool:
        return not any(self.engine.values())


def normalised(value: Any) -> Any:
    """Test data as arrays, lists of arrays and None."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [normalised(one) for one in value]
    return value if value is None else np.asarray(value)


def named(ports: Any, values: Any) -> Arrays:
    """By name, as probe names them: elements of a sequence NAME[0], NAME[1]...; an empty optional has none."""
    found: Arrays = {}
    for port, value in zip(ports, map(normalised, values), strict=False):
        if isinstance(value, list):
            found.update({f"{port.name}[{i}]": one for i, one in enumerate(value)})
        elif value is not None:
            found[port.name] = value
    return found


def run_ort(case: Any, inputs: Any) -> Arrays:
    """The case in plain ONNX Runtime: CPU provider, optimisation off."""
    import onnxruntime

    session = onnxruntime.InferenceSession(case.model.SerializeToString(), session_options(threads=1), providers=[CPU])
    feeds = {}
    for port, value in zip(case.model.graph.input, map(normalised, inputs), strict=False):
        if isinstance(value, list):
            kind = port.type.optional_type.elem_type if port.type.HasField("optional_type") else port.type
            element = element_name(kind.sequence_type.elem_type.tensor_type.elem_type)
            feeds[port.name] = _sequence(element or "float32", value)
        elif value is not None:
            feeds[port.name] = to_value(value)
    names = [port.name for port in case.model.graph.output]
    return {
        f"{name}{suffix}": array
        for name, value in zip(names, session.run_with_ort_values(names, feeds), strict=True)
        for suffix, array, _ in from_ort(value)
        if array is not None and (suffix or value.is_tensor())
    }


def judged(case: Any, actual: Arrays, expected: Arrays, *, upcast: bool) -> str:
    """As onnx.backend.test judges. An engine computes an FP16 model in FP32 (``upcast``): its outputs are rounded first."""
    if actual.keys() != expected.keys():
        return f"outputs {sorted(actual)} instead of {sorted(expected)}"
    for name, wanted in expected.items():
        got = actual[name]
        if got.shape != wanted.shape:
            return f"{name}: shape {got.shape} instead of {wanted.shape}"
        if wanted.dtype.kind in "OSU":
            if not np.array_equal(got.astype(str), wanted.astype(str)):
                return f"{name}: other text"
            continue
        if upcast and wanted.dtype.name in _HALVES:
            got = got.astype(wanted.dtype)
        if got.dtype != wanted.dtype:
            return f"{name}: {got.dtype} instead of {wanted.dtype}"
        rtol = max(case.rtol, 2.0**-6) if wanted.dtype.name == "bfloat16" else case.rtol
        if wanted.dtype.isbuiltin != 1:  # ml_dtypes: numpy cannot promote them
            got, wanted = got.astype(np.float32), wanted.astype(np.float32)
        if not np.allclose(got, wanted, rtol=rtol, atol=case.atol, equal_nan=True):
            return f"{name}: other numbers"
    return ""


def attempted(doing: Callable[[], str]) -> str:
    try:
        return doing()
    except InputError as error:
        return f"refused: {error.what}"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def returned(running: Any) -> Arrays:
    """What a generator returns."""
    while True:
        try:
            next(running)
        except StopIteration as done:
            return done.value


def examined(case: Any, folder: Path) -> Row:
    """A case in every way of running it."""
    path = folder / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    graph = case.model.graph
    sets = [(inputs, named(graph.input, inputs), named(graph.output, outputs)) for inputs, outputs in case.data_sets]

    def all_sets(run: Callable[[Any, Arrays], Arrays], *, upcast: bool) -> str:
        for inputs, feeds, expected in sets:
            if why := judged(case, run(inputs, feeds), expected, upcast=upcast):
                return why
        return ""

    row = Row(attempted(lambda: all_sets(lambda inputs, _: run_ort(case, inputs), upcast=False)))
    model = cache(lambda: load(path))
    compiled = cache(lambda level: compile_model(model(), precision="fp32", passes=level, fusion=level, threads=1))
    ways: dict[str, Callable[[str, Arrays], Arrays]] = {
        "run": lambda level, feeds: compiled(level).run(feeds),
        "stream": lambda level, feeds: returned(compiled(level).stream(feeds)),
    }
    for level, (way, run) in product(("none", "safe"), ways.items()):
        if (way, level) == ("stream", "safe") and not chosen(case.name, 4):
            continue  # what fusion adds to the way of running is little
        doing = partial(lambda level, run: all_sets(lambda _, feeds: run(level, feeds), upcast=True), level, run)
        row.engine[f"{way}, {level}"] = attempted(doing)
    for precision in ("fp16", "bf16"):
        if precision == "bf16" and not chosen(case.name, 4):
            row.low[precision] = ""
            continue  # the same forms as fp16, with other Casts
        mixed = precision == "fp16" and chosen(case.name, 3)
        row.low[precision] = attempted(
            partial(lambda p, m: both_executors(model(), sets[0][1], p, mixed=m), precision, mixed)
        )
    return row


def both_executors(model: Model, feeds: Arrays, precision: str, *, mixed: bool) -> str:
    """Everything low; then, at fp16, every other tensor kept, which takes the forms with switches. "" when the executors agree.

    Mixtures of whole networks are what tests/engine/test_executors.py is about; here they meet every operator's types.
    """
    engine = compile_model(model, precision=precision, passes="none", fusion="none", threads=1)
    assignments = [Assignment(Choice(precision))]
    if mixed:
        tensors = {
            v.name or "": None for layer in engine.layers for v in (*layer.reads, *layer.weights, *layer.tensors)
        }
        assignments.append(assignments[0].keeping(tensors=list(tensors)[::2]))
    for assignment in assignments:
        gated, layered = engine.run(feeds, assignment), returned(engine.stream(feeds, assignment))
        if differing := different(gated, layered):
            return f"executors differ in {differing}, kept {sorted(assignment.kept)}"
    return ""


def different(gated: Mapping[str, np.ndarray], layered: Mapping[str, np.ndarray]) -> list[str]:
    if gated.keys() != layered.keys():
        return sorted(gated.keys() ^ layered.keys())
    return [
        name
        for name, array in gated.items()
        if (
            array.tolist() != layered[name].tolist()
            if array.dtype == object
            else array.tobytes() != layered[name].tobytes()
        )
    ]


def cases() -> list[Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():  # they divide by zero on purpose
        warnings.simplefilter("ignore")
        found = [case for case in load_model_tests(kind="node") if case.model is not None]
    if not found:
        pytest.skip("this version of onnx keeps the models of its tests in files")
    return found


@cache
def table(folder: Path, part: str = "") -> dict[str, Row]:
    """Every case whose name holds ``part``, by name."""
    return {case.name: examined(case, folder) for case in cases() if part in case.name}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return table(tmp_path_factory.mktemp("nodes"))


def test_the_engine_passes_what_onnx_runtime_passes(rows):
    passed = [name for name, row in rows.items() if not row.ort]
    assert len(passed) > 1200, "onnx brings far fewer node tests than it did"
    failing = {name: rows[name].engine for name in passed if not rows[name].passes}
    assert {name: why for name, why in failing.items() if name not in EXCEPTIONS} == {}
    assert len(failing) <= 0.01 * len(passed)


def test_the_exceptions_are_needed(rows):
    """Of those this version of onnx has and ONNX Runtime passes."""
    assert [name for name in EXCEPTIONS if name in rows and not rows[name].ort and rows[name].passes] == []


def test_what_onnx_runtime_does_not_pass_is_refused_in_words_or_run(rows):
    """On the reference implementation, or wrong as ONNX Runtime is; never an exception of ours, never two results."""
    low = {name: row.low for name, row in rows.items() if row.ort and not name.startswith(RANDOM)}
    failing = {
        name: why for name, ways in low.items() for why in ways.values() if why and not why.startswith("refused: ")
    }
    assert failing == {}
    assert sum(bool(row.ort) and row.passes for row in rows.values()) > 20, (
        "nothing runs on the reference implementation"
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_low_precision_runs_and_both_executors_agree(rows, precision):
    failing = {name: row.low[precision] for name, row in rows.items() if not row.ort and row.low[precision]}
    assert {name: why for name, why in failing.items() if name not in EXCEPTIONS} == {}


def main(part: str) -> None:
    """Print the table."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows = table(Path(folder), part)
    passed = [name for name, row in rows.items() if not row.ort]
    both = [name for name in passed if rows[name].passes]
    print(f"{len(rows)} cases; ONNX Runtime passes {len(passed)}, the engine {len(both)} of them")
    print(f"and {sum(bool(row.ort) and row.passes for row in rows.values())} that ONNX Runtime does not pass")
    for name in passed:
        if name not in both:
            print(f"  {name}: {EXCEPTIONS.get(name, '')} {rows[name].engine}")
    reasons = Counter(" ".join(next(filter(None, r.engine.values()), "").split()[:12]) for r in rows.values() if r.ort)
    for why, count in reasons.most_common():
        print(f"  {count:4} not passed by ONNX Runtime; engine: {why or 'passes'}")
    for precision in ("fp16", "bf16"):
        print(
            f"{precision}: {sum(not row.low[precision] for row in rows.values())} cases run, both executors bit-equal"
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
