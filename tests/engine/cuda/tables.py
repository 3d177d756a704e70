"""Every table of cases by its name, for those who look at all of them: budgets of kernels, sanitizers."""

from __future__ import annotations

from tests.engine.cuda import (
    attention_op_cases,
    cases,
    function_cases,
    integer_cases,
    more_cases,
    normalised_cases,
    ranked_cases,
    sampled_cases,
    selected_cases,
    volume_cases,
)

_NAMES = {
    cases: "POINTWISE SOFTMAX NORMS REDUCTIONS MOVES PRODUCTS CONVOLUTIONS POOLS",
    attention_op_cases: "ATTENTION ROTARY",
    function_cases: "FUNCTIONS",
    more_cases: "RECURRENT INDEXED GENERATED QUANTISED",
    volume_cases: "VOLUMES MORE_POOLS RESIZES",
    ranked_cases: "TOP_K COMBINED",
    sampled_cases: "SAMPLES REGIONS",
    normalised_cases: "NORMALISED NOTHING INTEGERS",
    integer_cases: "PRODUCTS_OF_INTEGERS CONVOLUTIONS_OF_INTEGERS DYNAMIC",
    selected_cases: "SELECTED",
}
TABLES = {name: getattr(module, name) for module, names in _NAMES.items() for name in names.split()}
