"""``probe build`` as typed, and what the other commands make of the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import probe
from probe.cli.main import main
from probe.results.bench import BenchResult
from probe.results.build import BuildResult
from tests.cli.program import probe as run
from tests.engine.saved.small import X, small_engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m.onnx``, inputs ``x.npz``, and ``e.probe``, built with ``d`` kept."""
    place = tmp_path_factory.mktemp("build")
    small_engine(place)
    np.savez(place / "x.npz", x=X["x"])
    done = run("build", "m.onnx", "-o", "e.probe", "--keep", "^d$", "--json", "build.json", cwd=place)
    assert done.returncode == 0, done.stderr
    (place / "page.txt").write_text(done.stdout)
    return place


def test_the_page_says_what_was_built(folder: Path) -> None:
    page = (folder / "page.txt").read_text()
    assert page.startswith("e.probe: m.onnx in fp16, 2 layers, ")
    for said in (
        "kept FP32   d",
        "passes safe (",
        "loads in ",
        "probe run e.probe --inputs FILE.npz",
        "probe bench e.probe",
    ):
        assert said in page
    result = probe.load_result(folder / "build.json")
    assert isinstance(result, BuildResult)
    assert (result.kept, result.precision, result.layers) == (("d",), "fp16", 2)
    assert result.bytes == (folder / "e.probe").stat().st_size
    assert set(result.seconds) == {"compile", "sessions", "save"} and result.load_seconds


def test_run_judges_the_engine(folder: Path) -> None:
    done = run("run", "e.probe", "--inputs", "x.npz", "--json", "run.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "kept FP32   d" in done.stdout
    result = json.loads((folder / "run.json").read_text())
    assert (result["model"], result["keep"], result["precision"]) == ("e.probe", ["d"], "fp16")
    assert result["model_sha256"] == probe.load(folder / "m.onnx").sha256
    again = run("run", "e.probe", "--inputs", "x.npz", "--precision", "fp16", "-q", cwd=folder)  # as its page suggests
    assert again.returncode == 0, again.stderr


def test_bench_measures_the_engine(folder: Path) -> None:
    words = ("bench", "e.probe", "--iterations", "3", "--no-layers", "--warmup", "0", "--json", "bench.json")
    done = run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    result = probe.load_result(folder / "bench.json")
    assert isinstance(result, BenchResult)
    assert (result.precision, result.keep) == ("fp16", ("d",))
    assert "passes" not in result.compile_seconds and "load" in result.compile_seconds


def test_dump_records_the_engine(folder: Path) -> None:
    done = run("dump", "e.probe", "-o", "dumped", "--runner", "engine", "--inputs", "x.npz", cwd=folder)
    assert done.returncode == 0, done.stderr
    words = ("dump", "m.onnx", "-o", "compiled", "--runner", "engine", "--keep", "d", "--inputs", "x.npz")
    assert run(*words, cwd=folder).returncode == 0
    with probe.open_recording(folder / "dumped") as one, probe.open_recording(folder / "compiled") as other:
        assert list(one) == list(other) and len(one) > 2
        for name in one:
            assert one[name].tobytes() == other[name].tobytes()
    recorded = probe.dump(folder / "e.probe", folder / "api", runner="engine", inputs=dict(X))
    assert recorded["y"].shape == (3, 64)


def test_inspect_tells_what_is_in_it(folder: Path) -> None:
    done = run("inspect", "e.probe", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("e.probe: m.onnx in fp16, 2 layers, ")
    assert "kept FP32   d" in done.stdout


def test_recorded_tactics_are_built_in(folder: Path, tmp_path: Path) -> None:
    words = ("tactics", "record", "m.onnx", "-o", tmp_path / "t.json", "--allow", "acc16", "--inputs", "x.npz")
    assert run(*words, cwd=folder).returncode in (0, 1)
    done = run(
        "build", "m.onnx", "-o", tmp_path / "t.probe", "--tactics", tmp_path / "t.json", "--inputs", "x.npz", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert "acc16 " in done.stdout
    engine = probe.compile(tmp_path / "t.probe")
    assert "acc16" in {choice.tactic for choice in engine.assignment.layers.values()}
    fails = run(
        "build",
        "m.onnx",
        "-o",
        tmp_path / "u.probe",
        "--tactics",
        tmp_path / "t.json",
        "--precision",
        "bf16",
        cwd=folder,
    )
    assert fails.returncode == 2
    assert "was recorded with --precision fp16" in fails.stderr
    assert not (tmp_path / "u.probe").exists()


REFUSED = {
    "build m.onnx -o e.probe": "exists",
    "build m.onnx -o m.onnx": "is the model",
    "build m.onnx -o x.npz --overwrite": "no saved engine; it will not be overwritten",
    "build m.onnx -o new.probe --inputs x.npz": "there is none",
    "build m.onnx -o new.probe --keep nowhere": "nothing to keep matches 'nowhere'",
    "build m.onnx -o new.probe --tactics t.json --keep d": "says itself what is kept",
    "build m.onnx -o gone/new.probe": "its folder does not exist",
    "build e.probe -o new.probe": "an engine that probe build saved",
    "run e.probe --precision bf16": "--precision was decided when the engine was built",
    "run e.probe --passes-limit 3": "--passes-limit was decided",
    "run e.probe --builds 2": "an engine that probe build saved",
    "bench e.probe --fusion none": "--fusion was decided",
    "bench e.probe --tactics t.json": "--tactics was decided",
    "dump e.probe -o d": "nothing but the runner engine",
    "dump e.probe -o d --runner engine --interior fp32": "--interior was decided",
    "inspect e.probe --fusion none": "its layers are formed",
    "inspect e.probe --values 3": "its layers are formed",
    "find e.probe -o new.onnx": "an engine that probe build saved",
    "check e.probe": "an engine that probe build saved",
    "convert e.probe -o new.onnx": "an engine that probe build saved",
    "tactics record e.probe -o new.json": "an engine that probe build saved",
}


Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Runs a command in this process: exit code and stderr. A process for each would take a minute."""

    def run_here(*words: str, cwd: Path) -> tuple[int, str]:
        monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as left:
            main(words)
        assert isinstance(left.value.code, int)
        return left.value.code, capsys.readouterr().err

    return run_here


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(words: str, folder: Path, typed: Typed) -> None:
    before = sorted(one.name for one in folder.iterdir())
    code, said = typed(*words.split(), cwd=folder)
    assert code == 2
    assert REFUSED[words] in said
    assert "  try  " in said
    assert sorted(one.name for one in folder.iterdir()) == before


@pytest.mark.parametrize("command", ["run", "bench", "inspect", "dump"])
def test_a_damaged_engine_is_the_users_input(command: str, folder: Path, tmp_path: Path, typed: Typed) -> None:
    content = bytearray((folder / "e.probe").read_bytes())
    content[4100] ^= 1
    (tmp_path / "e.probe").write_bytes(content)
    further = ["-o", "d", "--runner", "engine"] if command == "dump" else []
    code, said = typed(command, "e.probe", *further, cwd=tmp_path)
    assert code == 2
    assert "the engine is damaged: bytes 4096 to " in said
    assert "build it again" in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.engine", b"ftrt" + bytes(600), "a TensorRT engine: compiled for one GPU and one version, opaque"),
        ("m.plan", bytes(600), "a TensorRT engine"),
        ("m.onnx", b"ftrt" + bytes(600), "a TensorRT engine"),
        ("m.pt", b"PK\x03\x04" + bytes(600), "a zip archive, perhaps a PyTorch checkpoint"),
        ("m.pth", bytes(600), "a PyTorch file"),
        ("m.tflite", bytes(4) + b"TFL3" + bytes(600), "a TensorFlow Lite model"),
        ("m.safetensors", (600).to_bytes(8, "little") + bytes(600), "safetensors: weights without a network"),
    ],
)
@pytest.mark.parametrize("command", ["build", "run"])
def test_engines_and_models_of_others_are_explained(
    name: str, content: bytes, said: str, command: str, tmp_path: Path, typed: Typed
) -> None:
    (tmp_path / name).write_bytes(content)
    code, words = typed(command, name, *(["-o", "e.probe"] if command == "build" else []), cwd=tmp_path)
    assert code == 2
    assert said in words
    assert "ONNX" in words


def test_a_large_foreign_engine_is_explained_too(tmp_path: Path) -> None:
    with (tmp_path / "llm.engine").open("wb") as file:
        file.write(b"ftrt")
        file.truncate(3 << 30)
    with pytest.raises(probe.InputError, match="a TensorRT engine"):
        probe.load(tmp_path / "llm.engine")
