"""External data: checked, never read on loading, and never from outside the model's folder."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from probe.errors import InputError
from probe.model import load
from probe.model.expose import expose
from tests.model import builders as b
from tests.model import ort


def saved(folder: Path, entries: dict[str, str], elements: int = 4) -> Path:
    return b.save(b.external_model(elements, entries), folder / "model.onnx")


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load(path)
    return caught.value


@pytest.fixture
def folder(tmp_path):
    """A folder with weights.bin (16 bytes), inside another that holds secret.bin."""
    inner = tmp_path / "model"
    inner.mkdir()
    (inner / "weights.bin").write_bytes(bytes(16))
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    return inner


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"location": "gone.bin"}, "no such file"),
        ({}, "names no file"),
        ({"location": ""}, "names no file"),
        ({"location": "a\0b"}, "names no file"),
        ({"location": "."}, "not a file"),
        ({"location": "../secret.bin"}, "leaves the model's folder"),
        ({"location": "sub/../../secret.bin"}, "leaves the model's folder"),
        ({"location": "sub\\..\\..\\secret.bin"}, "leaves the model's folder"),
        ({"location": "/etc/passwd"}, "absolute path"),
        ({"location": "C:\\secret.bin"}, "absolute path"),
        ({"location": "\\\\server\\share"}, "absolute path"),
        ({"location": "weights.bin", "offset": "4"}, "too short"),
        ({"location": "weights.bin", "offset": "1000000000000000000"}, "too short"),
        ({"location": "weights.bin", "offset": "-4"}, "'-4', which is not a number"),
        ({"location": "weights.bin", "offset": "0x10"}, "not a number"),
        ({"location": "weights.bin", "length": "-16"}, "not a number"),
        ({"location": "weights.bin", "length": "1e3"}, "not a number"),
        ({"location": "weights.bin", "length": "9" * 5000}, "not a number"),
        ({"location": "weights.bin", "length": "12"}, "12 bytes of data, its type and shape need 16"),
        ({"location": "weights.bin", "length": "20"}, "20 bytes of data"),
    ],
)
def test_bad_references(folder, entries, what):
    path = saved(folder, entries)
    error = refused(path)
    assert what in error.what
    assert "'w'" in error.what
    assert str(path) in error.where


@pytest.mark.parametrize("entries", [{}, {"length": "16"}, {"offset": "0", "length": "16"}, {"offset": "0"}])
def test_offset_and_length_may_be_left_out(folder, entries):
    assert load(saved(folder, {"location": "weights.bin", **entries})).external_files == (folder / "weights.bin",)


def test_symbolic_links_that_leave_the_folder_are_refused(folder):
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    assert "symbolic link" in refused(saved(folder, {"location": "link.bin"})).what
    (folder / "up").symlink_to(folder.parent)
    assert "symbolic link" in refused(saved(folder, {"location": "up/secret.bin"})).what


def test_symbolic_links_inside_the_folder_and_to_it_are_fine(folder):
    (folder / "link.bin").symlink_to(folder / "weights.bin")
    path = saved(folder, {"location": "link.bin"})
    assert load(path)
    (folder.parent / "alias").symlink_to(folder)
    assert load(folder.parent / "alias" / path.name)


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    assert "not a file" in refused(saved(folder, {"location": "pipe"})).what


def test_data_shorter_than_declared(folder):
    path = b.external(folder, elements=1000)
    with (folder / "weights.bin").open("r+b") as file:
        file.truncate(4063)
    error = refused(path)
    assert "needs bytes 64 to 4064, weights.bin has 4063" in error.what
    assert "truncated" in error.hint


@pytest.mark.parametrize("location", ["weights.bin", "sub folder/weights.bin"])
def test_exposed_models_run_with_external_data(tmp_path, monkeypatch, location):
    model = load(b.external(tmp_path, location=location))
    monkeypatch.chdir("/")  # data is found from anywhere
    x = np.ones(4096, np.float32)
    values, _, _ = ort.run_exposed(expose(model), {"x": x})
    assert np.array_equal(values["y"], x + np.arange(4096))


@pytest.mark.parametrize(
    ("op", "array", "attributes", "shape"),
    [
        ("Reshape", np.array([3, 2]), {}, (3, 2)),
        ("Expand", np.array([4, 2, 3]), {}, (4, 2, 3)),
        ("Tile", np.array([2, 2]), {}, (4, 6)),
        ("Pad", np.array([1, 0, 0, 1]), {}, (3, 4)),
        ("Unsqueeze", np.array([0]), {}, (1, 2, 3)),
        ("ReduceSum", np.array([1]), {}, (2, 1)),
        ("Split", np.array([1, 1]), {"axis": 0}, (1, 3)),
    ],
)
def test_shape_inference_does_without_external_constants(tmp_path, op, array, attributes, shape):
    """Some exporters put even a Reshape target into the data file. ONNX Runtime refuses the file; exposed, it runs."""
    (tmp_path / "weights.bin").write_bytes(array.astype(np.int64).tobytes())
    tensor = onnx.TensorProto(name="c", data_type=b.INT64, dims=array.shape, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    outputs = ["y", "y2"] if op == "Split" else ["y"]
    proto = b.model([b.node(op, ["x", "c"], outputs, **attributes)], [b.value("x")], [b.untyped("y")], [tensor])
    model = load(b.save(proto, tmp_path / "model.onnx"))
    assert len(model.notes) == 1
    assert model.external_files == (tmp_path / "weights.bin",)
    assert (model.outputs[0].dtype, model.outputs[0].shape) == ("float32", shape)
    with pytest.raises(Exception, match="external"):
        ort.session(str(model.path))
    values, _, _ = ort.run_exposed(expose(model), {"x": np.ones((2, 3), np.float32)})
    assert np.shape(values["y"]) == shape


_BIG = """
import resource, sys, time
from probe.model import load
from probe.model.expose import expose
import onnx
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
model = load(sys.argv[1])
exposure = expose(model)
model.ir
seconds = time.perf_counter() - began
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, len(exposure.model_bytes))
"""


def test_a_model_of_5_gb_loads_in_little_time_and_memory(tmp_path):
    count, elements = 20, 64 * 1024 * 1024  # 20 weights of 256 MB, in a sparse file that takes no room
    names = [f"w{i}" for i in range(count)]
    proto = b.model(
        [b.node("Add", [f"a{i}" if i else "x", name], [f"a{i + 1}"], name=f"add{i}") for i, name in enumerate(names)],
        [b.value("x", (elements,))],
        [b.value(f"a{count}", (elements,))],
    )
    size = elements * 4
    for i, name in enumerate(names):
        tensor = b.external_model(
            elements, {"location": "big.bin", "offset": str(i * size), "length": str(size)}
        ).graph.initializer[0]
        tensor.name = name
        proto.graph.initializer.append(tensor)
    path = b.save(proto, tmp_path / "model.onnx")
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(count * size)
    done = subprocess.run([sys.executable, "-c", _BIG, str(path)], capture_output=True, text=True, check=True)
    seconds, megabytes, bytes_exposed = map(float, done.stdout.split())
    assert seconds < 5  # milliseconds, and the import of onnx-ir
    assert megabytes < 300  # of which onnx-ir and what it imports take most
    assert bytes_exposed < 100_000
    with (tmp_path / "big.bin").open("r+b") as file:
        file.truncate(count * size - 1)
    assert "too short" in refused(path).what


def test_a_model_of_100_mb_loads_in_little_time_and_memory(tmp_path):
    proto = b.mlp()
    proto.graph.initializer.append(b.weight("unused", np.ones(25_000_000, np.float32)))
    path = b.save(proto, tmp_path / "model.onnx")
    load(path)
    del proto
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    load(path)
    assert time.perf_counter() - began < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20 * 1024  # KiB
