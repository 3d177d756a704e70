"""Finding a runner by its spec: built in, or brought by another package."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest

from probe.errors import InputError
from probe.model import load
from probe.results.tensors import RunHeader, TensorInfo
from probe.runners.callable import CallableRunner
from probe.runners.command import CommandRunner
from probe.runners.files import FilesRunner
from probe.runners.ort import OrtRunner
from probe.runners.protocol import RunnerOptions, RunnerTensor, open_runner
from tests.model import builders as b


class Plugin:
    name = "mine"

    def __init__(self, argument, model, options) -> None:
        if argument == "refuse":
            raise InputError("no such device")
        if argument == "break":
            raise OSError("libmine.so: cannot open shared object file")
        self.argument, self.options = argument, options
        self.header = RunHeader(runner="mine")

    def run(self, feeds, input_id):
        yield RunnerTensor(TensorInfo("y", "float32", (1,), input_id=input_id, role="output"), np.ones(1, np.float32))

    def close(self) -> None: ...


def test_built_in_runners(tmp_path):
    model = load(b.save(b.mlp(), tmp_path / "m.onnx"))
    np.savez(tmp_path / "r.npz", y=np.ones(1))
    options = RunnerOptions(timeout=5)
    assert isinstance(open_runner("ort", model, options), OrtRunner)
    assert isinstance(open_runner(f"files:{tmp_path}/r.npz", model, options), FilesRunner)
    assert isinstance(open_runner("python:json.dumps", None, options), CallableRunner)
    command = open_runner("command: engine --out {outputs}", model, options)
    assert isinstance(command, CommandRunner) and command._timeout == 5


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("ort", "needs a model", ""),
        ("ort:cuda", "takes nothing", ""),
        ("files", "needs more than its name", "files:golden/"),
        ("python:", "needs more than its name", "python:engine"),
        ("command:  ", "needs more than its name", "{outputs}"),
        ("comand: x {outputs}", "no runner is called 'comand'", "did you mean command?"),
        ("tensorrt", "no runner is called 'tensorrt'", "ort: ONNX Runtime"),
        ("", "no runner is called ''", "ort"),
    ],
)
def test_specs_that_name_nothing(spec, message, hint):
    with pytest.raises(InputError) as caught:
        open_runner(spec, None)
    assert message in caught.value.what and hint in caught.value.hint


@pytest.fixture
def plugins(monkeypatch):
    points = [metadata.EntryPoint("mine", f"{__name__}:Plugin", "probe.runners")]
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [p for p in points if p.group == group])
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: Plugin)
    return points


def test_a_plugin_gets_its_argument_and_the_options(plugins):
    options = RunnerOptions(threads=2)
    runner = open_runner("mine:device 1", None, options)
    assert isinstance(runner, Plugin) and (runner.argument, runner.options) == ("device 1", options)
    assert open_runner("mine", None, options).argument == ""
    assert [t.info.name for t in runner.run({}, "one")] == ["y"]


def test_a_plugin_that_does_not_start(plugins):
    with pytest.raises(InputError, match="no such device"):
        open_runner("mine:refuse", None)
    with pytest.raises(InputError, match=r"cannot start: OSError: libmine.so"):
        open_runner("mine:break", None)


def test_two_packages_with_one_name(plugins):
    plugins.append(metadata.EntryPoint("mine", "other:factory", "probe.runners"))
    with pytest.raises(InputError, match="several packages"):
        open_runner("mine", None)


def test_unknown_names_list_plugins_too(plugins):
    with pytest.raises(InputError) as caught:
        open_runner("zzz", None)
    assert "mine" in caught.value.hint
