"""Selectors: objects that are asked, layer by layer, which tactics may be taken, and told which one was.

What TensorRT's ``IAlgorithmSelector`` was until version 11. ``choose`` asks one selector after the other; each sees what those before it left.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from probe.engine.tactics import is_known, tactic_of
from probe.engine.tuning.context import Candidate, LayerContext
from probe.engine.tuning.rules import HINT, Rule
from probe.errors import InputError


class Selector(Protocol):
    """Says which candidates of a layer are allowed, best first.

    Attributes:
        name: what results and errors call it.
    """

    @property
    def name(self) -> str: ...

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Those of ``candidates`` that are allowed, in the order of preference. Empty: this layer cannot be computed.

        Raises:
            InputError: nothing can be said of this layer; ``choose`` goes on and reports all such layers together.
        """
        ...

    def chosen(self, context: LayerContext, candidate: Candidate) -> None:
        """Told of every layer once all are decided, in execution order."""
        ...


@runtime_checkable
class Begins(Protocol):
    """A selector that wants to see all layers before it is asked about the first."""

    def begin(self, layers: Sequence[tuple[LayerContext, Sequence[Candidate]]]) -> None:
        """Called once a choice, before ``select``, with every layer and all its candidates.

        Raises:
            InputError: it cannot choose for these layers.
        """
        ...


@runtime_checkable
class Names(Protocol):
    """A selector that wants tactics of a layer by name, whether the device would offer them or not."""

    def named(self, context: LayerContext) -> Sequence[str]:
        """Of one layer; what the device does not compute it with is not offered."""
        ...


class _Silent:
    """A selector that need not know what became of its answer."""

    def chosen(self, context: LayerContext, candidate: Candidate) -> None:
        """As ``Selector.chosen``: nothing to do."""


class Fastest(_Silent):
    """The fastest first, as measured; what was not measured behind that, as declared: exact first. ``choose`` begins with it."""

    name = "fastest"

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``: all of them."""
        del context
        return sorted(candidates, key=lambda one: (one.median_us is None, one.median_us or 0.0))


class PreferAccurate(_Silent):
    """The most accurate first by what tactics promise (``error_class``); among equals the order stays, so the fastest of them is taken."""

    name = "prefer-accurate"

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``: all of them."""
        return sorted(candidates, key=lambda one: error_class(one.tactic, context.precision))


def error_class(tactic: str, precision: str) -> int:
    """Where a tactic stands among those of a layer by the model of its error: 0 is the most accurate.

    In the order of typical errors on sums of many terms, with u16 = 2^-11: FP32 accumulation (below u16, and so below what storing in
    FP16, BF16 or TF32 adds: one class); Winograd F(2x2) with FP16 transforms (about u16); FP16 accumulation (grows with the number of
    terms); Winograd F(4x4) (about 6 u16, and it overflows early). Stored in FP32, what orders FP32 sums differ by shows: pairwise sums and
    split ones before any order, one after the other last.

    Raises:
        InputError: there is no such tactic.
    """
    found = tactic_of(tactic)
    if found.algorithm == "winograd":
        return 10 if found.tile <= 2 else 30
    if found.accumulator == "fp16":
        return 20
    return (
        {"pairwise": 0, "splits": 1, "any": 2, "blocks": 2, "sequential": 3}[found.order] if precision == "fp32" else 0
    )


class PreferDeterministic(_Silent):
    """Those first that give the same bits run for run; otherwise the order stays."""

    name = "prefer-deterministic"

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``: all of them."""
        del context
        return sorted(candidates, key=lambda one: not one.deterministic)


class Random(_Silent):
    """An order drawn for each layer from a seed and the tensors the layer makes: other layers, and other selectors, do not change it."""

    def __init__(self, seed: int = 0) -> None:
        self.name, self._seed = f"random (seed {seed})", seed

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``: all of them."""
        drawn = random.Random(f"{self._seed} {context.outputs}")  # noqa: S311 - no secret
        by_name = sorted(candidates, key=lambda one: one.tactic)
        return drawn.sample(by_name, len(by_name))


class _Ruled(_Silent):
    """A selector made of rules.

    Attributes:
        notes: rules of files that are about nothing in the network.
    """

    word = ""

    def __init__(self, *rules: Rule | str) -> None:
        """
        Args:
            rules: ``"TACTICS"`` or ``"TACTICS @ LAYERS"``, regular expressions (``rules.Rule``).

        Raises:
            InputError: a rule that cannot be read.
        """
        self.rules = tuple(Rule.parse(one) if isinstance(one, str) else one for one in rules)
        self.name = f"{self.word} {', '.join(map(str, self.rules))}"
        self.notes: tuple[str, ...] = ()

    def begin(self, layers: Sequence[tuple[LayerContext, Sequence[Candidate]]]) -> None:
        """As ``Begins.begin``.

        Raises:
            InputError: a rule is about nothing: a mistyped one would be obeyed by having no effect.
        """
        names = [(context, [one.tactic for one in candidates]) for context, candidates in layers]
        idle = [(rule, reason) for rule in self.rules if (reason := rule.idle(names))]
        for rule, reason in idle:
            if not rule.listed:
                raise InputError(f"{str(rule)!r}: {reason}", where=f"--{self.word} {rule}", hint=HINT)
        self.notes = tuple(f"{self.word} {rule}: {reason}" for rule, reason in idle)

    def _about(self, context: LayerContext) -> list[Rule]:
        return [rule for rule in self.rules if rule.concerns(context)]


class Allow(_Ruled):
    """Of the layers that its rules are about, only tactics that one of them names. Other layers are free."""

    word = "allow"

    def named(self, context: LayerContext) -> Sequence[str]:
        """As ``Names.named``: tactics that rules about the layer write out, alone or between ``|``."""
        words = (word for rule in self._about(context) for word in rule.tactic.pattern.split("|"))
        return tuple(dict.fromkeys(word for word in words if is_known(word)))

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``."""
        about = self._about(context)
        return [one for one in candidates if not about or any(rule.names(one.tactic) for rule in about)]


class Deny(_Ruled):
    """All but the tactics that one of its rules names for the layer."""

    word = "deny"

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``."""
        about = self._about(context)
        return [one for one in candidates if not any(rule.names(one.tactic) for rule in about)]


class Record:
    """Allows everything and writes down what was chosen.

    Attributes:
        choices: layer contexts with the candidate that was taken, in execution order.
    """

    name = "record"

    def __init__(self) -> None:
        self.choices: list[tuple[LayerContext, Candidate]] = []

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``: all of them, as they are."""
        del context
        return candidates

    def chosen(self, context: LayerContext, candidate: Candidate) -> None:
        """As ``Selector.chosen``."""
        self.choices.append((context, candidate))
