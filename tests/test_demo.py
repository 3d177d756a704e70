"""The demonstration: its network is what it is said to be, and its story comes out as told."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import probe
from probe import demo, demo_model
from probe.cli import main as program
from probe.engine.assignment import FP32, Assignment
from probe.engine.engine import Engine
from probe.model.synthetic import generator, image
from tests.engine.emulator import Emulator

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(probe.__file__).parents[1])}
SEEDS = range(6)
Arrays = Mapping[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> demo.Demo:
    return demo.run_demo(tmp_path_factory.mktemp("demo") / "here")


@pytest.fixture(scope="module")
def engine(done: demo.Demo) -> Engine:
    """The model as it is written: every tensor stored low unless it is kept."""
    return probe.compile(done.folder / demo.MODEL_FILE, precision="fp16", passes="none", fusion="none")


@cache
def pictures(seed: int) -> Arrays:
    """The input that ``--seed`` makes up."""
    return {"image": image(generator(seed, "image"), (1, 3, 32, 32), 0.0, 1.0, channels_last=False)}


@cache
def emulated(seed: int, precision: str, *kept: str) -> Arrays:
    """All tensors, by an emulation that shares no code with the engine."""
    return Emulator(onnx.load_from_string(demo.build_demo_model())).run(pictures(seed), precision, kept=kept)


def range_rel(actual: np.ndarray[Any, Any], golden: np.ndarray[Any, Any]) -> float:
    return float(np.abs(actual - golden).max() / np.abs(golden).max())


class TestNetwork:
    """Facts of the model, in one emulation, and in the engine where every tensor is tried."""

    def test_it_is_small_and_valid(self) -> None:
        data = demo.build_demo_model()
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert 100 <= len(model.graph.node) <= 200
        assert len(data) < 700_000
        assert data == demo.build_demo_model(), "seeded"
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names) and all(name.startswith("/") for name in names)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_few_channels_are_hundreds_of_times_larger_than_the_rest(self, seed: int) -> None:
        golden = emulated(seed, "fp32")
        outliers = list(demo_model.OUTLIERS)
        for block in range(demo_model.BLOCKS):
            stream = np.abs(golden[f"/blocks.{block}/Add_1_output_0"])
            ordinary = np.delete(stream, outliers, axis=-1)
            assert stream[..., outliers].max() > 150 * np.median(ordinary)
            assert stream[..., outliers].min() > 4 * ordinary.max()

    @pytest.mark.parametrize("seed", SEEDS)
    def test_one_tensor_does_not_fit_fp16_and_all_others_do_with_ease(self, seed: int) -> None:
        golden = emulated(seed, "fp32")
        largest = {name: float(np.abs(x).max()) for name, x in golden.items() if x.dtype == np.float32}
        assert largest.pop(demo.OVERFLOWING_TENSOR) > 65520
        assert max(largest.values()) < 65504 / 4
        assert np.abs(golden[demo.FAULTY_TENSOR]).max() < 65504 / 4, "the mean of those squares fits"

    @pytest.mark.parametrize("seed", SEEDS)
    def test_all_low_is_finite_believable_and_wrong(self, seed: int) -> None:
        golden, actual = emulated(seed, "fp32"), emulated(seed, "fp16")
        assert np.isinf(actual[demo.OVERFLOWING_TENSOR]).any()
        gone = np.isinf(actual["/blocks.2/norm2/Sqrt_output_0"])[..., 0]
        assert gone.any() and not actual["/blocks.2/norm2/Mul_output_0"][gone].any(), "the branch loses its input"
        bad = {name for name, x in actual.items() if x.dtype == np.float32 and not np.isfinite(x).all()}
        assert bad == {f"/blocks.2/norm2/{op}_output_0" for op in ("Pow", "ReduceMean", "Add", "Sqrt")}
        logits, right = actual["logits"], golden["logits"]
        assert range_rel(logits, right) > 0.2
        assert 0.5 < np.abs(logits).max() / np.abs(right).max() < 2

    def test_the_answer_changes(self) -> None:
        """On the input of the story, and on others."""
        wrong = [
            emulated(seed, "fp16")["logits"].argmax() != emulated(seed, "fp32")["logits"].argmax() for seed in SEEDS
        ]
        assert wrong[0] and sum(wrong) >= len(wrong) / 2
        assert len({int(emulated(seed, "fp32")["logits"].argmax()) for seed in SEEDS}) >= 3, "it looks at the image"

    @pytest.mark.parametrize("seed", SEEDS)
    def test_keeping_that_tensor_cures(self, seed: int, engine: Engine) -> None:
        golden = emulated(seed, "fp32")["logits"]
        kept = emulated(seed, "fp16", demo.OVERFLOWING_TENSOR)["logits"]
        assert range_rel(kept, golden) < 0.01
        run = engine.run(pictures(seed), engine.assignment.keeping(tensors=[demo.OVERFLOWING_TENSOR]))["logits"]
        assert range_rel(run, golden) < 0.01

    def test_it_is_the_only_tensor_to_blame_and_the_only_cure(self, engine: Engine) -> None:
        """Every tensor that is rounded, weights and the input included: low alone, and kept alone."""
        sites = [engine.rounding.sites(layer, "fp16") for layer in engine.layers]
        names = list(dict.fromkeys(value.name or "" for site in sites for _, value in site.gates))
        assert len(names) >= 180
        golden = engine.run(pictures(0), Assignment(FP32))["logits"]

        def error(kept: list[str]) -> float:
            return range_rel(engine.run(pictures(0), engine.assignment.keeping(tensors=kept))["logits"], golden)

        assert error(names) == 0
        alone = {name: error([other for other in names if other != name]) for name in names}
        assert [name for name in names if alone[name] > 0.01] == [demo.OVERFLOWING_TENSOR]
        assert [name for name in names if error([name]) <= 0.05] == [demo.OVERFLOWING_TENSOR]

    def test_the_export_that_keeps_nothing_fails_its_proof(self, done: demo.Demo, tmp_path: Path) -> None:
        """Although ONNX Runtime, which computes it in FP32, sees nothing wrong."""
        low = probe.convert(done.folder / demo.MODEL_FILE, tmp_path / "low.onnx")
        assert low.verdict == "failed"
        typed, ort = low.proofs
        assert (typed.runner, typed.verdict) == ("typed", "failed") and typed.metric is not None
        assert 0.2 < typed.metric < float("inf")
        assert (ort.runner, ort.verdict) == ("ort", "passed")


class TestFaultyModel:
    def test_both_models_have_the_same_names(self) -> None:
        golden, engine = (onnx.load_from_string(build()) for build in (demo.build_demo_model, demo.build_faulty_model))
        onnx.checker.check_model(engine)
        assert [node.name for node in golden.graph.node] == [node.name for node in engine.graph.node]
        assert [node.output for node in golden.graph.node] == [node.output for node in engine.graph.node]
        different = [n.name for n, o in zip(golden.graph.node, engine.graph.node, strict=True) if n != o]
        assert different == [demo.FAULTY_NODE]

    def test_recording_and_comparing_finds_the_node(self, tmp_path: Path) -> None:
        """By the commands that the demo shows."""
        folder = demo.prepare(tmp_path / "a folder")
        said = [
            shell(command, tmp_path, code)
            for command, code in zip(demo.record_and_compare(folder), (0, 0, 1), strict=True)
        ]
        assert demo.FAULTY_TENSOR in said[-1]
        with probe.open_recording(folder / "golden") as golden, probe.open_recording(folder / "engine") as engine:
            assert probe.diff(engine, golden).first_divergence == (demo.FAULTY_TENSOR,)
            mean, faulty = golden[demo.FAULTY_TENSOR], engine[demo.FAULTY_TENSOR]
            squares = golden.info(demo.FAULTY_TENSOR).reads[0]
            assert np.array_equal(golden[squares], engine[squares])
            assert mean.max() < 65504, "the mean itself fits"
            assert np.array_equal(np.isinf(faulty), golden[squares].sum(-1, keepdims=True) >= 65520)
            assert np.isfinite(engine["logits"]).all()


class TestStory:
    def test_every_chapter_finds_what_was_planted(self, done: demo.Demo) -> None:
        assert done
        assert len(done.steps) == len(demo.CHAPTERS)
        run = done.steps[0]
        assert run.result.verdict == "failed"
        assert [f.tensor for f in run.result.findings if f.fatal] == [demo.OVERFLOWING_TENSOR]
        assert run.result.cure is not None and run.result.cure.verdict == "passed"
        assert "class 3" in run.noticed[-1] and "class 9" in run.noticed[-1]
        check = done.steps[1].result
        (error,) = check.of("error")
        assert (error.tensor, error.node) == (demo.OVERFLOWING_TENSOR, demo.OVERFLOWING_NODE)
        assert 0.5 < error.margin < 1 and error.output == "logits" and error.output_error > 0.2
        assert {path.name for path in done.folder.iterdir()} == {demo.MODEL_FILE, demo.MIXED_FILE, demo.ENGINE_FILE}

    def test_one_tensor_is_kept_and_the_export_proved(self, done: demo.Demo) -> None:
        found = done.steps[-1].result
        assert (found.status, found.tensors) == ("found", (demo.OVERFLOWING_TENSOR,))
        assert not found.oracle.all_low.passed and found.oracle.all_fp32.passed
        (kept,) = found.keep
        assert kept.nodes_fp32 == (demo.OVERFLOWING_NODE, demo.FAULTY_NODE), "what makes it, and what reads it"
        assert kept.certificate is not None and kept.certificate.metric > 0.2
        typed = found.exported.proofs[0]
        assert (typed.runner, typed.verdict) == ("typed", "passed") and typed.metric < 0.01
        golden = emulated(0, "fp32")["logits"]
        with probe.dump(
            done.folder / demo.MIXED_FILE, done.folder.parent / "mixed.npz", inputs=pictures(0), runner="typed"
        ) as made:
            assert range_rel(made["logits"], golden) < 0.01

    def test_quiet_and_as_json(
        self, done: demo.Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Told again into the same folder, from what the chapters found before."""
        chapters = zip(demo.CHAPTERS, done.steps, strict=True)
        monkeypatch.setattr(
            demo, "CHAPTERS", tuple(replace(one, play=lambda *_, step=step: step) for one, step in chapters)
        )
        monkeypatch.chdir(tmp_path)
        for words in (["-q"], ["--json", "-"]):
            with pytest.raises(SystemExit) as ended:
                program.main(["demo", "-o", "here", *words])
            assert ended.value.code == 0
            said = capsys.readouterr().out
            assert (
                said.startswith("FAILED  fp16: logits")
                if "-q" in words
                else json.loads(said)["schema"] == "probe.find/1"
            )

    def test_it_notices_when_nothing_is_wrong(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without the growth in block 2 every square fits, the run passes, and the demo says that it did not find its fault."""
        monkeypatch.setitem(demo_model.WRITTEN, 2, ({}, {}))
        told = demo.run_demo(tmp_path / "demo")
        assert told.steps[0].result.verdict == "passed"
        assert not told.steps[1].result.of("error")
        assert told.steps[2].result.status == "nothing_needed"
        assert not any(step.found for step in told.steps) and not told

    def test_it_leaves_alone_what_is_not_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(b"somebody's model")
        with pytest.raises(probe.InputError, match="not the demo's"):
            demo.run_demo(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
        assert (tmp_path / "model.onnx").read_bytes() == b"somebody's model"

    def test_a_file_in_its_place_is_the_users_error(self, tmp_path: Path) -> None:
        (tmp_path / "demo").write_text("a file")
        with pytest.raises(probe.InputError):
            demo.run_demo(tmp_path / "demo")

    def test_the_commands_it_shows_do_the_same_in_less_than_ten_seconds(self, done: demo.Demo) -> None:
        """Where the demo has been told already; as it can be told again. Processor time, which other tests disturb least."""
        assert demo.prepare(done.folder) == done.folder
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for chapter, step in zip(demo.CHAPTERS, done.steps, strict=True):
            assert chapter.command(done.folder) == step.command
            said = shell(step.command, done.folder, 0 if chapter is demo.CHAPTERS[-1] else 1)
            assert demo.OVERFLOWING_TENSOR in said
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def shell(command: str, cwd: Path, exit_code: int) -> str:
    """What a command prints, which must leave with that code."""
    words = [sys.executable, "-m", *shlex.split(command)]
    said = subprocess.run(words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert said.returncode == exit_code, said.stdout + said.stderr
    return said.stdout
