"""Kernels are compiled ahead, all that a run launches; saved with an engine, which loads without compiling; refused where they do not fit."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import numpy as np
import onnx
import pytest

import probe
import probe.api.building as api
from probe.api.timing import bench
from probe.engine.build import compile_model
from probe.engine.device.cuda.compiling import compile as compiling
from probe.engine.device.cuda.compiling import kept_kernels, saved_parts
from probe.engine.device.cuda.compiling.compile import CompileError, Compiler, Program, Resources, Source
from probe.engine.device.cuda.compiling.saved_parts import CODE, INDEX, kernel_parts, read_kernels
from probe.engine.device.cuda.compiling.workers import compile_ahead
from probe.engine.saved.load import load_engine
from probe.errors import InputError
from probe.model import load
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.saved.small import X, small_engine


class Compiled(NullBackend):
    """Compiles what is launched, and computes nothing."""

    arch, name = "sm_90a", "NVIDIA Test"

    def __init__(self) -> None:
        super().__init__()
        self.compiler = Compiler("sm_90a", None)
        self.used: dict[Source, Program] = {}

    def launch(self, source, shape, arguments, what):
        super().launch(source, shape, arguments, what)
        self.used[source] = self.compiler(source)


@pytest.fixture
def compiled(monkeypatch):
    """Sources that were compiled; machine code is made up."""
    found: list[Source] = []

    def compile_source(source, code, headers, options):
        found.append(source)
        return Program(f"{source} for {options}".encode(), Resources(8, 0, 0, 0))

    monkeypatch.setattr(compiling, "compile_source", compile_source)
    for module in (compiling, saved_parts):
        monkeypatch.setattr(module, "nvrtc_version", lambda: (13, 0))
    return found


@pytest.fixture
def gpu_of(monkeypatch):
    """Makes the first GPU one that is not there."""

    def there(backend=None):
        made = backend or Compiled()
        monkeypatch.setattr("probe.engine.device.cuda.guard.first_gpu", lambda: made)
        return made

    return there


def built(tmp_path, gpu) -> Any:
    small_engine(tmp_path)
    engine: Any = compile_model(load(tmp_path / "m.onnx"), device="cuda", keep=["d"])
    assert engine.device.backend is gpu
    return engine


def test_what_runs_launch_is_known_before(tmp_path, compiled, gpu_of, monkeypatch):
    engine = built(tmp_path, gpu_of())
    asked = []
    monkeypatch.setattr(kept_kernels, "compile_ahead", lambda _, found, tell: asked.append(set(found)) or len(found))
    plans = engine.rounding.plan(engine.assignment)
    assert engine.device.warm(X, [plans]) == len(asked[0]) > 0
    before = set(engine.device.backend.used)  # to bring weights to the device
    engine.run(X)
    assert set(engine.device.backend.used) == asked[0] | before and len(asked) == 1, "looked ahead once"


def test_kernels_are_compiled_once_each_and_a_refused_one_stops_nobody(compiled, monkeypatch):
    made = compiling.compile_source

    def refusing(source, *rest):
        if source.entry == "bad":
            raise CompileError("no")
        return made(source, *rest)

    monkeypatch.setattr(compiling, "compile_source", refusing)
    sources = [Source("x.cu", entry, text=f"int {entry};") for entry in ("a", "b", "bad", "c")]
    compiler, told = Compiler("sm_90a", None), []
    assert compile_ahead(compiler, [*sources, *sources], lambda done, of: told.append((done, of))) == 3
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)] and {one.entry for one in compiled} == {"a", "b", "c"}
    assert compile_ahead(compiler, sources[:2]) == 0 and len(compiled) == 3


def test_interrupted_it_stops(compiled):
    def interrupted(done, of):
        raise KeyboardInterrupt

    sources = [Source("x.cu", f"k{at}", text=f"int k{at};") for at in range(200)]
    with pytest.raises(KeyboardInterrupt):
        compile_ahead(Compiler("sm_90a", None), sources, interrupted)
    assert not [one for one in threading.enumerate() if one.name.startswith("compiling")]


def test_looking_ahead_is_no_run_of_layers_on_the_host(tmp_path, compiled, gpu_of):
    gpu_of()
    text = 'g (float[3,5] x) => (float[3,5] z) { s = Einsum <equation = "ij->ij"> (x)  z = Mul (s, x) }'
    onnx.save(onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 18]>\n' + text), tmp_path / "m.onnx")
    engine: Any = compile_model(load(tmp_path / "m.onnx"), device="cuda")
    feeds = {"x": np.ones((3, 5), np.float32)}
    for runs in (1, 2, 3):
        engine.run(feeds)
        assert list(engine.device.falls.values()) == [runs] and list(engine.device.fallen.values()) == [
            "no kernel for Einsum"
        ]


def test_the_first_run_looks_ahead_by_itself(tmp_path, compiled, gpu_of, monkeypatch):
    engine = built(tmp_path, gpu_of())
    asked = []
    monkeypatch.setattr(kept_kernels, "compile_ahead", lambda *given: asked.append(given))
    engine.device.tell = lambda done, of: None
    for _ in range(3):
        engine.run(X)
    assert len(asked) == 1 and asked[0][2] is engine.device.tell


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_saved_engine_compiles_nothing(tmp_path, compiled, gpu_of, precision):
    gpu_of()
    small_engine(tmp_path)
    result = api.build(
        tmp_path / "m.onnx", tmp_path / "e.probe", precision=precision, device="cuda", input_shapes={"x": (3, 64)}
    )
    assert compiled and result.kernels == len(set(compiled)) == len(compiled)
    assert {"kernels", "run"} <= result.seconds.keys()
    compiled.clear()
    gpu = gpu_of()
    engine = load_engine(tmp_path / "e.probe")
    names = [layer.name for layer in engine.layers]
    for kept in ([], names, names[:1], names[1:2]):
        for _ in range(2):
            engine.run(X, engine.assignment.keeping(layers=kept))
    assert not compiled and gpu.used and gpu.compiler.compiled == 0


@pytest.mark.parametrize("at", ["compile_ahead", "kernel_parts"])
def test_interrupted_a_build_leaves_nothing_behind(tmp_path, compiled, gpu_of, monkeypatch, at):
    gpu_of()
    small_engine(tmp_path)

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(kept_kernels, at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        api.build(tmp_path / "m.onnx", tmp_path / "e.probe", device="cuda")
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]


def test_an_engine_for_another_gpu_is_refused(tmp_path, compiled, gpu_of):
    built(tmp_path, gpu_of()).save(tmp_path / "e.probe")
    other = Compiled()
    other.name = "NVIDIA Other"
    gpu_of(other)
    with pytest.raises(InputError, match="built for NVIDIA Test; this is NVIDIA Other"):
        load_engine(tmp_path / "e.probe")
    other = Compiled()
    other.arch = "sm_80"
    gpu_of(other)
    with pytest.raises(InputError, match="built for cuda sm_90a; this is cuda sm_80"):
        load_engine(tmp_path / "e.probe")


def test_without_a_gpu_its_engine_is_refused(tmp_path, compiled, gpu_of, monkeypatch):
    built(tmp_path, gpu_of()).save(tmp_path / "e.probe")

    def none_here():
        raise InputError("no CUDA device: the NVIDIA driver sees no GPU", hint="--device cpu")

    monkeypatch.setattr("probe.engine.device.cuda.guard.first_gpu", none_here)
    with pytest.raises(
        InputError, match="built for NVIDIA Test: no CUDA device: the NVIDIA driver sees no GPU"
    ) as caught:
        load_engine(tmp_path / "e.probe")
    assert caught.value.where == str(tmp_path / "e.probe") and "probe build" in caught.value.hint


def test_an_engine_of_another_compiler_is_refused(tmp_path, compiled, gpu_of, monkeypatch):
    engine = built(tmp_path, gpu_of())
    engine.run(X)
    engine.save(tmp_path / "e.probe")
    monkeypatch.setattr(saved_parts, "nvrtc_version", lambda: (13, 5))
    gpu_of()
    with pytest.raises(InputError, match=r"NVRTC 13.0; here is 13.5") as caught:
        load_engine(tmp_path / "e.probe")
    assert caught.value.where == str(tmp_path / "e.probe") and "probe build" in caught.value.hint


def test_a_cpu_engine_is_no_gpu_engine(tmp_path, gpu_of):
    gpu_of()
    small_engine(tmp_path).save(tmp_path / "e.probe")
    assert load_engine(tmp_path / "e.probe").settings.device == "cpu"


@pytest.mark.parametrize(
    "damage",
    [
        {INDEX: b"{"}, {INDEX: b"[]"}, {INDEX: b"{}"}, {CODE: b""},
        {INDEX: json.dumps({"arch": "sm_90a", "gpu": "g", "nvrtc": 13, "kernels": []}).encode()},
        {INDEX: json.dumps({"arch": "sm_90a", "gpu": "g", "nvrtc": [13, 0], "kernels": [["k", 0]]}).encode()},
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_together_are_refused(compiled, damage):
    compiler = Compiler("sm_90a", None)
    parts: dict[str, Any] = dict(
        kernel_parts(compiler, [Source("a.cu", "a", text="int a;"), Source("b.cu", "b", text="int b;")], "g")
    )
    assert read_kernels(compiler, parts, "g").keys() == {compiler.key(one) for one in compiled}
    with pytest.raises(InputError, match="cannot be read"):
        read_kernels(compiler, {**parts, **damage}, "g")


@pytest.mark.gpu
def test_a_saved_engine_computes_the_same_bits(tmp_path, gpu, monkeypatch):
    from probe.engine.device.cuda.driver import Driver

    small_engine(tmp_path)
    monkeypatch.setattr("probe.engine.device.cuda.guard.first_gpu", lambda: gpu)
    engine = compile_model(load(tmp_path / "m.onnx"), device="cuda", keep=["d"])
    expected = engine.run(X)
    engine.save(tmp_path / "e.probe")
    other = Driver(compiler=Compiler(gpu.arch, None))
    monkeypatch.setattr("probe.engine.device.cuda.guard.first_gpu", lambda: other)
    again = load_engine(tmp_path / "e.probe")
    for _ in range(3):
        assert {name: array.tobytes() for name, array in again.run(X).items()} == {
            name: array.tobytes() for name, array in expected.items()
        }
    assert other.compiler.compiled == 0 and other.compiler.found
    assert np.isfinite(expected["y"]).all()


def test_kernels_that_cannot_be_kept_are_spoken_of(tmp_path, compiled, gpu_of, monkeypatch):
    gpu = gpu_of()
    (tmp_path / "full").write_text("a file where a folder should be")
    gpu.compiler = Compiler("sm_90a", tmp_path / "full" / "kernels")
    engine = built(tmp_path, gpu)
    assert engine.notes == ()
    engine.run(X)
    assert re.search("^compiled kernels are not kept, and compiled again by every process: .*full", *engine.notes)
    for made in (
        probe.run(tmp_path / "m.onnx", device="cuda"),
        bench(tmp_path / "m.onnx", device="cuda", iterations=2, by_layer=False),
    ):
        assert [note for note in made.notes if "not kept" in note], made.notes


def test_a_user_without_a_home_has_no_folder_of_kernels(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compiling.Path, "home", nobody)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert compiling.default_folder() is None and "no folder" in Compiler("sm_90a", None).note
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert str(compiling.default_folder()) == "/c/probe/kernels"
