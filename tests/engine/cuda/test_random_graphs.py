"""Models drawn by seeds, on every device; by hand thousands of them: ``python -m tests.engine.random_graphs``."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.device.protocol import Tapped
from tests.engine.random_graphs.drawing import drawn
from tests.engine.random_graphs.judge import Failed, Mode, check
from tests.engine.random_graphs.runs import Check, Hopper, checks_of, fault
from tests.engine.random_graphs.shrink import shrunk

SMALL = range(1000, 1004)  # on the host, where g++ takes a fifth of a second for a kernel
MANY = range(12)


def small(seed: int) -> Any:
    """The first model from a seed on that has few nodes."""
    return next(one for one in map(drawn, range(seed * 100, seed * 100 + 100)) if 4 <= len(one.model.graph.node) <= 9)


@pytest.mark.parametrize("seed", MANY)
@pytest.mark.parametrize("passes", ["none", "safe", "all"])
def test_beside_onnx_runtime(tmp_path, seed, passes):
    model = drawn(seed)
    if found := fault(Check(passes=passes), model.model, model.feeds, None, tmp_path / "m.onnx"):
        raise found


@pytest.mark.parametrize("seed", SMALL)
def test_on_the_host(tmp_path, request, host, seed):
    model = small(seed)
    (one,) = checks_of(model.seed, "host", 1)
    backends = (host, Hopper(request.config.cache.mkdir("kernels-hopper")))
    if found := fault(one, model.model, model.feeds, backends, tmp_path / "m.onnx"):
        raise found


@pytest.mark.gpu
@pytest.mark.parametrize("seed", MANY)
def test_on_a_gpu(tmp_path, gpu, seed):
    model = drawn(seed)
    for one in checks_of(seed, "gpu", 2):
        if found := fault(one, model.model, model.feeds, gpu, tmp_path / "m.onnx"):
            raise found


def test_a_seed_is_a_model():
    for seed in (3, 8):
        first, second = drawn(seed), drawn(seed)
        assert first.model.SerializeToString() == second.model.SerializeToString()
        assert all(np.array_equal(first.feeds[name], array) for name, array in second.feeds.items())


class Wrong:
    """A device that adds a little to one element of one tensor, in a way of its own."""

    def __init__(self, device: Any, tensor: str, *, looked_at: bool) -> None:
        self._device, self._tensor, self._looked_at, self.name = device, tensor, looked_at, device.name

    def run(self, feeds: Any, plans: Any) -> Any:
        return self._device.run(feeds, plans)

    def stream(self, feeds: Any, plans: Any, *, interior: bool) -> Generator[Tapped, None, Any]:
        running = self._device.stream(feeds, plans, interior=interior)
        while True:
            try:
                tapped = next(running)
            except StopIteration as done:
                made = done.value
                break
            if tapped.name == self._tensor:
                array = np.array(tapped.array)
                array.reshape(-1)[-1] *= 1.05
                tapped = Tapped(tapped.name, array, tapped.layer, tapped.choice)
            yield tapped
        if self._looked_at:
            made = {name: array + 1 for name, array in made.items()}
        return made


TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[3,8] x, float[8,8] w) => (float[3,8] y)
{ a = MatMul (x, w)  b = Relu (a)  c = Exp (b)  d = Softmax (c)  y = Mul (d, x) }"""
FEEDS = {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8), "w": np.eye(8, dtype=np.float32)[::-1].copy()}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "mixed"])
@pytest.mark.parametrize("tensor", ["a", "c", "d"])
def test_one_element_that_is_off_is_found(tmp_path, precision, tensor):
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), path)
    mode = Mode(precision, fusion="none", chance=1)
    check(path, FEEDS, mode, lambda engine: engine.device)
    with pytest.raises(Failed, match=f"far: {tensor}"):
        check(path, FEEDS, mode, lambda engine: Wrong(engine.device, tensor, looked_at=False))
    with pytest.raises(Failed, match="tapped: y: other bits"):
        check(path, FEEDS, mode, lambda engine: Wrong(engine.device, tensor, looked_at=True))


def test_what_fails_becomes_small():
    model = onnx.parser.parse_model(TEXT)
    small, feeds = shrunk(model, FEEDS, lambda one, _: any(node.op_type == "Softmax" for node in one.graph.node))
    assert [node.op_type for node in small.graph.node] == ["Softmax"]
    onnx.checker.check_model(small, full_check=True)
    assert list(feeds) == ["c"] and np.allclose(feeds["c"], np.exp(np.maximum(FEEDS["x"] @ FEEDS["w"], 0)))


def test_tf32_of_a_single_row_of_weights(tmp_path, request, host):
    """[1, 1] times [1, 65]: turned, both strides of the weights are 1, and the kernel read them along the wrong axis."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,1] x) => (float[1,65] y) { y = MatMul (x, w) }'
    )
    weights = np.linspace(-1, 1, 65, dtype=np.float32).reshape(1, 65)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    backends = (host, Hopper(request.config.cache.mkdir("kernels-hopper")))
    mode = Mode("tf32", hopper=True)
    if found := fault(Check(mode=mode), model, {"x": np.ones((1, 1), np.float32)}, backends, tmp_path / "m.onnx"):
        raise found
