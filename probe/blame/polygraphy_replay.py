"""Polygraphy's tactic replay files (``--save-tactics``, TensorRT 10 and before): read, and used as far as they mean anything here.

``{"replay": {LAYER: {"implementation", "tactic", "inputs", "outputs"}}}``. Implementation and tactic are numbers of one TensorRT version that
name nothing elsewhere; the storage of a layer's tensors does mean something: a precision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.engine import Engine

_PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
_WRAPPED = re.compile(r"\bPWN\(|[(){}\[\]]|ForeignNode|Reformatting CopyNode for (?:Input|Output) Tensor \d+ to ")
_NAMED = 4  # names that a sentence lists
_FIELDS = ("implementation", "tactic", "inputs", "outputs")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """How TensorRT stored a tensor. ``dtype``: FLOAT, HALF, INT8, ..."""

    dtype: str
    strides: tuple[int, ...]
    vectorized_dim: int | None = None
    components_per_element: int | None = None


@dataclass(frozen=True, slots=True)
class Algorithm:
    """TensorRT's choice for a layer: equal ones are the same choice."""

    implementation: int
    tactic: int
    inputs: tuple[StoredTensor, ...]
    outputs: tuple[StoredTensor, ...]

    def __str__(self) -> str:
        stored = [", ".join(one.dtype for one in tensors) for tensors in (self.inputs, self.outputs)]
        return f"implementation {self.implementation}, tactic {self.tactic} ({stored[0]} -> {stored[1]})"


def is_polygraphy_replay(path: str | Path) -> bool:
    """Whether a file looks like a tactic replay: a JSON object with ``replay`` and no schema of probe's."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except (OSError, ValueError):
        return False
    return head.lstrip()[:1] == b"{" and b'"replay"' in head and b'"schema"' not in head


def read_polygraphy_replay(path: str | Path) -> dict[str, Algorithm]:
    """Layer -> what TensorRT chose for it, in the order of the file.

    Raises:
        InputError: not readable, not JSON, or not a replay file.
    """
    try:
        tree = json.loads(Path(path).read_bytes())
        replay = tree["replay"]
        if not isinstance(replay, dict):
            raise TypeError("replay is not an object")
        return {name: _algorithm(one) for name, one in replay.items()}
    except OSError as error:
        raise InputError(f"cannot read the replay file: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"not a tactic replay of Polygraphy: {type(error).__name__}: {error}", where=str(path),
            hint="polygraphy run MODEL --trt --save-tactics FILE wrote such files, up to TensorRT 10",
        ) from error  # fmt: skip


def _algorithm(tree: Mapping[str, Any]) -> Algorithm:
    implementation, tactic, inputs, outputs = (tree[name] for name in _FIELDS)
    if type(implementation) is not int or type(tactic) is not int:
        raise TypeError("implementation and tactic are numbers")
    return Algorithm(implementation, tactic, tuple(map(_stored, inputs)), tuple(map(_stored, outputs)))


def _stored(tree: Mapping[str, Any]) -> StoredTensor:
    dtype = tree["dtype"]
    if not isinstance(dtype, str):
        raise TypeError("dtype is a word")
    whole = (tree.get("vectorized_dim"), tree.get("components_per_element"))
    if any(one is not None and type(one) is not int for one in (*whole, *tree["strides"])):
        raise TypeError("strides and formats are numbers")
    return StoredTensor(dtype.rpartition(".")[2], tuple(tree["strides"]), *whole)


# --- what it means here ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meant:
    """What a replay file says about a network here.

    Attributes:
        precisions: layer -> fp32, fp16 or bf16, as TensorRT stored what it makes.
        ignored: sentences about the rest.
    """

    precisions: Mapping[str, str]
    ignored: tuple[str, ...]


def meaning_of(replay: Mapping[str, Algorithm], engine: Engine) -> Meant:
    """Layers are found by the names of their ONNX nodes, which TensorRT joins with `` + ``."""
    owners = {identity: layer.name for layer in engine.layers for identity in layer.origin}
    stored: dict[str, set[str]] = {}
    nowhere: list[str] = []
    formats: list[str] = []
    for name, algorithm in replay.items():
        layers = {owners[part] for part in _parts(name) if part in owners}
        if not layers:
            nowhere.append(name)
        kinds = {one.dtype for one in algorithm.outputs}
        if not kinds <= _PRECISIONS.keys():
            formats += [name] if layers else []
            continue
        for layer in layers:
            stored.setdefault(layer, set()).update(_PRECISIONS[kind] for kind in kinds)
    mixed = [layer for layer, kinds in stored.items() if len(kinds) > 1]
    ignored = (
        f"implementation and tactic numbers of {len(replay)} layers: they are one TensorRT version's own and name no tactic here",
        *_listed(nowhere, "of layers that are not in this network"),
        *_listed(formats, "of layers stored in a type that the engine does not store"),
        *_listed(mixed, "of layers that make tensors of several types"),
    )
    return Meant({layer: kinds.pop() for layer, kinds in stored.items() if len(kinds) == 1}, ignored)


def _parts(name: str) -> list[str]:
    """Names of nodes that the name of a TensorRT layer is made of. A node's own name may hold any of the marks: the whole comes first."""
    plain = _WRAPPED.sub(" ", name)
    return [name, *(part.strip() for text in (name, plain) for part in re.split(r" \+ |, |\.\.\.| \|\| ", text))]


def _listed(names: Sequence[str], what: str) -> tuple[str, ...]:
    if not names:
        return ()
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (f"what it says {what}: {', '.join(names[:_NAMED])}{more}",)
