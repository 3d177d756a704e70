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

    def __hash__(self) -> int:
        return hash((self.default, frozenset(self.layers.items()), self.kept))

    def of(self, layer: str) -> Choice:
        return self.layers.get(layer, self.default)

    def keeping(self, *, layers: Iterable[str] = (), tensors: Iterable[str] = ()) -> Assignment:
        """This assignment with more layers in FP32 and more tensors kept."""
        return Assignment(self.default, {**self.layers, **dict.fromkeys(layers, FP32)}, self.kept | frozenset(tensors))

    def with_tactics(self, tactics: Mapping[str, str]) -> Assignment:
        """This assignment with other tactics: layer name -> tactic name; precisions stay."""
        changed = {name: Choice(self.of(name).precision, tactic) for name, tactic in tactics.items()}
        return Assignment(self.default, {**self.layers, **changed}, self.kept)

    @property
    def low(self) -> frozenset[str]:
        """The precisions in use beside fp32."""
        return frozenset(c.precision for c in (self.default, *self.layers.values())) - {"fp32"}
