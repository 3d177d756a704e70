"""The library as a program uses it: the same results as the commands, from paths, open recordings and arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import probe
from probe import demo
from probe.runners.protocol import open_runner
from probe.store.recording import Recording


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.onnx``, its golden, and the faulty engine's recording."""
    folder = demo.prepare(tmp_path_factory.mktemp("api") / "demo")
    probe.dump(folder / demo.MODEL_FILE, folder / "golden").close()
    probe.dump(folder / demo.ENGINE_FILE, folder / "engine", inputs=folder / "golden").close()
    return folder


@pytest.fixture
def golden(folder: Path) -> Iterator[Recording]:
    with probe.open_recording(folder / "golden") as recording:
        yield recording


IMAGE = np.random.default_rng(1).random((1, 3, 32, 32), dtype=np.float32)


class TestDump:
    def test_returns_what_was_recorded(self, folder: Path, tmp_path: Path) -> None:
        with probe.dump(folder / "model.onnx", tmp_path / "out", seed=3, command="here") as made:
            assert made.input_ids == ("seed-3",)
            assert made.info("logits").role == "output"
            assert made["logits"].shape == (1, 10)
            assert len(made) == 145
            assert made.header.command == "here"
            assert made.header.inputs[0].source == "seed 3"
            assert any("made up" in note for note in made.header.notes)

    def test_takes_arrays_files_and_dumps_of_inputs(self, folder: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "photo.npz", image=IMAGE)
        model = probe.load(folder / "model.onnx")
        ways = {
            "arrays": {"image": IMAGE},
            "file": tmp_path / "photo.npz",
            "files": [tmp_path / "photo.npz"],
            "dump": tmp_path / "arrays",
        }
        made = {name: probe.dump(model, tmp_path / name, inputs=inputs) for name, inputs in ways.items()}
        assert len({recording.header.inputs[0].sha256 for recording in made.values()}) == 1
        for recording in made.values():
            np.testing.assert_array_equal(recording["image"], IMAGE)
            np.testing.assert_array_equal(recording["logits"], made["arrays"]["logits"])

    def test_an_array_needs_the_name_of_its_input(self, folder: Path, tmp_path: Path) -> None:
        model: Any = folder / "model.onnx"
        nameless: Any = IMAGE
        for call in (
            lambda: probe.dump(model, tmp_path / "new", inputs=nameless),
            lambda: probe.run(model, inputs=nameless),
            lambda: probe.compile(model)(nameless),
        ):
            with pytest.raises(probe.InputError, match="by name, not as ndarray") as refused:
                call()
            assert refused.value.hint == 'such as {"image": array}'

    def test_selects(self, folder: Path, tmp_path: Path) -> None:
        made = probe.dump(folder / "model.onnx", tmp_path / "out.npz", select=r"^logits$|Softmax")
        assert set(made) == {"image", "logits", *(f"/blocks.{i}/attention/Softmax_output_0" for i in range(3))}
        assert probe.dump(folder / "model.onnx", tmp_path / "again", select=re.compile("logits")).keys() == {
            "image",
            "logits",
        }

    def test_statistics_only(self, folder: Path, tmp_path: Path) -> None:
        made = probe.dump(folder / "model.onnx", tmp_path / "out", inputs=folder / "golden", stats_only=True)
        whole = probe.open_recording(folder / "golden")
        assert made.info("logits").sha256 == whole.info("logits").sha256
        with pytest.raises(probe.InputError, match="no values of 'logits'"):
            _ = made["logits"]

    def test_an_open_runner_stays_open(self, folder: Path, tmp_path: Path) -> None:
        model = probe.load(folder / "model.onnx")
        runner = open_runner("ort", model)
        first, second = (probe.dump(model, tmp_path / str(i), runner=runner, seed=i) for i in range(2))
        assert not np.array_equal(first["logits"], second["logits"])
        runner.close()

    def test_leaves_nothing_behind_on_error(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(probe.InputError):
            probe.dump(folder / "model.onnx", tmp_path / "out", inputs={"image": IMAGE[:, :, :5]})
        with pytest.raises(probe.InputError):
            probe.dump(folder / "model.onnx", tmp_path / "out", runner="python:no_such_module.fn")
        assert not list(tmp_path.iterdir())


class TestDiff:
    def test_paths_recordings_and_arrays_agree(self, folder: Path, golden: Recording) -> None:
        by_path = probe.diff(folder / "engine", folder / "golden", precision="fp16")
        with probe.open_recording(folder / "engine") as engine:
            by_recording = probe.diff(engine, golden, precision="fp16")
            assert engine["logits"].shape == (1, 10), "a recording that was open stays open"
        assert by_path.tensors == by_recording.tensors
        assert by_path.verdict == "failed"
        arrays = {name: golden[name] for name in ("logits", "/norm/Mul_output_0")}
        assert probe.diff(arrays, golden, select="^(logits|/norm/Mul_output_0)$").verdict == "passed"

    def test_arrays_are_all_judged(self) -> None:
        result = probe.diff({"a": [1.0], "b": [1.5]}, {"a": [1.0], "b": [1.0]}, accept=["max_abs<=0.1"])
        assert (result.verdict, [tensor.verdict for tensor in result.tensors]) == ("failed", ["passed", "failed"])
        assert not result.roles_known

    def test_criteria_are_texts_or_values(self) -> None:
        actual, golden = {"y": [1.0, 2.1]}, {"y": [1.0, 2.0]}
        assert probe.diff(actual, golden, accept=["max_abs<=0.2"])
        assert not probe.diff(actual, golden, accept=[probe.Criterion("max_abs", "<=", 0.01)])
        with pytest.raises(probe.InputError, match="unknown metric"):
            probe.diff(actual, golden, accept=["max_abz<=1"])

    def test_names_are_mapped_never_guessed(self) -> None:
        actual, golden = {"y_0": [1.0]}, {"y": [1.0]}
        assert probe.diff(actual, golden).verdict == "failed"
        assert probe.diff(actual, golden, accept=["max_abs<=0"], name_map={"y_0": "y"}).verdict == "passed"

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(probe.InputError, match="does not exist"):
            probe.diff(tmp_path / "a.npz", tmp_path / "b.npz")


def test_a_saved_result_is_the_result(folder: Path, tmp_path: Path) -> None:
    from probe.results.json import save

    result = probe.diff(folder / "engine", folder / "golden")
    save(result, tmp_path / "diff.json")
    again = probe.load_result(tmp_path / "diff.json")
    assert (again.verdict, again.first_divergence) == (result.verdict, result.first_divergence)
    assert len(again.tensors) == len(result.tensors)


def test_load_says_what_a_model_is(folder: Path) -> None:
    model = probe.load(folder / "model.onnx")
    assert [(port.name, port.dtype, port.shape) for port in model.inputs] == [("image", "float32", (1, 3, 32, 32))]
    with pytest.raises(probe.InputError):
        probe.load(folder / "no-such.onnx")
