"""Inputs for a network: realistic seeded data by role, with one line saying what was chosen and why.

Random inputs hide failures (real activations are larger and more structured), so whoever uses these says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import InputError
from probe.model import synthetic
from probe.model.dims import SEQUENCE, resolve
from probe.model.feeds import check_feeds, element_type, known_input, parse_ranges, parse_shapes
from probe.model.reach import Graph
from probe.model.roles import Role, extents_from_weights, recognise
from probe.precision import kind_of, numpy_dtype

if TYPE_CHECKING:
    from probe.model.model import Model, Port

__all__ = ["check_feeds", "make_inputs", "parse_ranges", "parse_shapes"]

Array = np.ndarray[Any, Any]
Range = tuple[float, float]

_MOST_ELEMENTS = 1 << 28  # of one input that is made up: beyond this an extent is a mistake, and would fill the memory

RANDOM_INPUTS_WARNING = (
    "inputs are made up (seed {seed}): real data reaches larger values, so a pass here may hide failures"
)


def make_inputs(
    model: Model,
    *,
    seed: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, Range] | None = None,
) -> tuple[dict[str, Array], list[str]]:
    """Feeds for every input of ``model``, and one line of explanation an input.

    The data of an input depends on ``seed`` and its name only. Dynamic dimensions: what ``shapes`` gives, what weights imply,
    else 1 for batches, 16 for sequences, 224 for image sides, 16000 samples of audio; equal names get equal sizes. A sequence-typed input
    gets two elements, fed as ``NAME[0]`` and ``NAME[1]``.

    Args:
        shapes: by input name (``parse_shapes``).
        ranges: inclusive value bounds by input name, "" for all others (``parse_ranges``).

    Raises:
        InputError: an unknown name, a shape that contradicts the model, or an input of a type that cannot be made up.
    """
    given = {known_input(model, name, "--input-shapes"): tuple(shape) for name, shape in (shapes or {}).items()}
    bounds = {
        name if not name else known_input(model, name, "--val-range"): pair for name, pair in (ranges or {}).items()
    }
    graph = Graph(model)
    ports = [_Made(port, given) for port in model.inputs]
    declared = {made.name: made.dims for made in ports}
    implied = {made.name: extents_from_weights(graph, made.name, len(made.dims)) for made in ports}
    known = {made.name: _with(made.dims, given.get(made.name), implied[made.name]) for made in ports}
    alone = {made.name: recognise(graph, made.name, made.dtype, known[made.name]).kind for made in ports}
    roles = {
        made.name: recognise(graph, made.name, made.dtype, known[made.name], beside=frozenset(alone.values()))
        for made in ports
    }
    concrete, chosen = resolve(declared, roles, implied, given)
    for name, shape in concrete.items():
        if math.prod(shape) > _MOST_ELEMENTS:
            raise InputError(
                f"input {name!r} would have {math.prod(shape)} elements: {list(shape)}",
                hint=f'give its shape: --input-shapes "{name}:[...]", or data: --inputs FILE',
            )
    feeds: dict[str, Array] = {}
    lines: list[str] = []
    for made in ports:
        pair = bounds.get(made.name, bounds.get(""))
        keys = [f"{made.name}[{i}]" for i in range(2)] if made.sequence else [made.name]
        said = ""
        for key in keys:
            feeds[key], said = _make(made, key, roles[made.name], concrete, roles, pair, seed)
        free = _free_dimensions(made.dims, concrete[made.name], chosen, given.get(made.name))
        kind = f"sequence of {len(keys)} " if made.sequence else ""
        shape = ",".join(map(str, concrete[made.name]))
        lines.append(f"{made.name} {kind}{made.dtype}[{shape}]: {said}{free}")
    return feeds, lines


class _Made:
    """An input to be made: its element type, and its declared extents, those of a sequence or optional being its element's."""

    def __init__(self, port: Port, given: Mapping[str, Sequence[int]]) -> None:
        self.name = port.name
        self.sequence = port.dtype.startswith("seq(")
        self.dtype = element_type(port)
        if "(" in self.dtype:
            raise InputError(
                f"input {port.name!r} of type {port.dtype} cannot be made up", hint="probe feeds tensors and sequences"
            )
        numpy_dtype(self.dtype)  # raises for types no tensor has
        dims = port.shape
        if dims is None:
            if port.name not in given and not self.sequence:
                raise InputError(
                    f"input {port.name!r} declares no rank, so no data can be made up for it",
                    hint=f'give its shape: --input-shapes "{port.name}:[1, ...]", or data: --inputs FILE',
                )
            dims = tuple(given.get(port.name, (SEQUENCE,)))
        self.dims: tuple[int | str | None, ...] = tuple(dims)


def _with(
    dims: Sequence[int | str | None], given: Sequence[int] | None, implied: Mapping[int, int]
) -> list[int | str | None]:
    """Extents as far as they are known before roles are recognised."""
    if given is not None and len(given) == len(dims):
        return list(given)
    return [dim if isinstance(dim, int) else implied.get(axis, dim) for axis, dim in enumerate(dims)]


def _free_dimensions(
    dims: Sequence[int | str | None], shape: Sequence[int], chosen: Mapping[str, int], given: Sequence[int] | None
) -> str:
    if given is not None:
        return ""
    names = [
        f"{dim or f'axis {axis}'} = {extent}"
        for axis, (dim, extent) in enumerate(zip(dims, shape, strict=True))
        if dim is None or (isinstance(dim, str) and (dim in chosen or not dim.isidentifier()))
    ]
    return f"; chose {', '.join(dict.fromkeys(names))}" if names else ""


def _make(
    made: _Made,
    key: str,
    role: Role,
    shapes: Mapping[str, tuple[int, ...]],
    roles: Mapping[str, Role],
    bounds: Range | None,
    seed: int,
) -> tuple[Array, str]:
    rng = synthetic.generator(seed, key)
    shape, dtype = shapes[made.name], made.dtype
    if bounds is None:
        values, said = _by_role(rng, made.name, role, shape, shapes, roles)
        reason = f" ({role.reason})" if role.reason else ""
        return _typed(values, dtype), said + reason
    low, high = bounds
    if not (math.isfinite(high - low) and low <= high):
        raise InputError(
            f"no values lie from {low:g} to {high:g}", where=f"--val-range of {made.name!r}",
            hint="LOW and HIGH are finite numbers, LOW not above HIGH",
        )  # fmt: skip
    said = f"values in {low:g}..{high:g} as asked"
    kind = kind_of(dtype)
    if kind == "string":
        raise InputError(f"input {made.name!r} holds text, a range means nothing for it", where="--val-range")
    if kind in ("int", "bool"):
        least, most = _integer_bounds(made.name, dtype, low, high)
        return rng.integers(least, most, shape, np.int64, endpoint=True).astype(numpy_dtype(dtype)), said
    if role.kind == "image":
        return _typed(_picture(rng, shape, role, low, high), dtype), f"smooth image, {said}"
    return _typed(rng.uniform(low, high, shape), dtype), said


def _integer_bounds(name: str, dtype: str, low: float, high: float) -> tuple[int, int]:
    least, most = int(np.ceil(low)), int(np.floor(high))
    if least > most:
        raise InputError(f"no {dtype} value lies in [{low:g}, {high:g}]", where=f"--val-range of {name!r}")
    kind, bits = ("u", 1) if dtype == "bool" else (dtype[0], int(dtype.lstrip("uint")))
    smallest, largest = (0, 2**bits - 1) if kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if least < smallest or most > largest:
        raise InputError(
            f"{dtype} holds {smallest} to {largest}, not [{low:g}, {high:g}]", where=f"--val-range of {name!r}"
        )
    return least, min(most, 2**63 - 1)


def _by_role(
    rng: np.random.Generator,
    name: str,
    role: Role,
    shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    roles: Mapping[str, Role],
) -> tuple[Array, str]:
    low, high = role.low, role.high
    match role.kind:
        case "tokens" | "classes" | "timestep":
            assert low is not None and high is not None
            word = {"tokens": "token ids", "classes": "class ids", "timestep": "timesteps"}[role.kind]
            return rng.integers(int(low), int(high), shape, endpoint=True), f"{word} in {int(low)}..{int(high)}"
        case "mask":
            return np.ones(shape), "mask of ones"
        case "padding_mask":
            return np.zeros(shape), "padding mask of False"
        case "token_type":
            return np.zeros(shape), "token types, all 0"
        case "position":
            count = shape[-1] if shape else 1
            return np.broadcast_to(np.arange(count), shape), f"positions 0..{max(count - 1, 0)}"
        case "length":
            length = _sequence_length(name, shapes, roles)
            return np.full(shape, length), f"sequence length {length}"
        case "image_size":
            height, width = _image_size(shapes, roles)
            return np.resize(np.array([height, width]), shape), f"image size {height} x {width}"
        case "sample_rate":
            return np.full(shape, 16000), "sample rate 16000"
        case "threshold":
            return np.full(shape, 0.5), "threshold 0.5"
        case "count":
            assert high is not None
            return np.full(shape, high), f"{high:g}"
        case "flag":
            return np.ones(shape), "True"
        case "text":
            return synthetic.text(rng, shape), "short phrases"
        case "image":
            least, most = (0.0, 1.0) if low is None or high is None else (low, high)
            return _picture(rng, shape, role, least, most), f"smooth image in {least:g}..{most:g}"
        case "audio" | "audio_frame":
            return synthetic.waveform(rng, shape), "voiced waveform, |x| < 0.5, at 16 kHz"
        case "state":
            return np.clip(rng.normal(0, 0.5, shape), -1, 1), "state, N(0, 0.5) within -1..1"
        case "quantised":
            return np.clip(np.rint(rng.normal(0, 32, shape)), -128, 127), "quantised values, N(0, 32)"
        case "bytes":
            return rng.integers(0, 127, shape, endpoint=True), "bytes in 0..127"
        case "positive":
            return np.abs(rng.standard_normal(shape)) + 1e-3, "|N(0, 1)|"
        case "integers":
            return rng.integers(1, 4, shape, endpoint=True), "integers in 1..4"
        case "normal":
            values = rng.standard_normal(shape)
            if low is None or high is None:
                return values, "N(0, 1)"
            centre, spread = (low + high) / 2, (high - low) / 6
            return np.clip(centre + spread * values, low, high), f"normal values in {low:g}..{high:g}"


def _picture(rng: np.random.Generator, shape: tuple[int, ...], role: Role, low: float, high: float) -> Array:
    return synthetic.image(rng, shape, low, high, channels_last=role.layout.endswith("C"))


def _sequence_length(name: str, shapes: Mapping[str, tuple[int, ...]], roles: Mapping[str, Role]) -> int:
    """The time axis of the input that has most of it: the last axis of token ids and waveforms, axis 1 of features [batch, time, ...]."""
    lengths = [
        shape[-1] if roles[other].kind in ("tokens", "classes", "mask", "audio", "audio_frame") else shape[1]
        for other, shape in shapes.items()
        if other != name and len(shape) >= 2 and roles[other].kind not in ("state", "length", "image_size")
    ]
    return max(lengths, default=SEQUENCE)


def _image_size(shapes: Mapping[str, tuple[int, ...]], roles: Mapping[str, Role]) -> tuple[int, int]:
    for name, role in roles.items():
        if role.kind == "image" and role.layout:
            return shapes[name][role.layout.index("H")], shapes[name][role.layout.index("W")]
    return 224, 224


def _typed(values: Array, dtype: str) -> Array:
    """The values in the input's type, C order. Floats for an integer image are rounded, complex gets its real part only."""
    if values.dtype == object:
        return values
    target = numpy_dtype(dtype)
    if kind_of(dtype) == "int" and values.dtype.kind == "f":
        values = np.rint(values)
    with np.errstate(
        over="ignore"
    ):  # a range may be wider than the type; inputs that hold Inf are spoken of by whoever runs them
        return np.array(values, dtype=target, order="C")
