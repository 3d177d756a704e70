"""``Rule``: some tactics on some layers, as a line of text. What allow- and deny-lists are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from probe.engine import tactics
from probe.engine.tuning.context import LayerContext
from probe.errors import InputError

_AT = " @ "
# Names of every kind, wherever there are such tactics: who denies them on a device that has none has not mistyped
_KNOWN = (
    *(one.name for one in tactics.TACTICS), "wgmma_128x256", "wgmma_128x256_pair2", "wgmma_64x64_splitk4", "wgmma_64x128_turns2", "wgmma_64x64_nchw", "wgmma_144x128_swapped",
    "mma_64x64", "mma_64x64_acc16", "ffma_128x128", "ffma_128x128_splitk4", "few_8", "few_8_splitk4", "simt_64x64", "conv_direct", "conv_depthwise", "cublaslt_130100_32f_A66_T20_S36_K1_R0_W0_C0_I0_G2",
    "cublaslt_130100_16f_A66_T20_S36_K2_R2_W0_C0_I0_G2", "cudnn_91900_last_E11_k2v0_nT", "cudnn_91900_first_E11_k2v0_nW",
)  # fmt: skip
HINT = 'write "TACTIC" or "TACTIC @ LAYER", both regular expressions, or @FILE with a rule a line'


@dataclass(frozen=True, slots=True)
class Rule:
    """Tactics whose whole name a regular expression matches, on layers in which another is found.

    Attributes:
        tactic: matched against the whole name: ``acc16`` is not ``sum_acc16``.
        layer: searched for in the names of the layer, its nodes and the tensors it makes; None: every layer.
        listed: it is a line of a file, which may have been written for other networks, too.
    """

    tactic: re.Pattern[str]
    layer: re.Pattern[str] | None = None
    listed: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return self.tactic.pattern + (f"{_AT}{self.layer.pattern}" if self.layer is not None else "")

    @classmethod
    def parse(cls, text: str) -> Rule:
        """``"winograd_.*"`` or ``"winograd_.* @ ^conv3"``: split at the first `` @ ``, which no tactic's name holds.

        Raises:
            InputError: not a rule, or not regular expressions.
        """
        tactic, at, layer = text.partition(_AT)
        if not tactic.strip() or (at and not layer):
            raise InputError(f"{text!r} is no rule about tactics", hint=HINT)
        try:
            return cls(re.compile(tactic.strip()), re.compile(layer) if at else None)
        except re.error as error:
            raise InputError(f"{text!r} is no rule about tactics: {error}", hint=HINT) from None

    @classmethod
    def of(cls, context: LayerContext, tactic: str, among: Iterable[LayerContext] = ()) -> Rule:
        """The rule about one tactic on one layer, which a tensor that it makes names exactly.

        Args:
            among: layers of the network. Where another one has that name, too (a branch that makes a tensor of the same name, a node called like
                the tensor), the layer's own name stands in the rule.
        """
        made = [cls(re.compile(_exactly(tactic)), _named(name)) for name in (*context.outputs, context.layer)]
        others = [one for one in among if one.layer != context.layer]
        return next((one for one in made if not any(map(one.concerns, others))), made[-1])

    def concerns(self, context: LayerContext) -> bool:
        """Whether it is about a layer."""
        if self.layer is None:
            return True
        return any(self.layer.search(name) for name in (context.layer, *context.nodes, *context.outputs))

    def names(self, tactic: str) -> bool:
        """Whether it is about a tactic."""
        return self.tactic.fullmatch(tactic) is not None

    def idle(self, layers: Iterable[tuple[LayerContext, Iterable[str]]]) -> str:
        """Why it is about nothing in a network; "" when it is, and where only the device lacks a tactic that it names.

        Args:
            layers: each with the names of its tactics.
        """
        about = [set(names) for context, names in layers if self.concerns(context)]
        if not about:
            return "it is about no layer of this network"
        there = sorted(set().union(*about))
        if any(map(self.names, (*there, *_KNOWN))) or tactics.is_known(self.tactic.pattern):
            return ""
        return f"no tactic is called so; the layers it is about have {', '.join(there)}"


def _named(name: str) -> re.Pattern[str]:
    return re.compile(rf"\A{_exactly(name)}\Z")


def _exactly(name: str) -> str:
    """A regular expression for a name, on one line and printable, whatever the name holds."""
    return "".join(_code(one) if not one.isprintable() else " " if one == " " else re.escape(one) for one in name)


def _code(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def read_rules(words: Iterable[str], option: str) -> tuple[Rule, ...]:
    """The rules of an option that may be repeated; ``@FILE`` holds one a line, with ``#`` before comments.

    Raises:
        InputError: a rule or file that cannot be read, or a file without rules.
    """
    rules: list[Rule] = []
    for word in words:
        try:
            listed = word.startswith("@")
            found = [
                replace(Rule.parse(line), listed=listed) for line in (_lines(Path(word[1:])) if listed else [word])
            ]
        except InputError as error:
            raise InputError(error.what, where=f"{option} {word}", hint=error.hint) from None
        rules += found
    return tuple(rules)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError(f"no rules in {path}", hint=HINT)
    return lines


def write_rules(rules: Iterable[Rule], comment: str = "") -> str:
    """Rules as the text of a file that ``read_rules`` reads. ``comment`` goes above them."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + "".join(f"{rule}\n" for rule in rules)
