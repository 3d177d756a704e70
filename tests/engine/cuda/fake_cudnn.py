"""``Fake``: what we call of cuDNN's frontend, on memory of the host: graphs of a convolution, bias and Relu, plans of four engines."""

from __future__ import annotations

import ctypes
from enum import IntEnum

import ml_dtypes
import numpy as np

VERSION = 91900
# engine -> knobs, notes
PLANS = (
    (11, {2: 0, 6: 1}, {"TENSOR_CORE"}),
    (5, {}, {"WINOGRAD", "WINOGRAD_TILE_6x6"}),
    (1, {6: 2}, {"NONDETERMINISTIC"}),
    (0, {}, set()),
)


class cudnnGraphNotSupportedError(Exception):  # noqa: N801 - its name there
    pass


class Node:
    def __init__(self, **facts) -> None:
        self.facts, self.uid = facts, facts.get("uid", 0)

    def set_output(self, value: bool) -> Node:
        return self

    def set_dim(self, dim: list[int]) -> Node:
        self.facts["dim"] = dim
        return self

    def set_stride(self, stride: list[int]) -> Node:
        self.facts["stride"] = stride
        return self

    def set_data_type(self, data_type: np.dtype) -> Node:
        self.facts["data_type"] = data_type
        return self

    def set_uid(self, uid: int) -> Node:
        self.uid = uid
        return self


class Graph:
    def __init__(self, fake: Fake, **types) -> None:
        assert types["intermediate_data_type"] == types["compute_data_type"] == np.float32
        self.fake, self.plans, self.barred, self.nodes = fake, [], set(), []

    def tensor(self, **facts) -> Node:
        return Node(**facts)

    def _next(self, **facts) -> Node:
        self.nodes.append(Node(**facts))
        return self.nodes[-1]

    def conv_fprop(self, *, stride: list[int], **facts) -> Node:
        return self._next(op="conv", steps=stride, **facts)

    def bias(self, **facts) -> Node:
        return self._next(op="bias", **facts)

    def add(self, **facts) -> Node:
        return self._next(op="add", **facts)

    def relu(self, **facts) -> Node:
        return self._next(op="relu", **facts)

    def validate(self) -> None:
        pass

    build_operation_graph = validate

    def create_execution_plans(self, modes) -> None:
        self.fake.asked += 1
        self.plans += PLANS

    def create_execution_plan(self, engine: int, knobs: dict[int, int]) -> None:
        known = [one for one in PLANS if one[:2] == (engine, dict(knobs))]
        if not known:
            raise cudnnGraphNotSupportedError("no such engine")
        self.plans += known

    def select_numeric_notes(self, notes) -> None:
        self.barred |= {at for at, one in enumerate(self.plans) if notes[0].name not in one[2]}

    def deselect_numeric_notes(self, notes) -> None:
        self.barred |= {at for at, one in enumerate(self.plans) if notes[0].name in one[2]}

    def get_execution_plan_count(self) -> int:
        return len(self.plans)

    def get_engine_and_knobs_at_index(self, at: int):
        return self.plans[at][0], self.plans[at][1]

    def get_behavior_notes_for_plan_at_index(self, at: int) -> list[IntEnum]:
        return [Fake.behavior_note["RUNTIME_COMPILATION"]] if self.plans[at][0] == 5 else []

    def build_plan_at_index(self, at: int) -> None:
        if at in self.barred:
            raise cudnnGraphNotSupportedError("deselected")

    def get_workspace_size_plan_at_index(self, at: int) -> int:
        return 64 * self.plans[at][0]

    def execute_plan_at_index(self, given: dict[int, int], workspace: int, at: int, handle: object) -> None:
        ctypes.memset(workspace, 0x77, self.get_workspace_size_plan_at_index(at))
        values: dict[int, np.ndarray] = {}

        def view(one: Node) -> np.ndarray:
            dim, stride, kind = one.facts["dim"], one.facts["stride"], one.facts["data_type"]
            span = 1 + sum((n - 1) * s for n, s in zip(dim, stride, strict=True))
            flat = np.frombuffer((ctypes.c_ubyte * (span * kind.itemsize)).from_address(given[one.uid]), kind)
            return np.lib.stride_tricks.as_strided(flat, dim, [s * kind.itemsize for s in stride])

        def value(one: Node) -> np.ndarray:
            return values[id(one)] if id(one) in values else view(one).astype(np.float32)

        for one in self.nodes:
            facts = one.facts
            if facts["op"] == "conv":
                values[id(one)] = convolved(value(facts["image"]), value(facts["weight"]), facts)
            elif facts["op"] == "bias":
                values[id(one)] = value(facts["input"]) + value(facts["bias"])
            elif facts["op"] == "add":
                values[id(one)] = value(facts["a"]) + value(facts["b"])
            else:
                values[id(one)] = np.maximum(value(facts["input"]), 0)
        view(self.nodes[-1])[...] = values[id(self.nodes[-1])]
        self.fake.calls.append((self.plans[at][0], self.fake.stream))


def convolved(x: np.ndarray, w: np.ndarray, facts: dict) -> np.ndarray:
    (top, left), (bottom, right) = facts["pre_padding"], facts["post_padding"]
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    groups = x.shape[1] // w.shape[1]
    (down, across), (dy, dx) = facts["steps"], facts["dilation"]
    rows = (x.shape[2] - (w.shape[2] - 1) * dy - 1) // down + 1
    cols = (x.shape[3] - (w.shape[3] - 1) * dx - 1) // across + 1
    y = np.zeros((x.shape[0], w.shape[0], rows, cols), np.float32)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            seen = x[:, :, i * dy :: down, j * dx :: across][:, :, :rows, :cols]
            seen = seen.reshape(len(x), groups, -1, rows, cols)
            own = w[:, :, i, j].reshape(groups, -1, w.shape[1])
            y += np.einsum("ngchw,goc->ngohw", seen, own).reshape(y.shape)
    return y


class Fake:
    cudnnGraphNotSupportedError = cudnnGraphNotSupportedError  # noqa: N815 - its name there
    numerical_note = IntEnum("numerical_note", "TENSOR_CORE WINOGRAD WINOGRAD_TILE_6x6 NONDETERMINISTIC FFT")
    heur_mode = IntEnum("heur_mode", "A FALLBACK")
    behavior_note = IntEnum("behavior_note", "RUNTIME_COMPILATION SUPPORTS_CUDA_GRAPH_NATIVE_API")
    knob_type = int

    class data_type:  # noqa: N801 - its name there
        FLOAT, HALF, BFLOAT16 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.stream, self.asked = -1, 0

    def backend_version(self) -> int:
        return VERSION

    def create_handle(self) -> object:
        return self

    def set_stream(self, handle: object, stream: int) -> None:
        self.stream = stream

    def pygraph(self, handle: object, **types) -> Graph:
        return Graph(self, **types)
