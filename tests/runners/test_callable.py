"""``python:``: finding the user's function, what it may return, and how its failures are told."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from probe.errors import InputError
from probe.model import load
from probe.runners.callable import CallableRunner, find_callable
from tests.model import builders as b

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}

ENGINE = """
import numpy as np

def infer(feeds):
    return {"hidden": feeds["x"] + 1, "y": feeds["x"] * 2}

def stream(feeds):
    for i in range(3):
        yield f"t{i}", feeds["x"] * i

def in_place(feeds):
    feeds["x"] *= 0
    return {"y": feeds["x"]}

def fails(feeds):
    return helper(feeds)

def helper(feeds):
    raise RuntimeError("CUDA error 700: an illegal memory access")

def leaves(feeds):
    raise SystemExit(3)

def late(feeds):
    yield "a", feeds["x"]
    raise KeyError("weights")

class Engine:
    def __call__(self, feeds):
        return {"y": feeds["x"]}
    def run(self, feeds):
        return {"y": -feeds["x"]}

engine = Engine()
infer.probe_precision = "fp16"
number = 3
returns = {
    "none": None, "array": np.ones(3), "list of arrays": [np.ones(3)], "empty": {}, "objects": {"y": np.array([object()])},
    "text": "y", "named objects": {"y": object()}, "twice": [("y", np.ones(1)), ("y", np.ones(1))], "no name": [(3, np.ones(1))],
    "input": {"x": np.ones(1)}, "datetime": {"y": np.array(["2020"], "datetime64[D]")},
}

def bad(kind):
    return lambda feeds: returns[kind]
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "my_engine.py"
    path.write_text(ENGINE)
    return path


def tensors(runner: CallableRunner):
    return {t.info.name: t for t in runner.run(FEEDS, "one")}


def test_a_mapping_and_what_the_model_knows_of_its_names(engine, tmp_path):
    model = load(b.save(b.mlp(), tmp_path / "m.onnx"))
    runner = CallableRunner(f"{engine}:infer", model)
    made = tensors(runner)
    assert np.array_equal(made["y"].array, FEEDS["x"] * 2)
    assert (made["y"].info.role, made["hidden"].info.role) == ("output", "internal")
    assert made["hidden"].info.nodes == ("Relu(hidden)",) and made["hidden"].info.reads == ("layer 1/add",)
    assert made["y"].info.reads == ("hidden",)  # weights are not tensors of the run
    assert (runner.header.precision, runner.header.model_sha256) == ("fp16", model.sha256)


def test_a_generator_is_asked_for_one_tensor_at_a_time(engine):
    made = CallableRunner(f"{engine}:stream").run(FEEDS, "one")
    assert [next(made).info.name, next(made).info.name] == ["t0", "t1"]
    made.close()
    assert list(tensors(CallableRunner(f"{engine}:stream"))) == ["t0", "t1", "t2"]


def test_without_a_model_everything_is_an_output(engine):
    assert {t.info.role for t in tensors(CallableRunner(f"{engine}:infer")).values()} == {"output"}


def test_working_in_place_leaves_the_recorded_inputs_alone(engine):
    before = FEEDS["x"].copy()
    tensors(CallableRunner(f"{engine}:in_place"))
    assert np.array_equal(FEEDS["x"], before)


@pytest.mark.parametrize(("target", "factor"), [("engine", 1), ("engine.run", -1)])
def test_objects_and_methods(engine, target, factor):
    assert np.array_equal(tensors(CallableRunner(f"{engine}:{target}"))["y"].array, factor * FEEDS["x"])


@pytest.mark.parametrize("separator", [".", ":"])
def test_a_module_in_the_current_folder(engine, monkeypatch, separator):
    monkeypatch.chdir(engine.parent)
    before = list(sys.path)
    assert find_callable(f"my_engine{separator}infer")
    assert sys.path == before
    del sys.modules["my_engine"]


def test_torch_like_tensors_are_taken(tmp_path):
    class Tensor:
        def __init__(self, grad: bool) -> None:
            self.grad = grad

        def detach(self):
            return Tensor(grad=False)

        def __array__(self, dtype=None, copy=None):
            if self.grad:
                raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
            return np.ones(2, np.float32)

    runner = CallableRunner("builtins:dict")
    runner._function = lambda feeds: {"y": Tensor(grad=True)}
    assert tensors(runner)["y"].array.tolist() == [1, 1]

    class OnGpu:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    runner._function = lambda feeds: {"y": OnGpu()}
    with pytest.raises(InputError, match="can't convert cuda:0") as caught:
        tensors(runner)
    assert "CPU" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "returned nothing"), ("array", "a ndarray"), ("list of arrays", "yielded a ndarray"), ("empty", "no tensors"),
        ("objects", "Python objects"), ("text", "returned a str"), ("named objects", "of Python objects"), ("twice", "'y' twice"),
        ("no name", "yielded a tuple"), ("input", "input of the model"), ("datetime", "datetime64"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(engine, tmp_path, kind, message):
    model = load(b.save(b.mlp(), tmp_path / "m.onnx"))
    runner = CallableRunner(f"{engine}:infer", model)
    runner._function = find_callable(f"{engine}:bad")(kind)
    with pytest.raises(InputError, match=message):
        tensors(runner)


def test_a_failure_shows_the_users_own_lines(engine):
    with pytest.raises(InputError) as caught:
        tensors(CallableRunner(f"{engine}:fails"))
    assert "failed on input 'one': RuntimeError: CUDA error 700" in caught.value.what
    assert "my_engine.py" in caught.value.where and "in helper" in caught.value.where
    assert "probe/runners" not in caught.value.where


def test_a_failure_in_the_middle_and_an_exit(engine):
    with pytest.raises(InputError, match="KeyError: 'weights'"):
        tensors(CallableRunner(f"{engine}:late"))
    with pytest.raises(InputError, match="SystemExit: 3"):
        tensors(CallableRunner(f"{engine}:leaves"))


def test_ctrl_c_is_not_swallowed(engine):
    runner = CallableRunner(f"{engine}:infer")

    def interrupted(feeds):
        raise KeyboardInterrupt

    runner._function = interrupted
    with pytest.raises(KeyboardInterrupt):
        tensors(runner)


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("nothing", "names no function", "python:module.function"),
        ("no_such_module_here.fn", "cannot find the module", "python:FILE.py:fn"),
        ("json.nothing", "json has no 'nothing'", "dumps"),
        ("json.__version__", "not a function", ""),
        ("none.py:fn", "no such file", ""),
        ("{engine}:number", "is a int, not a function", ""),
        ("{engine}:infers", "has no 'infers'", "infer"),
    ],
)
def test_targets_that_cannot_be_found(engine, target, message, hint):
    with pytest.raises(InputError) as caught:
        find_callable(target.format(engine=engine))
    assert message in caught.value.what and hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import no_such_dependency\n", "no_such_dependency"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit\n", "SystemExit"),
    ],
)
def test_a_file_that_does_not_import(tmp_path, text, message):
    path = tmp_path / "broken_engine.py"
    path.write_text(text)
    before = list(sys.path)
    with pytest.raises(InputError, match=message) as caught:
        find_callable(f"{path}:fn")
    assert "broken_engine.py" in caught.value.where and sys.path == before


def test_a_module_whose_own_import_fails_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"importing needs_more failed.*no_such_dependency"):
        find_callable("needs_more.fn")
