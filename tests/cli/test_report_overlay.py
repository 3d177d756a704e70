"""``probe report`` over a model: node data for Model Explorer, a copy with metadata, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import probe as library
from probe.api.overlays import annotate, overlay
from probe.errors import InputError
from probe.results.json import load, save
from probe.results.publish import examples
from tests.cli.program import probe
from tests.cli.test_startup import HEAVY, modules_after
from tests.model import builders as b
from tests.model import ort


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m.onnx`` with unnamed nodes, ``run.json`` and ``find.json`` of it, ``other.onnx``, and the example results."""
    made = tmp_path_factory.mktemp("overlay")
    unnamed = b.mlp()
    for node in unnamed.graph.node[1:]:
        node.name = ""
    b.save(unnamed, made / "m.onnx")
    b.save(b.if_else(), made / "other.onnx")
    save(library.run(made / "m.onnx", precision="fp16"), made / "run.json")
    save(library.find(made / "m.onnx", precision="fp16"), made / "find.json")
    for name in ("bench", "diff"):
        save(examples()[name], made / f"{name}.json")
    return made


def test_an_overlay_is_a_folder_of_files_a_measure(folder: Path, tmp_path: Path) -> None:
    done = probe("report", folder / "run.json", "--format", "overlay", "-o", "over", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    written = sorted(one.name for one in (tmp_path / "over").iterdir())
    assert {"accumulated.json", "local.json", "precision.json", "tactic.json"} <= set(written)
    assert [f"wrote over/{name}" in done.stdout for name in written] == [True] * len(written)
    assert "nodes are without a name, or inside a body: found only with --model MODEL.onnx" in done.stdout
    assert overlay(folder / "run.json", tmp_path / "over").paths, "written again where it was"
    assert tmp_path / "latency_us.json" in overlay(folder / "bench.json", tmp_path).paths


def test_with_the_model_nodes_are_called_as_the_viewer_calls_them(folder: Path, tmp_path: Path) -> None:
    words = ("--format", "overlay", "-o", "over", "--model", folder / "m.onnx")
    done = probe("report", folder / "run.json", *words, cwd=tmp_path)
    assert done.returncode == 0 and "without a name" not in done.stdout
    (graph,) = json.loads((tmp_path / "over" / "precision.json").read_text()).values()
    assert "node" in graph["results"], "the id of the first node without a name"


def test_a_copy_of_the_model_says_it_at_its_nodes_and_computes_the_same(folder: Path, tmp_path: Path) -> None:
    for result, key in (("run.json", "probe.accumulated"), ("find.json", None)):
        done = probe("report", folder / result, "--model", folder / "m.onnx", "-o", f"{result}.onnx", cwd=tmp_path)
        assert done.returncode == 0 and f"wrote {result}.onnx: metadata at " in done.stdout
        copy = onnx.load(tmp_path / f"{result}.onnx")
        onnx.checker.check_model(copy)
        if key:
            assert all(key in {entry.key for entry in node.metadata_props} for node in copy.graph.node)
        assert {e.key: e.value for e in copy.metadata_props}["probe.precision"] == "fp16"
        feeds = {copy.graph.input[0].name: np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}
        one, other = (ort.run(str(path), feeds) for path in (folder / "m.onnx", tmp_path / f"{result}.onnx"))
        assert all(ort.same_bits(one[name], other[name]) for name in one)
    done = probe("report", "run.json", "-o", tmp_path / "here.onnx", cwd=folder)
    assert done.returncode == 0, "the model is found where the result says it is"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run.json", "-o", "x.onnx", "--model", "other.onnx"), "this is not the model of the result"),
        (("run.json", "run.json", "--format", "overlay"), "2 results cannot be laid over one model"),
        (("run.json", "--format", "onnx", "--model", "m.onnx"), "needs a name"),
        (("run.json", "--model", "m.onnx"), "--model belongs to overlays"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    words: tuple[str, ...], said: str, folder: Path, tmp_path: Path
) -> None:
    given = [folder / word if word.endswith((".json", "m.onnx", "other.onnx")) else word for word in words]
    done = probe("report", *given, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and not done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("result", "model", "said"),
    [
        ("run.json", "other.onnx", "this is not the model of the result"),
        ("run.json", "gone.onnx", "no such file"),
        ("diff.json", "m.onnx", "a probe.diff/1 says nothing of single nodes"),
        ("gone.json", "m.onnx", "cannot read the result"),
    ],
)
def test_the_library_refuses_the_same(result: str, model: str, said: str, folder: Path, tmp_path: Path) -> None:
    for write in (lambda: overlay(folder / result, tmp_path / "o", folder / model),
                  lambda: annotate(folder / result, tmp_path / "x.onnx", folder / model)):  # fmt: skip
        with pytest.raises(InputError, match=said):
            write()
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_not_there_and_results_of_no_model(folder: Path, tmp_path: Path) -> None:
    run = load(folder / "run.json")
    with pytest.raises(InputError, match="the model of the result is not at gone"):
        annotate(replace(run, model="gone"), tmp_path / "x.onnx")
    with pytest.raises(InputError, match="does not say which model"):
        annotate(replace(run, model_sha256=""), tmp_path / "x.onnx", folder / "m.onnx")
    with pytest.raises(InputError, match="cannot make the folder"):
        overlay(run, tmp_path / "no" / "where")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        overlay(run, tmp_path / "file")


def test_an_overlay_without_the_model_loads_no_onnx(folder: Path, tmp_path: Path) -> None:
    code, modules = modules_after(
        "report", str(folder / "run.json"), "--format", "overlay", "-o", str(tmp_path / "o"), cwd=folder
    )
    assert code == 0 and modules.isdisjoint(HEAVY), sorted(modules & {*HEAVY})
