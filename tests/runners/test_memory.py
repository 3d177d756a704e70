"""Staying within memory: what the system leaves, how tensors are cut into parts, and that parts change no value."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.model import load
from probe.runners.memory import _group_available, available_bytes, chunks, peak_of_live_tensors, resident_bytes
from probe.runners.ort import OrtRunner
from probe.runners.protocol import RunnerOptions
from tests.model import builders as b

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(-10, 200))
def test_parts_keep_the_order_and_the_budget(sizes, budget):
    names = [str(i) for i in range(len(sizes))]
    parts = chunks(names, dict(zip(names, sizes, strict=True)), budget)
    assert [name for part in parts for name in part] == names
    for part in parts:
        assert part and (sum(sizes[int(name)] for name in part) <= budget or len(part) == 1)


@pytest.mark.parametrize(
    ("order", "peak"),
    [
        ([], 0),
        ([(["a"], []), (["b"], ["a"]), (["c"], ["b"])], 20),  # a chain: two at a time
        ([(["a"], []), (["b"], ["a"]), (["c"], ["b"]), (["d"], ["a", "c"])], 30),  # a skip keeps a alive
        ([(["a"], []), (["b"], []), (["c"], [])], 10),  # nobody reads: gone at once
    ],
)
def test_live_tensors(order, peak):
    assert peak_of_live_tensors(order, dict.fromkeys("abcd", 10)) == peak


def test_control_groups(tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    leaf = root / "a" / "b"
    leaf.mkdir(parents=True)
    own.write_text("0::/a/b\n")
    (leaf / "memory.max").write_text("max\n")
    (leaf / "memory.current").write_text("700\n")
    assert _group_available(root, own) == 1 << 60
    (root / "a" / "memory.max").write_text("1000\n")
    (root / "a" / "memory.current").write_text("900\n")
    (root / "a" / "memory.stat").write_text("anon 5\ninactive_file 50\n")
    assert _group_available(root, own) == 150  # the group around it limits, page cache is given back
    (leaf / "memory.max").write_text("760\n")
    assert _group_available(root, own) == 60
    own.write_text("0::/somewhere/of/the/host\n")
    (root / "memory.max").write_text("500\n")
    (root / "memory.current").write_text("100\n")
    assert _group_available(root, own) == 400
    own.write_text("5:cpu,memory:/v1\n3:cpuset:/x\n")
    (root / "memory" / "v1").mkdir(parents=True)
    (root / "memory" / "v1" / "memory.limit_in_bytes").write_text("300")
    (root / "memory" / "v1" / "memory.usage_in_bytes").write_text("100")
    assert _group_available(root, own) == 200
    assert _group_available(root, tmp_path / "none") == 1 << 60


def test_this_machine_has_memory():
    assert 0 < resident_bytes() < available_bytes() + resident_bytes()


def chain(length: int = 12, channels: int = 16, side: int = 96) -> onnx.ModelProto:
    """Convolutions one after the other, each with a Relu; a skip from the first to the last."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for i in range(length):
        weights.append(b.weight(f"w{i}", (rng.standard_normal((channels, channels, 3, 3)) / 12).astype(np.float32)))
        nodes += [b.node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1] * 4), b.node("Relu", [f"c{i}"], [f"r{i}"])]
        last = f"r{i}"
    nodes.append(b.node("Add", [last, "r0"], ["y"]))
    shape = ("batch", channels, side, side)
    return b.model(nodes, [b.value("x", shape)], [b.value("y", shape)], weights)


def recorded(model, feeds, options):
    runner = OrtRunner(model, options)
    made = [(t.info, None if t.array is None else t.array.copy()) for t in runner.run(feeds, "one")]
    return made, runner.header.notes


@pytest.mark.parametrize("case", ["chain", "branches", "loops"])
def test_parts_change_no_row_and_no_bit(tmp_path, case, monkeypatch):
    proto = {"chain": chain(side=32), "branches": b.nested_if(), "loops": b.loop()}[case]
    model = load(b.save(proto, tmp_path / "m.onnx"))
    from probe.model.inputs import make_inputs

    feeds, _ = make_inputs(model)
    whole, notes = recorded(model, feeds, RunnerOptions())
    assert not any("parts" in note for note in notes)
    monkeypatch.setattr("probe.runners.ort._MANY", 0)  # sessions are rebuilt as for a large model
    cut, notes = recorded(model, feeds, RunnerOptions(memory_limit=1))
    assert any("parts" in note for note in notes) and any("may be exceeded" in note for note in notes)
    assert [info for info, _ in cut] == [info for info, _ in whole]
    for (info, one), (_, other) in zip(whole, cut, strict=True):
        assert (one is None) == (other is None) and (one is None or one.tobytes() == other.tobytes()), info.name


@pytest.mark.parametrize("name", ["silero_vad", "gtcrn_simple", "ultraface_slim_320_qdq", "squeezenet_fp16"])
def test_parts_change_no_bit_of_public_models(models, name, monkeypatch):
    model = load(models / "models" / f"{name}.onnx")
    with np.load(models / "data" / f"{name}__main.npz") as data:
        feeds = {key[3:]: data[key] for key in data if key.startswith("in/")}
    whole, _ = recorded(model, feeds, RunnerOptions())
    # A third of what everything takes: at least three parts.
    total = sum(array.nbytes for _, array in whole if array is not None)
    monkeypatch.setattr("probe.runners.ort.OrtRunner._budget", lambda *_: total // 3)
    cut, notes = recorded(model, feeds, RunnerOptions())
    assert any("parts" in note for note in notes)
    assert [info for info, _ in cut] == [info for info, _ in whole]
    assert all(a is None or a.tobytes() == c.tobytes() for (_, a), (_, c) in zip(whole, cut, strict=True))


_MEASURE = """
import sys
sys.path.insert(0, sys.argv[4])
from probe.model import load
from probe.debug.record import collect_inputs, record
from probe.runners.ort import OrtRunner
from probe.runners.protocol import RunnerOptions
from probe.store.opening import open_sink
limit = int(sys.argv[3]) or None
model = load(sys.argv[1])
runner = OrtRunner(model, RunnerOptions(memory_limit=limit))
sets, _ = collect_inputs(model, shapes={"x": [int(n) for n in sys.argv[5].split(",")]})
with open_sink(sys.argv[2], runner.header) as sink:
    record(runner, sets, sink)
# Not ru_maxrss: it survives exec, so it would be the test runner's where that is larger.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_of(model: Path, out: Path, shape: list[int], limit: int) -> int:
    """Peak memory, in bytes, of a process that records every tensor."""
    command = [sys.executable, "-c", _MEASURE, str(model), str(out), str(limit), str(ROOT), ",".join(map(str, shape))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"}
    )
    return int(done.stdout) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("channels", "side"), [(16, 96), (256, 24)], ids=["large tensors", "large weights"])
def test_a_memory_limit_is_kept(tmp_path, channels, side):
    path = b.save(chain(channels=channels, side=side), tmp_path / "m.onnx")
    shape = [16, channels, side, side]
    tensors = 25 * int(np.prod(shape)) * 4  # 236 MB
    free = peak_of(path, tmp_path / "whole", shape, 0)
    assert free > tensors
    limit = free - tensors // 2
    assert peak_of(path, tmp_path / "cut", shape, limit) < limit
    from probe.store.dump import Dump

    cut = Dump(tmp_path / "cut")
    assert [r.sha256 for r in cut.rows()] == [r.sha256 for r in Dump(tmp_path / "whole").rows()]
    assert any("parts" in note for note in cut.header.notes) and not any(
        "exceeded" in note for note in cut.header.notes
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files")
def test_a_model_of_2_3_gb_with_every_tensor_handed_out(tmp_path):
    rows, columns = 1_123_000, 512
    big, small = rows * columns * 4, columns * columns * 4
    assert big + small > 2.3e9
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(big + small)  # a hole: no disk, no time
        file.seek(big)
        file.write(np.eye(columns, dtype=np.float32).tobytes())

    def external(name: str, dims: list[int], offset: int, length: int) -> onnx.TensorProto:
        tensor = onnx.TensorProto(name=name, data_type=1, dims=dims, data_location=onnx.TensorProto.EXTERNAL)
        for key, text in (("location", "weights.bin"), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=text)
        return tensor

    proto = b.model(
        [
            b.node("Gather", ["table", "ids"], ["found"]),
            b.node("Add", ["found", "one"], ["shifted"]),
            b.node("MatMul", ["shifted", "w"], ["mixed"]),
            b.node("Relu", ["mixed"], ["y"]),
        ],
        [b.value("ids", ("batch", "seq"), b.INT64)],
        [b.value("y", ("batch", "seq", columns))],
        [
            external("table", [rows, columns], 0, big),
            external("w", [columns, columns], big, small),
            b.weight("one", np.float32(1)),
        ],
    )
    model = load(b.save(proto, tmp_path / "m.onnx"))
    made = {
        t.info.name: t.array
        for t in OrtRunner(model, replace(RunnerOptions(), threads=1)).run({"ids": np.array([[0, rows - 1]])}, "one")
    }
    assert list(made) == ["found", "shifted", "mixed", "y"]
    assert not made["found"].any() and (made["y"] == 1).all()
