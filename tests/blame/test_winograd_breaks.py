"""The field's classic on a public network and real activations: Winograd F(4x4) with FP16 transforms overflows in SqueezeNet's last expand
layer, and nowhere else. Bisecting, denying and ``find`` cure it, each without a tensor in FP32."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import probe
from probe.engine.tuning.context import Candidate, LayerContext

GUILTY = "fire9/expand3x3_2"  # a tensor
WINOGRAD = "winograd_f4"


class Preferring:
    """One tactic first, wherever it is a candidate."""

    name = "preferring"

    def __init__(self, tactic: str) -> None:
        self.tactic = tactic

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        del context
        return sorted(candidates, key=lambda one: one.tactic != self.tactic)

    def chosen(self, context: LayerContext, candidate: Candidate) -> None:
        pass


@pytest.fixture(scope="module")
def network(models: Path) -> tuple[Path, Path]:
    return models / "models" / "squeezenet_fp16.onnx", models / "data" / "squeezenet_fp16__main.npz"


@pytest.fixture(scope="module")
def files(network: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good run, all exact, and a bad one with Winograd wherever it can be."""
    folder = tmp_path_factory.mktemp("winograd")
    model, data = network
    for name, tactic in (("good", "exact"), ("bad", WINOGRAD)):
        made = probe.tactics.record_tactics(
            model, folder / name, inputs=data, measure=False, selectors=[Preferring(tactic)]
        )
        assert bool(made) is (name == "good")
    return folder


def test_the_guilty_layer_is_found_and_denied(network: tuple[Path, Path], files: Path, tmp_path: Path) -> None:
    model, data = network
    found = probe.tactics.bisect_tactics(
        files / "good", files / "bad", model, inputs=data, pinned=tmp_path / "pinned", denied=tmp_path / "deny"
    )
    assert found.confirmed and len(found.differences) == 8
    (guilty,) = found.guilty
    assert (guilty.choice.outputs, guilty.choice.bad, guilty.choice.good) == ((GUILTY,), WINOGRAD, "exact")
    assert guilty.alone and guilty.choice.changed == math.inf
    pinned = probe.tactics.replay_tactics(model, tmp_path / "pinned", inputs=data)
    assert pinned and pinned.identical and [one.tactic for one in pinned.run.layers].count(WINOGRAD) == 7
    rules = [f"@{tmp_path / 'deny'}"]
    anew = probe.tactics.record_tactics(
        model, tmp_path / "anew", inputs=data, measure=False, deny=rules, selectors=[Preferring(WINOGRAD)]
    )
    assert anew and [one.tactic for one in anew.run.layers].count(WINOGRAD) == 7
    with pytest.raises(probe.InputError, match="is no candidate") as refused:
        probe.tactics.replay_tactics(model, files / "bad", inputs=data, deny=rules)
    assert "--lenient" in refused.value.hint
    lenient = probe.tactics.replay_tactics(model, files / "bad", inputs=data, deny=rules, strict=False)
    assert lenient and [(one.kind, one.chosen) for one in lenient.misses] == [("unsupported_tactic", "exact")]
    assert [one.tactic for one in lenient.run.layers] == [one.tactic for one in pinned.run.layers]


def test_the_table_shows_it(network: tuple[Path, Path]) -> None:
    model, data = network
    found = probe.tactics.tactics_table(model, inputs=data, measure=False, tactics=re.compile("winograd_f[24]"))
    assert found, "all exact it passes"
    broken = [
        (one.outputs[0], c.tactic) for one in found.layers for c in one.candidates if c.flipped and not c.flipped.passed
    ]
    assert broken == [(GUILTY, WINOGRAD)]
    for layer in found.layers:
        rms = {one.tactic: one.rms for one in layer.candidates}
        if WINOGRAD in rms:
            assert rms["exact"] < rms["winograd_f2"] < rms[WINOGRAD]  # type: ignore[operator] - all were measured
            assert (rms[WINOGRAD] == math.inf) is (layer.outputs == (GUILTY,))


@pytest.mark.slow
def test_find_keeps_a_tactic_and_no_tensor(network: tuple[Path, Path], files: Path) -> None:
    model, data = network
    result = probe.find(model, inputs=data, tactics=files / "bad", lighter=False)
    assert (result.status, result.keep) == ("nothing_needed", ()) and result
    (switch,) = result.switches
    assert GUILTY in switch.layer and (switch.before, switch.after) == (WINOGRAD, "exact")
    assert switch.cost_us is not None and result.evaluations["tactics"] > 0
