"""Where elements lie: views of views against numpy, and what reads them without moving them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from probe import ir
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.row_order import row_order
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked, has_channels_last
from probe.engine.device.cuda.tensors.copies import in_dense_order, lying_of, placed
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.lying import Lying, dense, joined, refined
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor

extents = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


def seen(lies: Lying, data: np.ndarray) -> np.ndarray:
    """What a view holds, by numpy's strides over the memory of its base."""
    parts = [part for axis in lies.axes for part in (axis or ((1, 0),))]
    shape, steps = [extent for extent, _ in parts], [step * data.itemsize for _, step in parts]
    return as_strided(data.reshape(-1)[lies.first :], shape, steps).reshape(lies.shape)


@st.composite
def views(draw) -> tuple[Lying, np.ndarray, np.ndarray]:
    """A view, the memory it lies in, and what numpy makes of the same steps."""
    shape = draw(extents)
    data = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    lies, expected = dense(Tensor(shape, F32)), data
    for _ in range(draw(st.integers(0, 5))):
        rank = expected.ndim
        step = draw(st.sampled_from(("permute", "cut", "reshape", "repeat")))
        if step == "permute":
            order = draw(st.permutations(range(rank)))
            lies, expected = lies.permuted(order), expected.transpose(order)
        elif step == "cut":
            axis = draw(st.integers(0, rank - 1))
            start = draw(st.integers(0, expected.shape[axis] - 1))
            by = draw(st.integers(1, 2))
            count = draw(st.integers(1, -(-(expected.shape[axis] - start) // by)))
            found = lies.cut(axis, start, count, by)
            if found is not None:
                index = [slice(None)] * rank
                index[axis] = slice(start, start + (count - 1) * by + 1, by)
                lies, expected = found, expected[tuple(index)]
        elif step == "repeat":
            wanted = tuple(draw(st.sampled_from((1, 3))) if extent == 1 else extent for extent in (1, *expected.shape))
            if math.prod(wanted) < 3000:
                lies, expected = lies.repeated(wanted), np.broadcast_to(expected, wanted)
        else:
            merged = draw(st.sampled_from(shapes_of(expected.shape)))
            found = lies.reshaped(merged)
            if found is not None:
                lies, expected = found, expected.reshape(merged)
    return lies, data, np.ascontiguousarray(expected)


def shapes_of(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Some shapes of as many elements."""
    size = math.prod(shape)
    splits = [(n, size // n) for n in range(1, size + 1) if size % n == 0]
    return [(size,), *splits, (*shape, 1), tuple(reversed(shape))]


@given(views())
@settings(max_examples=300)
def test_views_hold_what_numpy_says(case):
    lies, data, expected = case
    assert lies.shape == expected.shape
    np.testing.assert_array_equal(seen(lies, data), expected)
    flat = Lying(lies.base, lies.first, (lies.parts,))
    np.testing.assert_array_equal(seen(flat, data).reshape(-1), expected.reshape(-1))


@given(views())
def test_a_view_without_gaps_holds_each_element_of_a_stretch_once(case):
    lies, _, expected = case
    values = np.sort(expected.reshape(-1))
    stretch = np.array_equal(values, np.arange(values.size) + values[0])
    if lies.covers:
        assert stretch
    if lies.in_order:
        np.testing.assert_array_equal(expected.reshape(-1), np.arange(values.size) + lies.first)


@given(views(), views())
def test_refined_axes_have_one_step_each(one, other):
    shape = one[0].shape
    if other[0].shape != shape:
        other = one
    found = refined(shape, [one[0].axes, other[0].axes])
    if found is None:
        return
    pieces, own = found
    assert tuple(math.prod(axis) for axis in pieces) == shape
    for (lies, _, _), axes in zip((one, other), own, strict=True):
        assert [[extent for extent, _ in axis] for axis in axes] == pieces
        assert tuple(joined(axis) for axis in axes) == lies.axes


# --- on a device --------------------------------------------------------------------------------------------------------


def tensor_of(queue: Queue, array: np.ndarray) -> Tensor:
    made = host_tensor(array)
    made.address(queue.backend)
    return made


def values_of(queue: Queue, tensor: Tensor) -> np.ndarray:
    return tensor.array(queue.backend)


VIEWS = {
    "transposed": lambda lies: lies.permuted((1, 0, 2)),
    "columns first": lambda lies: lies.permuted((0, 2, 1)),
    "all turned": lambda lies: lies.permuted((2, 1, 0)),
    "a stretch": lambda lies: lies.cut(0, 1, 2),
    "rows in between": lambda lies: lies.cut(1, 1, 4),
    "columns from an odd one": lambda lies: lies.cut(2, 3, 5),
    "every other": lambda lies: lies.cut(2, 0, 8, 2),
    "joined": lambda lies: lies.permuted((1, 0, 2)).reshaped((18, 16)),
    "joined and split": lambda lies: lies.permuted((1, 0, 2)).reshaped((18, 16)).reshaped((6, 3, 4, 4)),
    "repeated": lambda lies: lies.cut(1, 2, 1).repeated((2, 3, 4, 16)),
}


@pytest.mark.parametrize("stored", [F32, F16], ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_views_are_read_and_moved(backend, name, stored):
    queue = Queue(backend, 18)
    data = np.random.default_rng(1).integers(-99, 99, (3, 6, 16)).astype(np.float32)
    base = queue.convert(tensor_of(queue, data), stored)
    lies = VIEWS[name](dense(base))
    expected = seen(lies, data)
    np.testing.assert_array_equal(values_of(queue, in_dense_order(queue, lies)), expected)
    row = np.arange(lies.shape[-1], dtype=np.float32)
    beside = np.random.default_rng(2).integers(-99, 99, lies.shape).astype(np.float32)
    for other in (tensor_of(queue, row), tensor_of(queue, beside), placed(queue, lies)):
        view = placed(queue, lies)
        before = queue.launches.get("copy_strided", 0) + queue.launches.get("transpose", 0)
        step = Step("y", "float", "x + 2.f * b", "", stored)
        (made,) = run_steps(queue, lies.shape, [("x", Reading(view)), ("b", Reading(other))], [step])
        moved = queue.launches.get("copy_strided", 0) + queue.launches.get("transpose", 0) - before
        assert moved == 0 or lies.axes[-1][-1][1] != 1  # read where it lies, if its rows are contiguous
        array = values_of(queue, other) if other.lies is None else expected
        np.testing.assert_array_equal(values_of(queue, made), expected + 2 * array)


def test_rows_in_the_order_of_memory(backend):
    queue = Queue(backend, 18)
    data = np.arange(3 * 6 * 16, dtype=np.float32).reshape(3, 6, 16)
    view = placed(queue, lying_of(queue, tensor_of(queue, data)).permuted((1, 0, 2)))
    rows = row_order(view)
    assert rows is not None and rows.dense.shape == (18, 16)
    np.testing.assert_array_equal(values_of(queue, rows.dense), data.reshape(18, 16))
    (made,) = run_steps(queue, (18, 16), [("x", Reading(rows.dense))], [Step("y", "float", "x * 2.f", "", F32)])
    back = rows.back(queue, made)
    assert back.shape == (6, 3, 16) and back.is_late
    np.testing.assert_array_equal(values_of(queue, back), 2 * data.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("order", "begin"), [((0, 2, 1), 0), ((2, 0, 1), 0), ((1, 0, 2), 8)], ids=["columns", "turned", "a part"]
)
def test_rows_that_do_not_lie_in_one_piece(backend, order, begin):
    queue = Queue(backend, 18)
    lies = dense(tensor_of(queue, np.zeros((3, 6, 16), np.float32))).cut(2, begin, 8)
    assert lies is not None
    assert row_order(placed(queue, lies.permuted(order))) is None


IMAGES = {
    "Concat": ({"axis": 1}, lambda x: np.concatenate([x, x + 1], 1)),
    "Concat along rows": ({"axis": 2}, lambda x: np.concatenate([x, x + 1], 2)),
    "Resize": ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, lambda x: x.repeat(2, 2).repeat(3, 3)),
    "Resize by halves": ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, lambda x: x[:, :, ::2]),
    "Pad": ({"mode": "constant"}, lambda x: np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)))),
    "Slice": ({}, lambda x: x[:, 1:5]),
}  # fmt: skip
NUMBERS = {
    "Resize": [np.zeros(0, np.float32), np.array([1, 1, 2, 3], np.float32)],
    "Resize by halves": [np.zeros(0, np.float32), np.array([1, 1, 0.5, 1], np.float32)],
    "Pad": [np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64)],
    "Slice": [np.array([1], np.int64), np.array([5], np.int64), np.array([1], np.int64)],
}


@pytest.mark.parametrize("stored", [F16, BF16, F32], ids=str)
def test_a_concatenation_brings_its_parts_into_one_type(backend, stored):
    """Each copied to its place and rounded or widened on the way, whatever it was stored in."""
    queue, random = Queue(backend, 18), np.random.default_rng(6)
    arrays = [random.standard_normal((2, count, 24), dtype=np.float32) for count in (1, 5, 3)]
    parts = [queue.convert(tensor_of(queue, array), one) for array, one in zip(arrays, (F32, F16, BF16), strict=True)]
    expected = np.concatenate([values_of(queue, queue.convert(part, stored)) for part in parts], 1)
    before = dict(queue.launches)
    node = ir.node("Concat", inputs=[None] * 3, attributes={"axis": 1})
    (made,) = OPS["Concat"].compute(queue, Call(node, parts, [stored], 18))
    assert made is not None and made.format is stored
    assert (
        queue.launches["copy_strided"] - before.get("copy_strided", 0) == 3
        and queue.launches["chain"] == before["chain"]
    )
    np.testing.assert_array_equal(values_of(queue, made), expected)


@pytest.mark.parametrize("name", IMAGES)
def test_images_keep_their_channels_last(backend, name):
    """Neither read nor written in another order on the way."""
    queue = Queue(backend, 18)
    data = np.random.default_rng(3).integers(-99, 99, (2, 8, 4, 6)).astype(np.float32)
    last = tensor_of(queue, np.ascontiguousarray(data.transpose(0, 2, 3, 1)))
    x = dense_when_asked(queue, last)
    attributes, expected = IMAGES[name]
    (other,) = run_steps(queue, x.shape, [("x", Reading(x))], [Step("y", "float", "x + 1.f", "", F32)])
    assert has_channels_last(other)
    inputs = [x, other] if name.startswith("Concat") else [x, *map(host_tensor, NUMBERS[name])]
    node = ir.node(name.split()[0], inputs=[None] * len(inputs), attributes=attributes)
    (made,) = OPS[node.op_type].compute(queue, Call(node, inputs, [F32], 18))
    assert made is not None and made.lies is not None
    assert "transpose" not in queue.launches
    np.testing.assert_array_equal(values_of(queue, channels_last(queue, made)), expected(data).transpose(0, 2, 3, 1))
    assert "transpose" not in queue.launches
    np.testing.assert_array_equal(values_of(queue, made), expected(data))
