"""Builds that choose differently: what flips, what flips do, which pins make the builds agree."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from probe.blame.builds import compare_builds
from probe.engine.tuning.context import Candidate, LayerContext
from probe.engine.tuning.selector import PreferAccurate, Random
from probe.errors import InputError
from probe.model.load import load
from probe.report.terminal import render
from probe.results.json import dumps, loads
from tests.blame.planted import Chain, chain


class Scripted:
    """A build whose choices are written down: layer -> tactic; exact where nothing is said."""

    name = "scripted"

    def __init__(self, **tactics: str) -> None:
        self._tactics = {name.replace("_", " "): tactic for name, tactic in tactics.items()}

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        wanted = self._tactics.get(context.layer, "exact")
        return [one for one in candidates if one.tactic == wanted]

    def chosen(self, context: LayerContext, candidate: Candidate) -> None:
        """Nothing to do."""


def builds_of(made: Chain, *builds: Any):
    return compare_builds(load(made.path), made.sets, len(builds), selectors=lambda at: [builds[at]])


def test_one_bad_build_of_four(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 6, {2: 0.2})
    found = builds_of(
        made, Scripted(), Scripted(product_1="acc16"), Scripted(product_2="acc16", product_4="splitk2"), Scripted()
    )
    assert found.verdict == "failed" and not found
    assert [one.run.passed for one in found.builds] == [True, True, False, True]
    assert found.builds[0].tactics_sha256 == found.builds[3].tactics_sha256 != found.builds[1].tactics_sha256
    assert found.builds[0].outputs_sha256 == found.builds[3].outputs_sha256 != found.builds[2].outputs_sha256
    flips = {one.layer: one for one in found.flipping}
    assert list(flips) == ["product 1", "product 2", "product 4"] and found.layers == 6
    assert [one.flips for one in found.flipping] == [2, 2, 2]
    usual, other = flips["product 2"].effects
    assert (usual.tactic, usual.builds, usual.changed) == ("exact", 3, 0.0)
    assert (other.tactic, other.builds) == ("acc16", 1) and other.changed == pytest.approx(0.2, abs=0.01)
    assert other.run is not None and not other.run.passed and len(other.median_us) == 4
    assert [(one.layer, one.tactic) for one in found.pins] == [("product 2", "exact")] and found.pinned_passes
    assert {one.layer for one in found.pins_for_bits} >= {"product 2"}
    assert loads(dumps(found)) == found
    text = " ".join(render(found).split())
    assert (
        "3 of 4 builds pass; 3 of 6 layers with a choice flip" in text
        and "Every build passes with exact on product 2" in text
    )


def test_a_pair_that_breaks_one_build_only_together(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 6, {1: 0.035, 4: 0.035})
    found = builds_of(
        made, Scripted(product_1="acc16"), Scripted(product_4="acc16"), Scripted(product_1="acc16", product_4="acc16"), Scripted(),
        Scripted(),
    )  # fmt: skip
    assert [one.run.passed for one in found.builds] == [True, True, False, True, True]
    assert all(effect.run is not None and effect.run.passed for one in found.flipping for effect in one.effects)
    (pin,) = found.pins
    assert pin.layer in ("product 1", "product 4") and pin.tactic == "exact"


def test_flips_without_an_effect_need_no_pin(tmp_path: Path) -> None:
    """Ranges of zeros are added in another order: the same bits."""
    made = chain(tmp_path / "c.onnx", 3, {})
    found = builds_of(made, Scripted(), Scripted(product_0="splitk2"))
    assert found and [one.layer for one in found.flipping] == ["product 0"]
    assert {one.changed for one in found.flipping[0].effects} == {0.0}
    assert found.pins == found.pins_for_bits == () and len({one.outputs_sha256 for one in found.builds}) == 1


@pytest.mark.parametrize("seed", range(4))
def test_pins_do_what_they_say(tmp_path: Path, seed: int) -> None:
    """Builds with the pins pass, all of them; builds with the others make the same bits. Run here again, from nothing."""
    rng = random.Random(seed)
    made = chain(tmp_path / "c.onnx", 10, dict.fromkeys(rng.sample(range(10), 3), 0.2), seed)
    chosen = [Random(seed * 10 + at) for at in range(4)]
    found = builds_of(made, *chosen)
    passing, same = (
        builds_of(made, *(_Pinned(one, {pin.layer: pin.tactic for pin in pins}) for one in chosen)).builds
        for pins in (found.pins, found.pins_for_bits)
    )
    assert all(one.run.passed for one in passing) == found.pinned_passes
    assert len({one.outputs_sha256 for one in same}) == 1
    assert found.pinned_passes or not made.planted.keys() <= {one.layer for one in found.flipping}


class _Pinned:
    name = "pinned"

    def __init__(self, inner: Random, pins: dict[str, str]) -> None:
        self._inner, self._pins = inner, pins

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        if context.layer in self._pins:
            return [one for one in candidates if one.tactic == self._pins[context.layer]]
        return self._inner.select(context, candidates)

    def chosen(self, context: LayerContext, candidate: Candidate) -> None:
        """Nothing to do."""


def test_builds_that_measure_agree_in_what_they_report(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 4, {})
    found = compare_builds(load(made.path), made.sets, 2)
    assert found and len(found.builds) == 2 and all(one.layers_us and one.layers_us > 0 for one in found.builds)
    steady = compare_builds(load(made.path), made.sets, 2, selectors=lambda _at: [PreferAccurate(), Scripted()])
    assert steady.flipping == () and "all make the same bits" in " ".join(render(steady).split())


def test_one_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to be compared with"):
        builds_of(chain(tmp_path / "c.onnx", 2, {}), Scripted())
