"""The demonstration does what it says: one planted fault, in one node, found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import probe
from probe import demo


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> demo.Demo:
    return demo.run_demo(tmp_path_factory.mktemp("demo") / "here")


def test_the_fault_is_found_by_name(done: demo.Demo) -> None:
    assert done
    assert done.result.verdict == "failed"
    assert done.result.first_divergence == (demo.FAULTY_TENSOR,)
    (guilty,) = [tensor for tensor in done.result.tensors if tensor.name == demo.FAULTY_TENSOR]
    assert guilty.nodes == (demo.FAULTY_NODE,)


def test_the_fault_is_the_one_described(done: demo.Demo) -> None:
    """Finite and right before the node, infinite after it, finite and wrong at the output; the true mean would have fitted FP16."""
    with (
        probe.open_recording(done.folder / demo.GOLDEN) as golden,
        probe.open_recording(done.folder / demo.ENGINE) as engine,
    ):
        mean, faulty = golden[demo.FAULTY_TENSOR], engine[demo.FAULTY_TENSOR]
        squares = golden.info(demo.FAULTY_TENSOR).reads[0]
        assert np.array_equal(golden[squares], engine[squares])
        assert np.isfinite(mean).all() and mean.max() < 65504
        overflows = golden[squares].sum(-1, keepdims=True) >= 65520  # what rounds to infinity in FP16
        assert np.array_equal(np.isinf(faulty), overflows)
        assert 0 < overflows.sum() < overflows.size, "some tokens survive: the fault depends on data, as real ones do"
        assert np.isfinite(engine["logits"]).all()
        assert not np.allclose(engine["logits"], golden["logits"], rtol=0.1, atol=0.1)


def test_both_models_have_the_same_names() -> None:
    import onnx

    golden, engine = (onnx.load_from_string(build()) for build in (demo.build_demo_model, demo.build_faulty_model))
    onnx.checker.check_model(golden, full_check=True)
    onnx.checker.check_model(engine)
    assert [node.name for node in golden.graph.node] == [node.name for node in engine.graph.node]
    assert [node.output for node in golden.graph.node] == [node.output for node in engine.graph.node]
    assert [node.name for node, other in zip(golden.graph.node, engine.graph.node, strict=True) if node != other] == [
        demo.FAULTY_NODE
    ]


def test_it_can_be_run_again(done: demo.Demo) -> None:
    assert demo.run_demo(done.folder)


def test_it_leaves_alone_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"somebody's model")
    with pytest.raises(probe.InputError, match="not the demo's"):
        demo.run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"somebody's model"


def test_a_file_in_its_place_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(probe.InputError):
        demo.run_demo(tmp_path / "demo")


def test_the_commands_it_shows_do_the_same(tmp_path: Path, done: demo.Demo) -> None:
    import shlex
    import subprocess
    import sys

    (tmp_path / demo.MODEL_FILE).write_bytes(demo.build_demo_model())
    (tmp_path / demo.ENGINE_FILE).write_bytes(demo.build_faulty_model())
    for command in done.commands:
        said = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={"PYTHONPATH": str(Path(probe.__file__).parents[1])},
        )  # fmt: skip
        assert said.returncode == (1 if command == done.commands[-1] else 0), said.stderr
    assert demo.FAULTY_NODE in said.stdout
