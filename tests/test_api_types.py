"""Arguments of the wrong type: every parameter of every public function refuses them by name. Functions and parameters are found, not listed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

import probe
from probe.api import blaming, building, networks, overlays, precision, recordings, reports, timing
from probe.engine.assignment import Assignment, Choice
from tests.culprits.networks import WIDTH, norms

MODULES = (probe.tactics, building, overlays, reports, timing, networks, recordings, precision, blaming)
NOT_FOR_USERS = {"form_of", "write", "joined", "same_model"}  # shared by commands
INSIDE = {"probe.api.arguments", "probe.api.saved", "probe.api.signatures"}


def _functions() -> dict[str, Callable[..., Any]]:
    public = [getattr(probe, name) for name in probe.__all__]
    found = [one for one in public if inspect.isfunction(one)]
    for module in MODULES:
        found += [one for name, one in vars(module).items() if inspect.isfunction(one) and not name.startswith("_")]
    return {
        f"{one.__module__}.{one.__name__}": one
        for one in found
        if one.__name__ not in NOT_FOR_USERS and one.__module__.startswith("probe.api") and one.__module__ not in INSIDE
    }


FUNCTIONS = _functions()
PARAMETERS = [(name, key) for name, one in FUNCTIONS.items() for key in inspect.signature(one).parameters]
ANYTHING = {("probe.api.reports.report", "results"), ("probe.api.overlays.overlay", "result"), ("probe.api.overlays.annotate", "result")}  # fmt: skip
STRANGE = [
    None, 3, -1, 2.5, float("nan"), True, "text", "[", b"bytes", [], [3], [None], ["text"], (1, 2, 3), {}, {1: 2}, {"x": None}, {"x": [1.5]}, {"x": "text"},
    {"": object()}, {3}, object(), object, lambda: None, np.zeros(3), np.float32(1), Path("gone"), iter([3]),
]  # fmt: skip


def refused(function: Callable[..., Any], parameter: str, value: Any) -> probe.InputError:
    """The error for one argument; others are the usual ones, or name files that are not there."""
    required = {
        key: "gone.onnx" if key != "builds" else 2
        for key, one in inspect.signature(function).parameters.items()
        if one.default is inspect.Parameter.empty
    }
    with pytest.raises(probe.InputError) as caught:
        function(**(required | {parameter: value}))
    return caught.value


def test_the_public_functions_are_among_them() -> None:
    public = {name for name in probe.__all__ if inspect.isfunction(getattr(probe, name))}
    assert public | set(probe.tactics.__all__) | {"bench", "build", "report"} <= {
        one.__name__ for one in FUNCTIONS.values()
    }


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_what_is_of_no_type_at_all_is_refused_by_name(name: str, parameter: str) -> None:
    if (name, parameter) in ANYTHING:
        pytest.skip("takes objects of several classes")
    error = refused(FUNCTIONS[name], parameter, object())
    assert error.what.startswith(f"{FUNCTIONS[name].__name__}() cannot use {parameter}: <object object at")
    assert error.where.startswith(f"{parameter} takes ") and error.hint


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_nothing_else_than_an_input_error_comes_of_what_is_strange(
    name: str, parameter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is taken for what it says it is ends at the model or file, which is not there."""
    monkeypatch.chdir(tmp_path)
    for value in STRANGE:
        refused(FUNCTIONS[name], parameter, value)
    assert not list(tmp_path.iterdir())


# --- values of the right type

NONE: Any = None
TEXT: Any = "fp16"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return norms(tmp_path_factory.mktemp("types") / "m.onnx", (1.0,))


WRONG_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"inputs": {"x": [[1, 2], [3]]}}, "no array can be made of 'x'"),
    ({"inputs": {3: np.zeros((1, WIDTH), np.float32)}}, "cannot use inputs: the name: 3"),
    ({"val_range": {"x": (5, 1)}}, "no values lie from 5 to 1"),
    ({"val_range": {"x": (0, math.nan)}}, "no values lie from 0 to nan"),
    ({"val_range": {"": (-1.7e308, 1.7e308)}}, "no values lie from"),
    ({"val_range": {"x": (1, 2, 3)}}, r"cannot use val_range\['x'\]: \(1, 2, 3\)"),
    ({"input_shapes": {"x": [1.5]}}, r"cannot use input_shapes\['x'\]\[0\]: 1.5, of type float"),
    ({"threads": 2**70}, f"{2**70} threads"),
    ({"threads": -1}, "cannot use threads: -1"),
]
WRONG_IN_RUN: list[tuple[dict[str, Any], str]] = [
    ({"layers": "["}, r"'\[' is not a regular expression"),
    ({"keep": ["("]}, r"'\(' is not a regular expression"),
    ({"worst": -1}, "cannot use worst: -1"),
    ({"accept": [probe.Criterion("nope", "<=", 1.0)]}, "unknown metric 'nope'"),
    ({"accept": [probe.Criterion("max_abs", cast("Any", "~"), 1.0)]}, "cannot read the acceptance Criterion"),
    ({"accept": [probe.Criterion("max_abs", "<=", cast("Any", "x"))]}, "cannot read the acceptance Criterion"),
    ({"golden": {"y": [[1], [1, 2]]}}, "no array can be made of 'y'"),
]


@pytest.mark.parametrize(("given", "said"), WRONG_VALUES)
@pytest.mark.parametrize("function", [probe.run, probe.check, probe.find, probe.convert])
def test_values_that_mean_nothing(
    function: Callable[..., Any], given: Any, said: str, model: Path, tmp_path: Path
) -> None:
    out = {"out": tmp_path / "out.onnx"} if function is probe.convert else {}
    with pytest.raises(probe.InputError, match=said):
        function(model, **out, **given)


@pytest.mark.parametrize(("given", "said"), WRONG_IN_RUN)
def test_values_of_a_run_that_mean_nothing(given: Any, said: str, model: Path) -> None:
    with pytest.raises(probe.InputError, match=said):
        probe.run(model, **given)


@pytest.mark.parametrize("call", [
    lambda engine, x: engine({3: x["x"]}), lambda engine, x: engine.run(x, "fp16"), lambda engine, x: engine.run(x, {}),
    lambda engine, x: engine.plans(3), lambda engine, x: engine.trace(x, 3), lambda engine, x: engine.context(3),
    lambda engine, x: engine.layer(3), lambda engine, x: engine.candidates(None), lambda engine, x: engine.evaluate(None, x, Choice("fp16")),
    lambda engine, x: engine.evaluate(engine.layers[0], x, "fp16"), lambda engine, x: engine.save(None), lambda engine, x: engine.with_interior("none"),
    lambda engine, x: engine.assignment.keeping(tensors=3), lambda engine, x: engine.assignment.keeping(layers=[None]),
    lambda engine, x: engine.assignment.with_tactics(["exact"]), lambda engine, x: Choice("fp16", NONE), lambda engine, x: Assignment(TEXT),
    lambda engine, x: Assignment(Choice("fp16"), {"a": TEXT}), lambda engine, x: Assignment(Choice("fp16"), NONE),
])  # fmt: skip
def test_an_engine_refuses_what_is_none(call: Callable[[Any, Any], Any], model: Path) -> None:
    engine = probe.compile(model)
    with pytest.raises(probe.InputError):
        call(engine, {"x": np.zeros((1, WIDTH), np.float32)})


def test_one_name_is_no_set_of_letters(model: Path) -> None:
    engine = probe.compile(model)
    assert engine.assignment.keeping(tensors="norm0.square").kept == {"norm0.square"}
    assert Assignment(Choice("fp16"), kept=cast("Any", ["a", "b"])).kept == frozenset("ab")


def test_numbers_of_numpy_paths_and_iterators_are_taken(model: Path) -> None:
    x = np.ones((1, WIDTH), np.float32)
    kept = (name for name in ("norm0",))
    given: dict[str, Any] = {
        "seed": np.int64(1),
        "worst": np.uint8(2),
        "observe": np.True_,
        "memory_limit": np.int64(2**20),
    }
    result = probe.run(model, inputs={"x": x}, keep=kept, accept="max_abs<=1", **given)
    assert result.verdict == "passed" and any(layer.precision == "fp32" for layer in result.layers)
    ranged: dict[str, Any] = {"val_range": {"x": [0, np.float32(1)]}, "input_shapes": {"x": np.array([2, WIDTH])}}
    assert probe.check(str(model), **ranged)


def test_names_no_file_can_have(model: Path, tmp_path: Path) -> None:
    with pytest.raises(probe.InputError, match="File name too long"):
        probe.convert(model, tmp_path / f"{'n' * 300}.onnx")
    with pytest.raises(probe.InputError, match="no path holds a NUL character"):
        probe.convert(model, "a\0.onnx")


@pytest.mark.parametrize("function", [probe.run, probe.check, probe.find, probe.compile, timing.bench])
def test_a_model_without_outputs_is_not_compiled(function: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    loaded = onnx.load(model)
    del loaded.graph.output[:]
    onnx.save(loaded, tmp_path / "none.onnx")
    with pytest.raises(probe.InputError, match="the model has no outputs"):
        function(tmp_path / "none.onnx")
    assert probe.load(tmp_path / "none.onnx").outputs == ()
    with probe.dump(tmp_path / "none.onnx", tmp_path / "golden") as recorded:
        assert "norm0.square" in recorded
