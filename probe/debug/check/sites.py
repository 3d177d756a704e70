"""The graph as rules read it: ``Site`` is a node in its place, ``Source`` what it reads there, by the names of recordings."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.debug.check.facts import Facts, facts_of
from probe.model.elements import BFLOAT16, DOUBLE, FLOAT, FLOAT16
from probe.model.movement import MOVEMENT, STANDARD
from probe.model.names import TensorNames
from probe.model.scopes import Scope, Step, is_constant

if TYPE_CHECKING:
    from probe.model.model import Model

Array = np.ndarray[Any, Any]

_FLOATS = (FLOAT, FLOAT16, DOUBLE, BFLOAT16)
_LOOPS = ("Loop", "Scan")
_SMALL = 1 << 20  # bytes of a constant that is kept once it was read


@dataclass(frozen=True, slots=True)
class Source:
    """What a node reads. ``key`` is the same wherever the same tensor is read: the recorded name, or an object of a constant's own."""

    name: str
    key: Hashable
    constant: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A node in its place.

    Attributes:
        position: in execution order, bodies before the node that owns them.
        inputs: as the node lists them; None for what is omitted, or fed by a loop.
        outputs: recorded names; "" for what is omitted.
        looped: inside Loop or Scan, where recordings hold all iterations of a tensor at once.
    """

    step: Step
    position: int
    inputs: tuple[Source | None, ...]
    outputs: tuple[str, ...]
    looped: bool

    @property
    def node(self) -> str:
        """The node's identity."""
        return self.step.identity

    @property
    def op(self) -> str:
        """The operator, with its domain where that is not the standard's."""
        proto = self.step.node
        return proto.op_type if proto.domain in STANDARD else f"{proto.domain}:{proto.op_type}"

    @property
    def owner(self) -> str:
        """Identity of the node in whose body it stands; "" at the top."""
        owner = self.step.scope.owner
        return owner.identity if owner is not None else ""

    def returns(self, tensor: str) -> bool:
        """Whether the body that it stands in returns one of its outputs."""
        names = zip(self.step.node.output, self.outputs, strict=True)
        return bool(self.owner) and any(shown == tensor and raw in self.step.scope.outputs for raw, shown in names)

    @property
    def tensor(self) -> str:
        """Its first output."""
        return next((name for name in self.outputs if name), "")

    @property
    def moves(self) -> bool:
        """Whether it hands on values as they are."""
        return self.op in MOVEMENT

    def attribute(self, name: str, default: Any = None) -> Any:
        """An integer, float or list of integers."""
        for one in self.step.node.attribute:
            if one.name == name:
                return one.i if one.type == 2 else one.f if one.type == 1 else list(one.ints)
        return default


class Sites:
    """All nodes of a model that compute something, what makes and what reads each tensor, and the values of its constants."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._names = TensorNames(model.root)
        self._protos: dict[Hashable, Any] = {}  # TensorProto, or an array
        self._values: dict[Hashable, Array] = {}
        self._facts: dict[Hashable, Facts] = {}
        self.all: list[Site] = [
            self._site(step, at) for at, step in enumerate(model.root.in_execution_order()) if not is_constant(step)
        ]
        self.maker: dict[str, Site] = {}
        self.readers: dict[Hashable, list[Site]] = {}
        self.constants: dict[Hashable, Source] = {}  # those that a node reads
        for site in self.all:
            for name in site.outputs:
                if name:
                    self.maker.setdefault(name, site)
            for source in dict.fromkeys(one for one in site.inputs if one is not None):
                self.readers.setdefault(source.key, []).append(site)
                if source.constant:
                    self.constants.setdefault(source.key, source)
            for key in self._returned_by_bodies(site.step):
                self.readers.setdefault(key, []).append(site)
        self.outputs = frozenset(port.name for port in model.outputs)
        self.inputs = frozenset(port.name for port in model.inputs)

    def _site(self, step: Step, at: int) -> Site:
        looped = any(scope.owner is not None and scope.owner.node.op_type in _LOOPS for scope in step.scope.enclosing())
        sources = tuple(self._source(step.scope, name) if name else None for name in step.node.input)
        outputs = tuple(self._names.of(step.scope, name) if name else "" for name in step.node.output)
        return Site(step, at, sources, outputs, looped)

    def _source(self, scope: Scope, name: str) -> Source | None:
        home = scope.find(name)
        if home is None:
            return None
        held: Any = home.initialisers.get(name)
        if held is None and name in home.producers and is_constant(home.producers[name]):
            held = _value_of(home.producers[name])
        if held is not None:
            key = (id(home), name)
            self._protos[key] = held
            return Source(name, key, constant=True)
        if name in home.producers:
            if is_constant(home.producers[name]):
                return None  # a sparse or textual constant
            recorded = self._names.of(home, name)
            return Source(recorded, recorded)
        return Source(name, name) if home.owner is None else None

    def _returned_by_bodies(self, step: Step) -> Iterator[Hashable]:
        """Tensors from around a node that its bodies return as they are: no node inside reads them."""
        for body in step.bodies:
            for name in body.outputs:
                source = None if body.defines(name) else self._source(step.scope, name)
                if source is not None:
                    yield source.key

    def value(self, source: Source) -> Array:
        """A constant's value; float16 and bfloat16 as float32."""
        if source.key in self._values:
            return self._values[source.key]
        held = self._protos[source.key]
        value = held if isinstance(held, np.ndarray) else np.asarray(self.model.tensor(held))
        if value.dtype.name in ("float16", "bfloat16"):
            value = value.astype(np.float32)
        if value.nbytes <= _SMALL:
            self._values[source.key] = value
        return value

    def facts(self, source: Source) -> Facts:
        """What rules ask of a constant; it is read once."""
        if source.key not in self._facts:
            self._facts[source.key] = facts_of(self.value(source))
        return self._facts[source.key]

    def shape(self, source: Source | None) -> tuple[int, ...] | None:
        """Of a constant, without reading it; None for what is computed or omitted."""
        if source is None or not source.constant:
            return None
        held = self._protos[source.key]
        return held.shape if isinstance(held, np.ndarray) else tuple(held.dims)

    @cached_property
    def names(self) -> frozenset[str]:
        """Tensors that nodes make, by recorded name."""
        return frozenset(self.maker)

    @cached_property
    def floats(self) -> tuple[str, ...]:
        """Tensors that nodes make and that are declared, or inferred, to hold floating-point numbers, in execution order."""
        found: dict[str, None] = {}
        for site in self.all:
            for raw, shown in zip(site.step.node.output, site.outputs, strict=True):
                declared = site.step.scope.types.get(raw) if raw else None
                if declared is not None and declared.tensor_type.elem_type in _FLOATS:
                    found[shown] = None
        return tuple(found)

    def held(self, source: Source | None) -> Array | None:
        """The value of a constant; None for what is computed or omitted."""
        return self.value(source) if source is not None and source.constant else None


def _value_of(step: Step) -> Any:
    """What a Constant node holds, a TensorProto or an array; None for text and sparse tensors."""
    for one in step.node.attribute:
        match one.name:
            case "value":
                return one.t
            case "value_float":
                return np.array(one.f, np.float32)
            case "value_floats":
                return np.array(one.floats, np.float32)
            case "value_int":
                return np.array(one.i, np.int64)
            case "value_ints":
                return np.array(one.ints, np.int64)
    return None
