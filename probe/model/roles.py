"""What a network input is for, read off the graph and its name: token ids, mask, image, waveform, state, ...

The graph decides first where it can (an integer that indexes an embedding *is* a token id), names decide what the graph cannot show.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from probe.model.elements import shape_of
from probe.model.reach import PASSES_VALUES, Graph, Use
from probe.precision import kind_of

Array = np.ndarray[Any, Any]
Dims = Sequence[int | str | None]
RoleKind = Literal[
    "tokens", "classes", "mask", "padding_mask", "token_type", "position", "length", "sample_rate", "timestep", "image_size",
    "threshold", "count", "flag", "image", "audio", "audio_frame", "state", "quantised", "bytes", "text", "positive", "integers", "normal",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Role:
    """What an input is for. ``low`` and ``high`` are inclusive bounds of its values where the graph shows them."""

    kind: RoleKind
    reason: str  # shown to the user in brackets; empty when the kind says it all
    low: float | None = None
    high: float | None = None
    layout: Literal["", "NCHW", "NHWC", "CHW", "HWC"] = ""


# On the way from an image to its normalisation pixels may also be moved, padded, reordered or scaled by about one.
_PASSES_PIXELS = PASSES_VALUES | {
    "Pad": 0, "Resize": 0, "Upsample": 0, "Gather": 0, "Split": 0, "Concat": 0, "Clip": 0, "Mul": 0,
}  # fmt: skip
_GATHERS = frozenset(("Gather", "GatherElements", "GatherBlockQuantized"))  # (data, indices)
_EMBED = {0: 2, 1: 4}  # EmbedLayerNormalization: input_ids index word_embedding, segment_ids index segment_embedding


def extents_from_weights(graph: Graph, name: str, rank: int) -> dict[int, int]:
    """Extents of an input's axes that the weights it meets imply: Conv channels, MatMul depth, RNN input size."""
    extents: dict[int, int] = {}
    for use in graph.uses(name, {"Cast": 0, "Identity": 0}):
        weight = use.weight_shape(1) if use.index == 0 else None
        if weight is None:
            continue
        match use.node.op_type:
            case "Conv" if rank >= 3 and len(weight) >= 2:
                extents.setdefault(1, weight[1] * use.integer("group", 1))
            case "ConvTranspose" if rank >= 3 and weight:
                extents.setdefault(1, weight[0])
            case "MatMul" if len(weight) >= 2:
                extents.setdefault(rank - 1, weight[-2])
            case "Gemm" if len(weight) == 2 and not use.integer("transA", 0):
                extents.setdefault(rank - 1, weight[1] if use.integer("transB", 0) else weight[0])
            case "LSTM" | "GRU" | "RNN" if len(weight) == 3:
                extents.setdefault(2, weight[2])
            case "BatchNormalization" | "InstanceNormalization" if rank >= 2 and weight:
                extents.setdefault(1, weight[0])
    return extents


def recognise(graph: Graph, name: str, dtype: str, dims: Dims, *, beside: frozenset[str] = frozenset()) -> Role:
    """The role of one input.

    Args:
        dims: its extents as far as known (declared, given by the user, or implied by weights).
        beside: roles of the network's other inputs: beside a sample rate an unnamed signal is audio, beside a state it comes in frames.
    """
    words = frozenset(_words(name))
    uses = graph.uses(name)
    kind = kind_of(dtype)
    if kind == "string":
        return Role("text", "")
    role = _by_name(kind, "_".join(_words(name)), words) or _by_use(kind, uses)
    if role is not None:
        return role
    layout = image_layout(dims)
    if dtype in ("uint8", "int8"):
        if any(use.node.op_type == "DequantizeLinear" and use.index == 0 for use in uses) and dtype == "int8":
            return Role("quantised", "read by DequantizeLinear")
        return Role("image", layout, 0, 255, layout) if layout and dtype == "uint8" else Role("bytes", "")
    if kind == "int":
        return Role("integers", "no known use; positive, so that nothing divides by zero")
    if kind == "bool":
        return Role("flag", "")
    if _is_audio(words, dims, layout) or ("sample_rate" in beside and len(dims) <= 3):
        return (
            Role("audio_frame", "one frame: the network keeps its state outside")
            if "state" in beside
            else Role("audio", "")
        )
    bounds, reason = _range_of_quantiser(uses)
    if layout and len(dims) == 4:
        if bounds is None:
            bounds, reason = _pixel_range(graph, name, words)
        return Role("image", ", ".join(filter(None, (layout, reason))), *bounds, layout=layout)
    for use in uses:
        if use.node.op_type in ("Log", "Sqrt"):
            return Role("positive", f"it goes into {use.node.op_type}")
    return Role("normal", reason, *(bounds or (None, None)))


# --- by name ---------------------------------------------------------------------------------------------------------

_AUDIO = frozenset("wav wave waveform audio speech pcm signal samples".split())
_STATE = frozenset("state states hidden cache caches memory h0 c0 hx cx hn cn past".split())
_STATE_NAMES = frozenset("h c h_0 c_0 h_in c_in".split())
_LENGTH = re.compile(
    r"(^|[^a-z])(seq|sequence|input|src|source|text|audio|mel|wav|x|token|feat|feature|feats)?s?[^a-z]*(len|length)s?$"
)
_IMAGE_SIZE = re.compile(r"(^|[^a-z])(im|img|image|orig|original|target)[^a-z]*(target[^a-z]*)?(shape|size|sizes|hw)$")


def _by_name(kind: str, plain: str, words: frozenset[str]) -> Role | None:
    if words & {"mask", "masks"}:
        # PyTorch's key_padding_mask: True marks what is *not* read, so ones would hide the whole input.
        padding = kind == "bool" and words & {"padding", "pad"}
        return Role("padding_mask", "True would hide an element") if padding else Role("mask", "everything is visible")
    if words & {"sr", "samplerate"} or {"sample", "rate"} <= words or {"sampling", "rate"} <= words:
        return Role("sample_rate", "Hz")
    if kind == "int" and (words & {"segment", "segments"} or {"token", "type"} <= words):
        return Role("token_type", "one segment")
    if kind == "int" and words & {"position", "positions", "pos"}:
        return Role("position", "")
    if words & {"timestep", "timesteps"}:
        return Role("timestep", "of a diffusion schedule", 0, 999)
    if kind in ("int", "float") and _IMAGE_SIZE.search(plain):
        return Role("image_size", "height and width of the image")
    if kind == "int" and _LENGTH.search(plain):
        return Role("length", "the whole sequence")
    if kind == "float" and words & {"threshold", "thresh", "thres"}:
        return Role("threshold", "")
    if kind == "float" and "encoder" not in words and (words & _STATE or plain in _STATE_NAMES):
        return Role("state", "as in a running network: zeros would leave the recurrent weights untested")
    return None


def _words(name: str) -> list[str]:
    """Lower-case words of an identifier: ``attentionMask`` and ``attention_mask:0`` both hold attention and mask."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


# --- by use ----------------------------------------------------------------------------------------------------------


def _by_use(kind: str, uses: list[Use]) -> Role | None:
    if kind == "int":
        return _index_of_embedding(uses) or _compared_with_classes(uses) or _argument(uses)
    if kind == "float":
        for use in uses:
            if use.node.op_type in ("LSTM", "GRU", "RNN") and use.index in (5, 6):
                return Role(
                    "state", f"initial state of {use.node.op_type}: zeros would leave the recurrent weights untested"
                )
        return _argument(uses)
    return None


def _index_of_embedding(uses: list[Use]) -> Role | None:
    """The smallest table an input indexes: ids must fit all of them."""
    found: list[tuple[int, str]] = []
    for use in uses:
        op = use.node.op_type
        if op in _GATHERS and use.index == 1:
            table, axis = 0, use.integer("gather_axis" if op == "GatherBlockQuantized" else "axis", 0)
        elif op == "EmbedLayerNormalization" and use.index in _EMBED:
            table, axis = _EMBED[use.index], 0
        else:
            continue
        weight = use.weight(table)
        known = tuple(weight.dims) if weight is not None else _known_shape(use, table)
        if known is not None and -len(known) <= axis < len(known) and isinstance(extent := known[axis], int):
            found.append(
                (
                    extent,
                    f"{op} on {weight.name or use.node.input[table] if weight is not None else use.node.input[table]}",
                )
            )
    if not found:
        return None
    size, reason = min(found)
    return Role("tokens", reason, 0, max(size - 1, 0))


def _known_shape(use: Use, index: int) -> tuple[int | str | None, ...] | None:
    """Shape of a computed table, where inference knows it."""
    name = use.node.input[index] if index < len(use.node.input) else ""
    home = use.scope.find(name) if name else None
    declared = home.types.get(name) if home is not None else None
    return None if declared is None else shape_of(declared)


def _compared_with_classes(uses: list[Use]) -> Role | None:
    for use in uses:
        if use.node.op_type == "OneHot" and use.index == 0:
            depth = use.constant(1)
            if depth is not None and depth.size == 1 and depth.reshape(-1)[0] >= 1:
                return Role("classes", f"OneHot of depth {int(depth.reshape(-1)[0])}", 0, int(depth.reshape(-1)[0]) - 1)
        if use.node.op_type == "Equal":
            classes = use.constant(1 - use.index)
            if classes is not None and classes.size > 1 and classes.dtype.kind in "iuf":
                return Role("classes", f"compared with {classes.size} classes", int(classes.min()), int(classes.max()))
    return None


_ARGUMENTS: dict[tuple[str, int], Role] = {
    ("NonMaxSuppression", 2): Role("count", "boxes NonMaxSuppression keeps", 100, 100),
    ("NonMaxSuppression", 3): Role("threshold", "of NonMaxSuppression"),
    ("NonMaxSuppression", 4): Role("threshold", "of NonMaxSuppression"),
    ("TopK", 1): Role("count", "k of TopK", 1, 1),
    ("Loop", 0): Role("count", "trip count of Loop", 4, 4),
    ("Clip", 1): Role("threshold", "lower bound of Clip"),
}


def _argument(uses: list[Use]) -> Role | None:
    return next((role for use in uses if (role := _ARGUMENTS.get((use.node.op_type, use.index)))), None)


# --- signals ---------------------------------------------------------------------------------------------------------


def image_layout(dims: Dims) -> Literal["", "NCHW", "NHWC", "CHW", "HWC"]:
    """Where the 1, 3 or 4 channels of an image stand (three axes: 3 channels only); empty for what is no image."""

    def spatial(extents: Dims) -> bool:
        return all(not isinstance(extent, int) or extent >= 8 for extent in extents)

    if len(dims) == 4:
        if dims[1] in (1, 3, 4) and spatial(dims[2:]):
            return "NCHW"
        if dims[3] in (1, 3, 4) and spatial(dims[1:3]):
            return "NHWC"
    if len(dims) == 3 and dims[0] == 3 and spatial(dims[1:]):
        return "CHW"
    if len(dims) == 3 and dims[2] == 3 and spatial(dims[:2]):
        return "HWC"
    return ""


def _is_audio(words: frozenset[str], dims: Dims, layout: str) -> bool:
    if layout and len(dims) == 4:
        return False
    long = len(dims) in (2, 3) and isinstance(dims[-1], int) and dims[-1] >= 4000
    return long or (bool(words & _AUDIO) and 1 <= len(dims) <= 3)


def _range_of_quantiser(uses: list[Use]) -> tuple[tuple[float, float] | None, str]:
    """The interval a QuantizeLinear can represent: what the network was calibrated for."""
    for use in uses:
        if use.node.op_type != "QuantizeLinear" or use.index != 0:
            continue
        scale, zero = use.constant(1), use.constant(2)
        if scale is None or scale.size != 1 or (zero is not None and zero.dtype.name not in ("uint8", "int8")):
            continue
        low, high = (0, 255) if zero is None or zero.dtype.name == "uint8" else (-128, 127)
        step, offset = float(scale.reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0])
        if math.isfinite(step) and step > 0:
            return ((low - offset) * step, (high - offset) * step), "the range of its QuantizeLinear"
    return None, ""


_EXPECTS_0_TO_255: dict[str, Callable[[Array], bool]] = {
    "Sub": lambda constant: 20 <= constant.mean() <= 200,
    "Add": lambda constant: -200 <= constant.mean() <= -20,
    "Div": lambda constant: 50 <= constant.mean() <= 256,
    "Mul": lambda constant: 0 < constant.max() <= 0.02,
    "BatchNormalization": lambda constant: 20 <= constant.mean() <= 200,
}


def _pixel_range(graph: Graph, name: str, words: frozenset[str]) -> tuple[tuple[float, float], str]:
    """0..255 when the first arithmetic removes means around 100 or divides by about 255; [-1, 1] for ``pixel_values``; else [0, 1]."""
    for use in graph.uses(name, _PASSES_PIXELS):
        op = use.node.op_type
        if len(use.through) > 6:
            break
        if op not in _EXPECTS_0_TO_255 or use.index != 0:
            continue
        other = use.constant(3 if op == "BatchNormalization" else 1)
        if other is not None and 0 < other.size <= 4 and _EXPECTS_0_TO_255[op](other.astype(np.float64)):
            return (0.0, 255.0), f"its {op} expects 0 to 255"
    if {"pixel", "values"} <= words:
        return (-1.0, 1.0), "pixel_values are normalised"
    return (0.0, 1.0), ""
