"""Where each element of what Resize makes lies in its input, along one axis, and what weighs what there: as ONNX Runtime makes it, in FP32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.errors import Unsupported

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.call import Call

Array = np.ndarray[Any, Any]
_F32 = np.float32
_OLD = 11  # opsets before it know neither modes of coordinates nor of rounding
_CROP = "tf_crop_and_resize"
_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - _F32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + _F32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True, slots=True)
class Axis:
    """What becomes of an axis.

    Attributes:
        roi: start and end of what is cropped, in parts of the input.
    """

    own: int
    extent: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def stays(self) -> bool:
        """Whether nothing happens to it: ONNX Runtime crops no axis that keeps its scale."""
        return self.own == self.extent and self.scale == 1


@dataclass(frozen=True, slots=True)
class Manner:
    """How a node resizes.

    Attributes:
        coefficient: of cubic weights.
        exclusive: what lies outside the input weighs nothing.
        widens: where the result is smaller, windows grow by as much (antialias).
        outside: what is put where the input does not reach, if what is cropped may.
    """

    mode: str
    place: str
    nearest: str
    coefficient: float
    exclusive: bool
    widens: bool
    outside: float | None

    @property
    def picks(self) -> bool:
        return self.mode == "nearest"


def manner_of(call: Call) -> Manner:
    """What the attributes say.

    Raises:
        Unsupported: a mode that is not known.
    """
    old = call.opset < _OLD or call.node.op_type == "Upsample"
    mode = call.text("mode", "nearest")
    place = "asymmetric" if old else call.text("coordinate_transformation_mode", "half_pixel")
    nearest = "simple" if old else call.text("nearest_mode", "round_prefer_floor")
    widens = bool(call.int("antialias", 0)) and not old
    if (
        mode not in ("nearest", "linear", "cubic")
        or place not in _PLACES
        or (nearest not in _NEAREST and not old)
        or (widens and mode == "nearest")
        or (call.int("exclude_outside", 0) and mode != "cubic" and not widens)  # who knows it knows it otherwise
    ):
        raise Unsupported(f"Resize by {mode}, {place}, {nearest}{' without aliasing' * widens}")
    outside = call.float("extrapolation_value", 0.0) if place == _CROP else None
    return Manner(
        mode, place, nearest, call.float("cubic_coeff_a", -0.75), bool(call.int("exclude_outside", 0)), widens, outside
    )


def _symmetric(at: Array, one: Axis) -> Array:
    share = _F32(one.extent) / (_F32(one.scale) * _F32(one.own))
    return _F32(one.own) / _F32(2) * (_F32(1) - share) + (at + _F32(0.5)) / _F32(one.scale) - _F32(0.5)


def _cropped(at: Array, one: Axis) -> Array:
    start, end, last = _F32(one.roi[0]), _F32(one.roi[1]), _F32(one.own - 1)
    if one.extent > 1:
        return start * last + at * (end - start) * last / _F32(one.extent - 1)
    return at * _F32(0) + _F32(0.5) * (start + end) * last


# position, and what becomes of the axis
_PLACES: dict[str, Callable[[Array, Axis], Array]] = {
    "half_pixel": lambda at, one: (at + _F32(0.5)) / _F32(one.scale) - _F32(0.5),
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda at, one: (
        (at + _F32(0.5)) / _F32(one.scale) - _F32(0.5) if one.extent > 1 else at * _F32(0)
    ),
    "asymmetric": lambda at, one: at / _F32(one.scale),
    "align_corners": lambda at, one: at * _F32(one.own - 1) / _F32(one.extent - 1) if one.extent > 1 else at * _F32(0),
    _CROP: _cropped,
}


def picks(one: Axis, manner: Manner) -> Array:
    """The element of the input that each of the output is; -1: none."""
    at = _PLACES[manner.place](np.arange(one.extent, dtype=_F32), one)
    if manner.nearest == "simple":
        found = np.ceil(at) if one.scale < 1 else np.floor(at)
    else:
        found = _NEAREST[manner.nearest](at)
    found = np.clip(found, 0, one.own - 1).astype(np.int32)
    return found if manner.outside is None else np.where((at < 0) | (at > one.own - 1), np.int32(-1), found)


def samples(one: Axis, manner: Manner) -> tuple[Array, Array]:
    """Elements of the input, and their weights, [extent, taps] each; elements of -1: outside."""
    at = _PLACES[manner.place](np.arange(one.extent, dtype=_F32), one).astype(_F32)
    if manner.widens:
        found, weights = _widened(at, one, manner)
    elif manner.mode == "linear":
        inside = np.clip(at, _F32(0), _F32(one.own - 1))
        before = np.minimum(np.floor(inside), one.own - 1)
        behind = np.minimum(before + 1, one.own - 1)
        far, near = np.abs(inside - before).astype(_F32), np.abs(inside - behind).astype(_F32)
        far[before == behind] = near[before == behind] = 0.5
        found, weights = np.stack([before, behind], 1), np.stack([near, far], 1)
    else:
        base = np.floor(at)
        around = base[:, None] + np.arange(-1, 3, dtype=_F32)
        weights = _cubic(np.abs(at[:, None] - around), _F32(manner.coefficient))
        if manner.exclusive:
            weights = np.where((around >= 0) & (around < one.own), weights, _F32(0))
            weights = weights / weights.sum(1, dtype=_F32, keepdims=True)
        found = np.clip(around, 0, one.own - 1)
    found = found.astype(np.int32)
    if manner.outside is not None:
        found[(at < 0) | (at > one.own - 1)] = -1
    return found, weights.astype(_F32)


def _cubic(far: Array, a: np.float32) -> Array:
    """Weights by distance (Keys, 1981)."""
    inner = ((a + 2) * far - (a + 3)) * far * far + 1
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return np.where(far < 1, inner, np.where(far < 2, outer, _F32(0))).astype(_F32)


def _widened(at: Array, one: Axis, manner: Manner) -> tuple[Array, Array]:
    """Windows that grow as the image shrinks; those that reach beyond the input add to the weight of its last element, or weigh nothing."""
    by = max(_F32(1) / _F32(one.scale), _F32(1))
    reach = _F32(1 if manner.mode == "linear" else 2) * by
    center = (np.arange(one.extent, dtype=_F32) if one.scale == 1 else at) + _F32(0.5)
    first = np.floor(center - reach + _F32(0.5)).astype(np.int64)
    behind = np.floor(center + reach + _F32(0.5)).astype(np.int64)
    around = first[:, None] + np.arange(max(math.ceil(float(reach)) * 2 + 1, 1))
    far = np.abs((around - center[:, None] + _F32(0.5)) / by).astype(_F32)
    weights = np.clip(_F32(1) - far, 0, None) if manner.mode == "linear" else _cubic(far, _F32(manner.coefficient))
    weights = np.where(around < behind[:, None], weights, _F32(0))
    if manner.exclusive:
        weights = np.where((around >= 0) & (around < one.own), weights, _F32(0))
    total = weights.sum(1, dtype=_F32, keepdims=True)
    return np.clip(around, 0, one.own - 1), weights / np.where(total == 0, _F32(1), total)


def targets(shape: Sequence[int], axes: Sequence[int], given: Given) -> list[Axis]:
    """What becomes of every axis."""
    found = [Axis(own, own, 1.0) for own in shape]
    for at, axis in enumerate(axes):
        own = shape[axis]
        roi = (given.roi[at], given.roi[at + len(axes)]) if given.roi else (0.0, 1.0)
        if given.sizes:
            extent = given.sizes[at]
            scale = extent / own if own else 1.0
        else:
            scale = given.scales[at]
            extent = int(_F32(scale) * _F32(own))
        found[axis] = Axis(own, extent, scale, roi)
    if given.sizes and given.policy != "stretch":
        ratios = [_F32(found[axis].extent) / _F32(shape[axis]) for axis in axes]
        scale = min(ratios) if given.policy == "not_larger" else max(ratios)
        for axis in axes:
            extent = math.floor(float(scale * _F32(shape[axis])) + 0.5)
            found[axis] = Axis(shape[axis], extent, float(scale), found[axis].roi)
    return found


@dataclass(frozen=True, slots=True)
class Given:
    """What says how large the result is: ``sizes``, or else ``scales``, of some axes; and what is cropped of them, starts before ends."""

    sizes: Sequence[int]
    scales: Sequence[float]
    roi: Sequence[float] = ()
    policy: str = "stretch"
