"""``check_network``: one golden pass an input, the rules on what it made, and the graph read once. Nothing runs in low precision."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.compare.diff import environment
from probe.debug.check.follow import Budget, follow
from probe.debug.check.hits import Hit
from probe.debug.check.joined import Joined, verdict_of
from probe.debug.check.look import Look, Operators
from probe.debug.check.rules import RULES
from probe.debug.check.sites import Sites
from probe.debug.goldens import Golden, golden_kind, open_golden
from probe.debug.record import record
from probe.errors import InputError
from probe.precision import PRECISIONS
from probe.results.check import CheckResult
from probe.store.feeds import input_infos
from probe.store.opening import read_array
from probe.store.tape import DEFAULT_LIMIT, Tape

if TYPE_CHECKING:
    import numpy as np

    from probe.model.model import Model
    from probe.store.feeds import InputSet
    from probe.store.source import TensorSource

Progress = Callable[[str, str], None]  # phase, name of what is worked on
_CHECKED = ("fp16", "bf16", "tf32", "int8")
_STATIC = ("int8",)  # where the golden's values say nothing without calibration


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What the user asked of a check.

    Attributes:
        precision: fp16, bf16, tf32; int8 reads the graph alone.
        golden: ``ort``, ``fp64``, or a recording with the tensors inside.
        select: only findings in whose tensor or node it is found.
        memory_limit: bytes of golden tensors held in memory at a time; above, those of an input go to a temporary folder.
    """

    precision: str = "fp16"
    golden: Golden = "ort"
    select: re.Pattern[str] | None = None
    threads: int = 0
    custom_op_libs: tuple[Path, ...] = ()
    memory_limit: int = DEFAULT_LIMIT
    command: str = ""


def check_network(
    model: Model,
    sets: Sequence[InputSet],
    options: CheckOptions | None = None,
    *,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> CheckResult:
    """What will break in a low precision, or may.

    Every tensor of the golden is looked at, an input at a time. What a rule suspects is followed: the tensor is rounded, all else stays FP32,
    and the operators behind it are computed again as far as that is cheap. Only what still is wrong then is an error.

    Args:
        sets: the inputs; findings of several are joined, with the input that each is worst on.
        notes: what was noticed while the inputs were made.

    Raises:
        InputError: an unknown precision; the golden cannot be made or read, or holds no tensors of this model.
    """
    options = options or CheckOptions()
    if options.precision not in _CHECKED:
        raise InputError(
            f"nothing is checked for {options.precision!r}", where="--precision", hint=f"one of {', '.join(_CHECKED)}"
        )
    check = _Check(model, sets, options, progress or (lambda _phase, _name: None))
    with check.phase("graph"):
        check.read_graph()
    _check_select(check.sites, options.select)
    if options.precision not in _STATIC:
        with ExitStack() as opened:
            check.read_goldens(opened)
    findings = check.joined.findings()
    return CheckResult(
        verdict=verdict_of(findings),
        model=str(model.path),
        model_sha256=model.sha256,
        precision=options.precision,
        golden=check.golden,
        findings=findings,
        rules=tuple(rule.name for rule in RULES if options.precision in rule.precisions),
        nodes=len(check.sites.all),
        tensors=len(check.seen),
        not_seen=tuple(check.lacking),
        inputs=input_infos(sets),
        notes=(*notes, *dict.fromkeys(check.notes)),
        environment={**environment(), **check.environment},
        command=options.command,
        seconds=check.seconds,
    )


def _check_select(sites: Sites, select: re.Pattern[str] | None) -> None:
    """A pattern that is found nowhere would find nothing wrong."""
    if select is None:
        return
    tensors = {source.name for site in sites.all for source in site.inputs if source is not None}
    names = tensors.union(sites.inputs, *((site.step.identity, *site.outputs) for site in sites.all))
    if not any(map(select.search, names)):
        raise InputError(
            f"no tensor or node matches {select.pattern!r}", where="--select", hint="probe inspect MODEL -v lists them"
        )


@dataclass(slots=True)
class _Check:
    """What the phases of one check share."""

    model: Model
    sets: Sequence[InputSet]
    options: CheckOptions
    tell: Progress
    joined: Joined = field(default_factory=Joined)
    seconds: dict[str, float] = field(default_factory=dict)
    golden: str = ""
    notes: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)  # float tensors that rules looked at
    lacking: dict[str, None] = field(default_factory=dict)  # those without values, on some input
    sites: Sites = field(init=False)
    operators: Operators = field(init=False)
    budget: Budget = field(default_factory=Budget)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        self.tell(name, "")
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    # --- the graph alone

    def read_graph(self) -> None:
        """Apply the rules that need no golden."""
        self.sites = Sites(self.model)
        self.operators = Operators(self.sites)
        for rule in RULES:
            if rule.of == "graph" and self.options.precision in rule.precisions:
                for hit in rule.find(self.sites, self.options.precision):
                    self._take(hit, "")

    # --- goldens

    def read_goldens(self, opened: ExitStack) -> None:
        """Apply the rest on each input."""
        if golden_kind(self.options.golden) == "file":
            self._read_recording(opened)
            return
        from probe.runners.protocol import RunnerOptions, open_runner

        self.golden = str(self.options.golden)
        settings = RunnerOptions(threads=self.options.threads, custom_op_libs=self.options.custom_op_libs)
        runner = opened.enter_context(closing(open_runner(self.golden, self.model, settings)))
        for one in self.sets:
            with closing(Tape(f"made now by {self.golden}", memory_limit=self.options.memory_limit)) as tape:
                with self.phase("golden"), tape:
                    record(runner, [one], tape)
                self._look(tape, one.id, one.feeds, one.id)
        self.notes += runner.header.notes
        self.environment = dict(runner.header.environment or {})

    def _read_recording(self, opened: ExitStack) -> None:
        with self.phase("golden"):
            source = open_golden(self.options.golden, self.model, self.sets, opened)
        self.golden = source.path
        self.environment = dict(source.header.environment or {})
        self.notes += source.header.notes
        if not any(row.name in self.sites.names for row in source.rows()):
            raise InputError(
                f"no tensor that {self.model.path} makes is in {source.path}", where="--golden",
                hint="a golden with every tensor: probe dump MODEL -o golden",
            )  # fmt: skip
        ids = list(dict.fromkeys(row.input_id for row in source.rows()))
        fed = {one.id: one for one in self.sets}
        for input_id in ids:
            beside = fed.get(input_id) or (self.sets[0] if len(ids) == len(self.sets) == 1 else None)
            feeds: dict[str, np.ndarray[Any, Any]] = dict(beside.feeds) if beside is not None else {}
            for row in source.rows():
                if row.input_id == input_id and row.role == "input" and row.status == "recorded":
                    feeds[row.name] = read_array(source, row)
            self._look(source, input_id, feeds, input_id or "golden")

    def _look(self, source: TensorSource, input_id: str, feeds: Mapping[str, Any], label: str) -> None:
        with self.phase("rules"):
            look = Look(self.sites, PRECISIONS[self.options.precision], source, input_id, feeds, self.operators)
            names = look.floats()
            self.seen.update(name for name in names if look.range(name) is not None)
            idle = {row.name for row in source.rows() if row.input_id == input_id and row.status == "not_run"}
            self.lacking.update(
                dict.fromkeys(name for name in self.sites.floats if name not in idle and not look.has(name))
            )
            looked: dict[str, Sequence[Any]] = {
                "tensor": names, "constant": list(self.sites.constants.values()), "node": self.sites.all
            }  # fmt: skip
            for rule in RULES:
                if rule.of == "graph" or self.options.precision not in rule.precisions:
                    continue
                self.tell("rules", rule.name)
                for one in looked[rule.of]:
                    for hit in rule.find(look, one):
                        self._take(hit, label, look)

    def _take(self, hit: Hit, label: str, look: Look | None = None) -> None:
        """Follow a hit where that decides its level, and join it with those of other inputs."""
        select = self.options.select
        if select is not None and not any(select.search(name) for name in (hit.tensor, hit.node) if name):
            return
        if hit.changed is not None and look is not None and self.joined.level(hit) != "error":
            fate = follow(look, hit.changed, self.budget)
            worst = fate.worst_output
            hit.output, hit.output_error = worst, fate.outputs[worst] if worst is not None else None
            if max(fate.open_error, hit.output_error or 0.0) < hit.least:
                return
            hit.downstream = fate.words()
            if hit.level == "error" and (not fate.breaks or (hit.doubtful and not fate.computed)):
                hit.level = "warning"
        elif hit.changed is not None:
            hit.level = "warning"  # known to be an error on another input, which is what the finding shows
        hit.settle(label)
        self.joined.add(hit)
