"""``Assignment``: what each layer is stored and computed in. A run-time choice: the engine takes a new one without building anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from probe.errors import InputError
from probe.precision import PRECISIONS

EXACT = "exact"
RUN_PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


@dataclass(frozen=True, slots=True)
class Choice:
    """How one layer runs.

    Attributes:
        precision: what its tensors are stored in: fp32, tf32, fp16 or bf16.
        tactic: the named way to compute it (``probe.engine.tactics``).
    """

    precision: str
    tactic: str = EXACT

    def __post_init__(self) -> None:
        if self.precision not in RUN_PRECISIONS:
            known = "" if self.precision not in PRECISIONS else "an engine does not store "
            raise InputError(f"{known or 'unknown precision '}{self.precision!r}", hint=", ".join(RUN_PRECISIONS))
        if not isinstance(self.tactic, str):
            raise InputError(
                f"a tactic has a name, and {self.tactic!r} is none",
                hint=f"{EXACT!r}, or one of engine.candidates(LAYER)",
            )

    def __str__(self) -> str:
        return self.precision if self.tactic == EXACT else f"{self.precision} {self.tactic}"


FP32 = Choice("fp32")


@dataclass(frozen=True)
class Assignment:
    """A choice for every layer, and the tensors that are never rounded.

    Attributes:
        default: for layers not named.
        layers: layer name -> choice.
        kept: tensors stored in FP32 and never rounded between producer and consumers: ONNX names of activations, weights or graph
            inputs. A view of a kept tensor (Reshape, Transpose, ...) is kept with it.
    """

    default: Choice
    layers: Mapping[str, Choice] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for one in (self.default, *self.layers.values()) if isinstance(self.layers, Mapping) else (self.layers,):
            if not isinstance(one, Choice):
                raise InputError(
                    f"an assignment is made of choices, and {one!r} is none",
                    hint='Assignment(Choice("fp16"), {layer: Choice("fp32")})',
                )
        if not isinstance(self.kept, frozenset):
            object.__setattr__(self, "kept", _names(self.kept, "tensors"))

    def __hash__(self) -> int:
        return hash((self.default, frozenset(self.layers.items()), self.kept))

    def of(self, layer: str) -> Choice:
        return self.layers.get(layer, self.default)

    def keeping(self, *, layers: Iterable[str] = (), tensors: Iterable[str] = ()) -> Assignment:
        """This assignment with more layers in FP32 and more tensors kept."""
        wide = dict.fromkeys(_names(layers, "layers"), FP32)
        return Assignment(self.default, {**self.layers, **wide}, self.kept | _names(tensors, "tensors"))

    def with_tactics(self, tactics: Mapping[str, str]) -> Assignment:
        """This assignment with other tactics: layer name -> tactic name; precisions stay."""
        if not isinstance(tactics, Mapping):
            raise InputError(
                f"tactics are given by layer, not as {type(tactics).__name__}", hint='such as {"conv1": "exact"}'
            )
        changed = {name: Choice(self.of(name).precision, tactic) for name, tactic in tactics.items()}
        return Assignment(self.default, {**self.layers, **changed}, self.kept)

    @property
    def low(self) -> frozenset[str]:
        """The precisions in use beside fp32."""
        return frozenset(c.precision for c in (self.default, *self.layers.values())) - {"fp32"}


def _names(given: Iterable[str], what: str) -> frozenset[str]:
    """Names as a set; a single one is not a set of its letters."""
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else ()
    if not isinstance(given, Iterable) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{what} are given by name, not as {given!r}", hint=f'such as {what}=["conv1"]')
    return frozenset(names)
