"""The sound files that are damaged: recordings of every format, saved results, models. Small, so that most bytes matter."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from probe import api
from probe.results.json import save
from probe.results.tensors import InputInfo, RunHeader, TensorInfo
from probe.store.feeds import hash_feeds
from probe.store.writer import DumpWriter
from tests.store.polygraphy_files import save_inputs, save_outputs

REAL_MODELS = ("mnist", "occ_image_classifier32", "superres_core", "ultraface_slim_320_qdq", "gtcrn_simple")
LARGEST = 600_000  # bytes of a real model


def tensors(seed: int) -> dict[str, Any]:
    """Outputs and tensors inside a network, of types that metrics treat differently; no two elements equal where that is possible."""
    rng = np.random.default_rng(seed)
    return {
        "logits": rng.standard_normal((2, 10)).astype(np.float32),
        "half": rng.standard_normal((3, 4)).astype(np.float16),
        "brain": rng.standard_normal((2, 2, 3)).astype(ml_dtypes.bfloat16),
        "ids": rng.integers(-1000, 1000, (5,)),
        "bytes": rng.integers(0, 255, (2, 3), np.uint8),
        "flags": rng.integers(0, 2, (7,)).astype(bool),
        "words": np.array(["cat", "dög", ""], object),
        "double": rng.standard_normal(()),
        "eight": rng.standard_normal((4,)).astype(ml_dtypes.float8_e4m3fn),
        "none": np.zeros((0, 3), np.float32),
        "image": rng.standard_normal((1, 3, 4, 4)).astype(np.float32),
        "mixed": np.array([1.0, np.nan, np.inf, -np.inf, 0.0, -0.0, 3e-40], np.float32),
        "a/b:0 é": rng.standard_normal((2, 3)),
    }


_INSIDE = ("half", "image", "a/b:0 é")


def dump(path: Path, *, stats_only: bool = False) -> Path:
    """Two inputs; tensors inside with nodes and reads; a tensor that did not run."""
    feeds = {
        one: {"x": np.random.default_rng(k).standard_normal((2, 3)).astype(np.float32)}
        for k, one in enumerate(("cat", "dog"))
    }
    inputs = tuple(InputInfo(one, hash_feeds(feed), f"file {one}.npz") for one, feed in feeds.items())
    header = RunHeader(
        runner="ort", model="m.onnx", precision="fp32", inputs=inputs, environment={"numpy": "2"}, notes=("a note",)
    )
    with DumpWriter(path, header, stats_only=stats_only) as writer:
        for k, (one, feed) in enumerate(feeds.items()):
            writer.add(TensorInfo("x", "", (), input_id=one, role="input"), feed["x"])
            for name, array in tensors(k).items():
                role = "internal" if name in _INSIDE else "output"
                info = TensorInfo(
                    name, "", (), input_id=one, role=role, nodes=(f"node {name}",), reads=("x",), step=0.1
                )
                writer.add(info, np.asarray(array))
            writer.add(
                TensorInfo("else", "float32", (2,), input_id=one, status="not_run", note="the other branch ran"), None
            )
    return path


def simple_dump(path: Path, *, stats_only: bool = False) -> Path:
    """One unnamed input, one output, one tensor inside."""
    with DumpWriter(path, RunHeader(), stats_only=stats_only) as writer:
        for name, role in (("inside", "internal"), ("y", "output")):
            writer.add(TensorInfo(name, "", (), role=role), tensors(1)["logits"])  # pyright: ignore[reportArgumentType]
    return path


def plain(names: str) -> dict[str, Any]:
    return {name: tensors(3)[name] for name in names.split()}


def npz(path: Path, *, roles: bool, compressed: bool = False) -> Path:
    arrays = plain("logits half ids bytes flags double none image mixed")
    arrays["words"] = np.array(["cat", "dög"])
    keys = {(f"out/{key}" if roles else key): value for key, value in arrays.items()} | (
        {"in/x": np.ones((2, 3))} if roles else {}
    )
    (np.savez_compressed if compressed else np.savez)(path, **keys)  # pyright: ignore[reportArgumentType]
    return path


def npy_folder(path: Path) -> Path:
    path.mkdir()
    for name, array in plain("logits half ids flags image mixed").items():
        np.save(path / f"{name}.npy", array)
    return path


def safetensors(path: Path) -> Path:
    from safetensors.numpy import save_file

    save_file(plain("logits half brain ids bytes flags image none mixed"), path, {"made": "by a test"})
    return path


def polygraphy(path: Path) -> Path:
    outputs = plain("logits half ids flags mixed image")
    return save_outputs(path, {"ort": [{**outputs, "double": tensors(k)["double"]} for k in range(2)]})


def polygraphy_inputs(path: Path) -> Path:
    return save_inputs(path, [{"x": tensors(k)["logits"], "ids": tensors(k)["ids"]} for k in range(2)])


def results(folder: Path) -> Iterator[Path]:
    """One saved file of every kind: diffs that fail and pass, a regression, an inspection. The same bytes every time: no times, no paths."""
    from dataclasses import replace

    from probe.compare.regression import diff_results
    from probe.debug.inspect import describe_dump, inspect_recording

    golden = {key: value for key, value in tensors(1).items() if key in ("logits", "ids", "image", "mixed")}
    noise = np.random.default_rng(5).standard_normal((2, 10)).astype(np.float32)
    near = {**golden, "logits": golden["logits"] + 1e-5 * noise}
    far = {**golden, "logits": golden["logits"] + 0.5 * noise, "mixed": golden["mixed"][::-1]}
    passed, failed = api.diff(near, golden), api.diff(far, golden, smallest_tolerance=True)
    passed, failed = replace(passed, seconds=0.0), replace(failed, seconds=0.0)
    inspection = inspect_recording(dump(folder / "inspected"), values=2)
    assert inspection.recording is not None
    made = {
        "passed": passed, "failed": failed, "regression": diff_results(passed, failed),
        "inspect": replace(inspection, recording=replace(inspection.recording, path="d")),
        "dump": replace(describe_dump(folder / "inspected"), path="d"),
    }  # fmt: skip
    for name, result in made.items():
        save(result, folder / f"{name}.json")
        yield folder / f"{name}.json"


SMALL_MODELS = (
    "mlp old_ir omitted_inputs sequence strings local_function qdq if_else nested_if loop growing_loop if_in_loop loop_in_if scan half "
    "optional_input map_output"
).split()


def small_models(folder: Path) -> Iterator[Path]:
    from tests.model import builders

    for name in SMALL_MODELS:
        yield builders.save(getattr(builders, name)(), folder / f"{name}.onnx")
    (folder / "external").mkdir()
    yield builders.external(folder / "external")


def real_models() -> dict[str, Path]:
    """Public models of at most 600 KB, where they are present."""
    root = Path(os.environ.get("PROBE_MODELS") or Path(__file__).resolve().parents[3] / "shared" / "models")
    found = {name: root / "models" / f"{name}.onnx" for name in REAL_MODELS}
    return {name: path for name, path in found.items() if path.is_file() and path.stat().st_size <= LARGEST}


def reseal(path: Path, lines: list[bytes]) -> None:
    """Write a manifest whose own hash and count are right again, so that only what its rows say can be wrong."""
    import hashlib

    body = b"".join(lines)
    end = {"kind": "end", "tensors": len(lines) - 1, "sha256": hashlib.sha256(body).hexdigest()}
    (path / "manifest.jsonl").write_bytes(body + json.dumps(end).encode() + b"\n")
