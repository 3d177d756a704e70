"""``Look``: one input's golden beside the graph, as rules see it: ranges, arrays, operators computed again on changed operands."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from probe.debug.causes import rounded
from probe.debug.check.facts import MASK, scale_of
from probe.debug.check.hits import Range
from probe.debug.check.sites import Site, Sites, Source
from probe.errors import InputError
from probe.model.scopes import Scope
from probe.precision import Precision, kind_of
from probe.results.tensors import TensorInfo
from probe.runners.fp64.calls import widen
from probe.runners.fp64.control import finish
from probe.runners.fp64.evaluate import Evaluator
from probe.runners.fp64.frames import Frame
from probe.store.opening import read_array
from probe.store.source import TensorSource
from probe.store.statistics import range_statistics

Array = np.ndarray[Any, Any]

_CACHED_BYTES = 256 << 20  # of arrays read from the recording that are kept for their next reader


class Operators:
    """Single nodes computed in float64 by the ``fp64`` runner's kernels. One for all inputs: what a node needs is prepared once."""

    def __init__(self, sites: Sites) -> None:
        self._model = sites.model
        self._evaluator = Evaluator(sites.model, lambda _scope, _name: None)
        self._alone: dict[int, Scope] = {}  # by position; they live as long as this, which the evaluator relies on

    def __call__(self, site: Site, values: Sequence[Array | None]) -> dict[str, Array]:
        """Outputs of a node by recorded name; those that are no arrays are left out.

        Args:
            values: of its inputs in order, None for omitted ones.

        Raises:
            InputError: the operator cannot be computed in float64, or not with these values.
        """
        node = site.step.node
        scope = self._alone.get(site.position)
        if scope is None:
            scope = self._alone[site.position] = Scope(site.step.scope.graph, steps=[site.step])
        given = {
            name: widen(value) for name, value in zip(node.input, values, strict=True) if name and value is not None
        }
        frame = Frame(scope, self._model.opset, given, tuple(name for name in node.output if name))
        made = finish(self._evaluator.walk(frame))
        names = [shown for name, shown in zip(node.output, site.outputs, strict=True) if name]
        return {name: value for name, value in zip(names, made, strict=True) if isinstance(value, np.ndarray)}


class Look:
    """One input's golden.

    Attributes:
        form: the format that is checked.
        rows: what is known of each recorded tensor, by name.
    """

    def __init__(
        self,
        sites: Sites,
        form: Precision,
        source: TensorSource,
        input_id: str,
        feeds: Mapping[str, Array],
        operators: Operators,
    ) -> None:
        self.sites, self.form, self.input_id = sites, form, input_id
        self._source, self._feeds, self._operators = source, feeds, operators
        self.rows: dict[str, TensorInfo] = {
            row.name: row
            for row in source.rows()
            if row.input_id == input_id and row.status in ("recorded", "stats_only")
        }
        self._arrays: OrderedDict[str, Array] = OrderedDict()
        self._bytes = 0
        self._ranges: dict[Hashable, Range | None] = {}

    # --- tensors -----------------------------------------------------------------------------------------------------

    def floats(self) -> list[str]:
        """Floating-point tensors that are there, graph inputs first, in execution order."""
        names = [name for name in self._feeds if name not in self.rows]
        names += [name for name in self.rows if name in self.sites.names or name in self.sites.inputs]
        return [name for name in names if self.is_float(name)]

    def is_float(self, name: str) -> bool:
        """Whether a tensor is known to hold floating-point numbers."""
        row = self.rows.get(name)
        if row is not None:
            return kind_of(row.dtype) == "float" if row.dtype != "unknown" else False
        return name in self._feeds and np.asarray(self._feeds[name]).dtype.kind == "f"

    def has(self, name: str) -> bool:
        """Whether a tensor's values are there."""
        return name in self._feeds or (name in self.rows and self.rows[name].status == "recorded")

    def array(self, name: str) -> Array | None:
        """Golden values; None where only statistics or nothing was recorded. float16 and bfloat16 come as float32."""
        if name in self._arrays:
            self._arrays.move_to_end(name)
            return self._arrays[name]
        row = self.rows.get(name)
        if row is not None and row.status == "recorded":
            value = read_array(self._source, row)
        elif name in self._feeds:
            value = np.asarray(self._feeds[name])
        else:
            return None
        if value.dtype.name in ("float16", "bfloat16"):
            value = value.astype(np.float32)
        self._arrays[name] = value
        self._bytes += value.nbytes
        while self._bytes > _CACHED_BYTES and len(self._arrays) > 1:
            self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        return value

    def range(self, name: str) -> Range | None:
        """Finite extremes of a float tensor; None for others and for what is not there."""
        if name not in self._ranges:
            self._ranges[name] = self._range(name)
        return self._ranges[name]

    def _range(self, name: str) -> Range | None:
        if not self.is_float(name):
            return None
        row = self.rows.get(name)
        if row is not None and row.absmax_finite is not None:
            return Range(row.min, row.max, row.absmax_finite)
        if row is not None and row.nan is not None and row.status == "stats_only":
            return Range()
        value = self.array(name)
        return Range.of(value) if value is not None else None

    def reach(self, name: str) -> float:
        """max |golden| over finite elements that are no masks; 0 where it is not known."""
        known = self.range(name)
        if known is None or known.absmax is None:
            return 0.0
        if known.absmax < MASK:
            return known.absmax
        value = self.array(name)
        return scale_of(value) if value is not None else 0.0

    def least(self, name: str) -> float:
        """The smallest non-zero magnitude of a float tensor; Inf where there is none."""
        row = self.rows.get(name)
        if row is not None and row.nan is not None:
            return row.min_abs_nonzero if row.min_abs_nonzero is not None else np.inf
        value = self.array(name)
        least = range_statistics(value)["min_abs_nonzero"] if value is not None and value.dtype.kind == "f" else None
        return np.inf if least is None else least

    # --- what nodes read ---------------------------------------------------------------------------------------------

    def read(self, source: Source | None) -> Array | None:
        """Values of what a node reads: constants and golden tensors; None where they are not known."""
        if source is None:
            return None
        return self.sites.value(source) if source.constant else self.array(source.name)

    def reads(self, site: Site) -> list[Array | None] | None:
        """Values of everything a node reads, None for omitted inputs; None where one of them is not known."""
        values = [self.read(source) for source in site.inputs]
        given = [bool(name) for name in site.step.node.input]
        return values if all(v is not None for v, there in zip(values, given, strict=True) if there) else None

    def reach_of(self, source: Source | None) -> float:
        """``reach`` of what a node reads; of constants, too. 0 for integers and what is not known."""
        if source is None:
            return 0.0
        if not source.constant:
            return self.reach(source.name)
        return self.sites.facts(source).scale

    def compute(self, site: Site, values: Sequence[Array | None]) -> dict[str, Array]:
        """A node's outputs from these values; {} where float64 cannot compute it."""
        try:
            return self._operators(site, values)
        except InputError:
            return {}

    def from_rounded(self, site: Site) -> Array | None:
        """A node's first output as made from its rounded operands, itself not rounded; None where that cannot be told."""
        values = None if site.looped else self.reads(site)
        if values is None:
            return None
        low = [v if v is None or v.dtype.kind != "f" else rounded(v, self.form) for v in values]
        return self.compute(site, low).get(site.tensor)


def error_of(actual: Array, golden: Array) -> float:
    """max |actual - golden| / range of the golden; Inf where one is finite and the other not, or infinities have different signs."""
    if actual.shape != golden.shape:
        return np.inf
    finite = np.isfinite(golden)
    with np.errstate(all="ignore"):
        if not np.array_equal(finite, np.isfinite(actual)):
            return np.inf
        if not bool((finite | (actual == golden) | (np.isnan(actual) & np.isnan(golden))).all()):
            return np.inf
        scale = scale_of(golden)
        counted = finite & (np.abs(golden) <= scale)
        worst = float(np.abs(np.subtract(actual, golden, dtype=np.float64)).max(initial=0.0, where=counted))
    if worst == 0.0:
        return 0.0
    return worst / scale if scale else np.inf
