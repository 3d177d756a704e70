"""What overlays say of nodes: every measure of the result, valid JSON whatever the numbers, colours of the page."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from probe.errors import InputError
from probe.report.html.graph_scale import error_scale
from probe.report.overlay.measures import OVERLAID, measures, node_metadata
from probe.report.overlay.model_explorer import RAMP, node_data_files
from probe.results.diff import Criterion
from probe.results.find import FindResult
from probe.results.publish import example_layer, example_run, examples
from tests.report.test_html import HOSTILE


def strict(text: str) -> Any:
    """JSON without NaN and Infinity, which no browser reads."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"not JSON: {constant}")

    return json.loads(text, parse_constant=refuse)


def values(result: Any, key: str) -> dict[str, Any]:
    (found,) = [one.values for one in measures(result) if one.key == key]
    return found


def test_every_result_that_speaks_of_nodes_has_an_overlay_and_others_are_refused() -> None:
    made = {}
    for name, result in examples().items():
        if getattr(result, "schema", "") in OVERLAID:
            made[name] = [one.key for one in measures(result)]
        else:
            with pytest.raises(InputError, match="says nothing of single nodes"):
                measures(result)
    assert made.keys() == {"run", "find", "bench"}
    assert made["run"] == [
        "accumulated",
        "injected",
        "local",
        "gain",
        "status",
        "finding",
        "precision",
        "tactic",
        "layer",
    ]
    assert made["find"][:2] == ["keep", "certificate"]
    assert {"latency_us", "precision", "tactic"} <= set(made["bench"])


def test_a_run_says_of_each_node_what_its_layer_says() -> None:
    result = example_run()
    accumulated = values(result, "accumulated")
    for layer in result.layers:
        assert all(accumulated[node] == layer.accumulated for node in layer.nodes)
    assert "/head/Reshape" not in values(result, "local"), "what was not measured is left out and not zero"
    assert values(result, "status")["/norm/Pow"] == "first divergence, beyond the acceptance"
    assert values(result, "status")["/head/MatMul"] == "NaN or Inf, beyond the acceptance"
    assert "/stem/MatMul" not in values(result, "status")
    assert values(result, "finding") == {"/norm/Pow": "overflow"}
    assert values(result, "layer") == dict.fromkeys(result.layers[1].nodes, result.layers[1].name)
    harmless = replace(result, findings=tuple(replace(f, fatal=False) for f in result.findings))
    assert values(harmless, "finding") == {"/norm/Pow": "overflow (harmless)"}


def test_a_node_in_several_layers_has_the_worst_of_them() -> None:
    layers = tuple(
        example_layer(f"l{i}", nodes=("shared", f"n{i}"), accumulated=error)
        for i, error in enumerate((0.1, 0.3, math.nan, 0.2))
    )
    assert math.isnan(values(replace(example_run(), layers=layers), "accumulated")["shared"])
    assert values(replace(example_run(), layers=(*layers[:2], layers[3])), "accumulated")["shared"] == 0.3


def test_find_marks_what_stays_in_fp32_and_what_it_costs_to_leave_it_out() -> None:
    result = examples()["find"]
    assert isinstance(result, FindResult)
    kept = {node for one in result.keep for node in one.nodes_fp32}
    assert values(result, "keep") == dict.fromkeys(kept, "fp32") and kept
    assert values(result, "certificate").keys() <= kept
    unproved = replace(result, keep=tuple(replace(one, certificate=None) for one in result.keep))
    assert "certificate" not in [one.key for one in measures(unproved)] and values(unproved, "keep")


def test_times_stand_at_the_last_node_of_a_layer_and_add_up() -> None:
    bench = examples()["bench"]
    nodes = (("a", "b"), ("c",), ("d", "c"), ())
    layers = tuple(replace(bench.layers[0], name=str(i), nodes=n, median=(i + 1) * 1e-6) for i, n in enumerate(nodes))
    assert values(replace(bench, layers=layers), "latency_us") == pytest.approx({"b": 1.0, "c": 5.0})
    assert values(replace(bench, layers=layers), "layer") == {"a": "0", "b": "0", "d": "2", "c": "2"}
    assert values(replace(bench, layers=layers), "bound") == dict.fromkeys("abcd", layers[0].bound) and layers[0].bound
    skipped = (*layers, replace(layers[0], name="branch", nodes=("e",), median=None))
    assert "e" not in values(replace(bench, layers=skipped), "latency_us")


@pytest.mark.parametrize("name", ["run", "find", "bench"])
def test_files_are_json_of_the_published_form(name: str) -> None:
    result = examples()[name]
    made = node_data_files(result)
    assert made.keys() == {f"{one.key}.json" for one in measures(result)}
    for measure, text in zip(measures(result), made.values(), strict=True):
        data = strict(text)
        assert data["results"].keys() == measure.values.keys() and data["name"].startswith("probe: ")
        bounds = [one["value"] for one in data.get("thresholds", ())]
        assert bounds == sorted(bounds) and (
            "gradient" not in data or {one["stop"] for one in data["gradient"]} >= {0, 1}
        )
        for node, one in data["results"].items():
            if isinstance(one["value"], str):
                assert re.fullmatch("#[0-9a-f]{6}", one["bgColor"]), "words have no place on a scale"
            else:
                assert one["value"] == pytest.approx(measure.values[node], rel=1e-3)
                assert "gradient" in data or one["value"] <= bounds[-1], "every number has a colour"


def test_nan_and_inf_are_words() -> None:
    layers = tuple(
        example_layer(n, accumulated=v) for n, v in (("a", math.inf), ("b", math.nan), ("c", 0.5), ("d", -math.inf))
    )
    results = strict(node_data_files(replace(example_run(), layers=layers))["accumulated.json"])["results"]
    assert [results[n]["value"] for n in "abcd"] == ["Inf", "NaN", 0.5, "-Inf"]
    assert results["a"]["bgColor"] == RAMP[-1] and "bgColor" not in results["c"]


def test_with_ids_each_graph_has_its_own_and_what_is_not_drawn_is_left_out() -> None:
    layers = tuple(example_layer(n) for n in ("top", "inner", "gone"))
    ids = {"top": ("main", "top_1"), "inner": ("loop/body", "inner")}
    data = strict(node_data_files(replace(example_run(), layers=layers), ids)["precision.json"])
    assert {graph: list(one["results"]) for graph, one in data.items()} == {"main": ["top_1"], "loop/body": ["inner"]}


def test_colours_are_those_of_the_page_and_the_limit_that_of_the_acceptance() -> None:
    style = files("probe.report.html").joinpath("style.css").read_text(encoding="utf-8")
    assert tuple(re.findall(r"--e\d: light-dark\((#\w{6})", style)) == RAMP
    limit = Criterion("range_rel", "<=", 0.2)
    several = (limit, Criterion("range_rel", "<=", 0.01, level="warn"))
    for example, file in ((example_run(), "local.json"), (examples()["find"], "certificate.json")):
        for acceptance in (example.acceptance, several, ()):
            result = replace(example, acceptance=acceptance)
            bounds = [one["value"] for one in strict(node_data_files(result)[file])["thresholds"]]
            assert bounds[:-1] == list(error_scale(acceptance).edges) and bounds[-1] == sys.float_info.max
            assert (limit.threshold in bounds) == (acceptance == several)


def test_metadata_is_text_with_a_prefix() -> None:
    said = node_metadata(example_run())
    assert said["/head/MatMul"] == {
        "probe.accumulated": "inf", "probe.injected": "0.0003", "probe.local": "0.0002", "probe.status": "NaN or Inf, beyond the acceptance",
        "probe.precision": "fp16", "probe.tactic": "exact",
    }  # fmt: skip
    assert all(isinstance(v, str) and k.startswith("probe.") for one in said.values() for k, v in one.items())


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_are_keys_as_they_are(hostile: str) -> None:
    result = replace(example_run(), layers=(example_layer("l", nodes=(hostile,)),), findings=())
    for text in node_data_files(result).values():
        assert text.isascii() and list(strict(text)["results"]) == [hostile]
