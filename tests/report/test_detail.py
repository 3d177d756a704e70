"""The drill-down of a page: what is drawn is what the result holds; well formed, bounded, and closed against damaged files."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probe
from probe.report.html import detail_axis, detail_parts, detail_plots
from probe.report.html.page import html_page
from probe.results.detail import ChannelError, ChannelErrors, Detail, FormatLimits, Histogram, Images
from probe.results.diff import DiffResult, TensorDiff
from probe.results.publish import example_diff, example_run, example_tensor
from tests.bench.report import result_of
from tests.report.test_html import HOSTILE, Tree

BOX = (detail_axis.WIDTH, detail_axis.HEIGHT)


def judged() -> DiffResult:
    """A picture, a tensor of channels, one that overflows, one of a few zeros and masks."""
    rng = np.random.default_rng(0)
    golden = {
        "picture": rng.uniform(0, 1, (2, 3, 40, 60)),
        "channels": rng.standard_normal((4, 200)) * np.geomspace(1e-6, 1e3, 200),
        "overflow": np.linspace(-9e4, 9e4, 64).reshape(8, 8),
        "masked": np.where(rng.random((8, 8)) < 0.2, -3.4e38, rng.standard_normal((8, 8)).clip(0)),
    }
    with np.errstate(over="ignore"):
        actual = {name: x.astype(np.float16).astype(np.float32) for name, x in golden.items()}
    return probe.diff(actual, {name: x.astype(np.float32) for name, x in golden.items()}, precision="fp16")


RESULT = judged()
PAGE = html_page(RESULT)


def tensor(name: str) -> TensorDiff:
    return next(t for t in RESULT.tensors if t.name == name)


def of(name: str) -> Detail:
    found = tensor(name).detail
    assert found is not None
    return found


def part(name: str, page: str = PAGE) -> str:
    """The drill-down of one tensor."""
    (found,) = [
        one for one in page.split('<details class="drill')[1:] if f"<code>{name}</code>" in one.split("</summary>")[0]
    ]
    return found


def numbers_of(markup: str) -> list[float]:
    return [float(x) for d in re.findall(r' d="([^"]*)"', markup) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", d)]


def test_every_detailed_tensor_opens_by_itself_and_by_a_link() -> None:
    tree = Tree(PAGE)
    ids = tree.values("id")
    assert len(ids) == len(set(ids))
    drilled = {i for i in ids if re.fullmatch("detail-[0-9a-f]{12}", i)}
    assert len(drilled) == len(RESULT.tensors) == 4
    assert drilled <= {href[1:] for href in tree.values("href")}
    assert {x for v in tree.values("aria-labelledby") for x in v.split()} <= set(ids)
    run = replace(example_run(), tensors=tuple(replace(t, detail=of("channels")) for t in example_run().tensors))
    links = [href for href in Tree(html_page(run)).values("href") if href.startswith("#detail-")]
    assert len(links) > len(set(links)), "from the outputs and from the layers"


def test_pictures_stay_in_their_frame_and_say_what_they_show() -> None:
    for svg in re.findall(r'<svg viewBox="0 0 480.*?</svg>', PAGE):
        assert "<title" in svg and "<desc" in svg and 'role="img"' in svg
        for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", svg):
            assert 0 <= float(x) <= BOX[0] and 0 <= float(y) <= BOX[1]
        assert all(-1 <= n <= BOX[0] for n in numbers_of(svg))
    assert "nan" not in "".join(re.findall(r' d="([^"]*)"', PAGE)).lower()


@pytest.mark.parametrize("name", ["picture", "channels", "overflow", "masked"])
def test_bars_are_as_high_as_counts(name: str) -> None:
    """The outline of the positive numbers of actual, read back from the picture."""
    found = of(name)
    mirrored = any(found.golden.negative) or any(found.actual.negative)
    ground = (detail_axis.TOP + detail_axis.BOTTOM) / 2 if mirrored else detail_axis.BOTTOM
    drawn = str(detail_plots.histogram(found, "x"))
    (path, *_) = re.findall(r'<path d="([^"]*)" class="step actual">', drawn)
    heights = [ground - float(y) for y in re.findall(r"V([\d.]+)", path)][:-1]
    counts = list(found.actual.positive)
    while counts[0] == 0:
        counts.pop(0)
    while counts[-1] == 0:
        counts.pop()
    changes = [n for i, n in enumerate(counts) if i == 0 or n != counts[i - 1]]
    assert len(heights) == len(changes)
    unit = heights[0] / (math.log10(changes[0]) + 0.35)
    assert [h / unit - 0.35 if h > 0.1 else -math.inf for h in heights] == pytest.approx(
        [math.log10(n) if n else -math.inf for n in changes], abs=0.02
    )


def test_the_limits_of_a_format_are_where_they_are() -> None:
    axis = detail_axis.axis_of(of("overflow"))
    assert axis.low < -25 and axis.high > 16
    assert axis.x(16) < axis.right and axis.x(-25) > axis.left
    markup = str(detail_plots.histogram(of("overflow"), "x"))
    zones = [
        (float(x), float(w))
        for x, w in re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)" height="\d+" class="zone', markup)
    ]
    assert [round(x) for x, _ in zones] == [round(axis.x(e)) for e in (axis.low, -25, math.log2(65504))]
    assert round(zones[1][0] + zones[1][1]) == round(axis.x(-14))
    for words in ("→ 0", "subnormal", "held by FP16", "→ Inf"):
        assert words in markup
    held = replace(of("overflow"), limits=FormatLimits("bf16", 0, 0, 0))
    assert "→ Inf" not in str(detail_plots.histogram(held, "x")), "a range that values are far from is not squeezed in"
    assert "zone" not in str(detail_plots.histogram(replace(held, limits=None), "x"))


def test_words_say_what_a_format_does_to_golden() -> None:
    assert "elements" in part("overflow") and "beyond its largest number, 65504" in part("overflow")
    assert "FP16 holds all of golden as normal numbers" in part("picture")
    assert "subnormal, with fewer bits" in part("channels")
    assert ">more</text>" in part("masked") and "zero" in part("masked")
    sampled = replace(tensor("picture"), detail=replace(of("picture"), count=10**9))
    page = html_page(replace(RESULT, tensors=(sampled,)))
    assert "from 14,400 of 1,000,000,000 elements" in part("picture", page)


def test_worst_elements_and_channels_are_listed() -> None:
    said = part("channels")
    worst = tensor("channels").worst
    assert len(worst) == 5
    for one in worst:
        assert f"[{','.join(map(str, one.index))}]" in said and f"{one.golden:.6g}" in said
    channels = of("channels").channels
    assert channels is not None and channels.per_place == 4
    assert "channel, 4 a bar" in said
    for channel in channels.worst:
        assert f"<td>{channel.channel}</td>" in said
    bars = re.findall(r'<path d="([^"]*)" class="bar error">', said)[0]
    assert bars.count("M") == sum(e > 0 for e in channels.error) == 50


def test_pictures_are_embedded_and_the_policy_allows_nothing_else() -> None:
    images = of("picture").images
    assert images is not None
    tree = Tree(PAGE)
    sources = tree.values("src")
    assert sources == [f"data:image/png;base64,{x}" for x in (images.golden, images.actual, images.difference)]
    assert [a["alt"] for tag, a in tree.tags if tag == "img"] == [
        "golden as a picture",
        "actual as a picture",
        "difference as a picture",
    ]
    assert f"difference × {images.amplification:g}" in PAGE
    policy = next(a["content"] or "" for t, a in tree.tags if t == "meta" and "http-equiv" in a)
    assert "img-src data:;" in policy


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_and_pictures_are_shown_and_never_run(hostile: str) -> None:
    images = of("picture").images
    assert images is not None
    evil = replace(of("picture"), input_id=hostile, images=replace(images, golden=hostile))
    plain = html_page(replace(RESULT, tensors=(replace(tensor("picture"), detail=evil, inputs=2),)))
    named = html_page(replace(RESULT, tensors=(replace(tensor("picture"), name=hostile, detail=evil, inputs=2),)))
    for page in (plain, named):
        tree = Tree(page)
        assert [tag for tag, _ in tree.tags].count("script") == 1
        assert [tag for tag, _ in tree.tags].count("img") == 3
        assert all(source.startswith("data:image/png;base64,") for source in tree.values("src"))
        assert not [a for _, attributes in tree.tags for a in attributes if a.startswith("on")]


counts = st.lists(st.integers(-5, 10**15), max_size=60).map(tuple)
anything = st.floats(allow_nan=True, allow_infinity=True)
errors = st.lists(st.none() | anything, max_size=60).map(tuple)
whole = st.integers(-(10**20), 10**20)
histograms = st.builds(Histogram, counts, counts, *[st.integers(-3, 10**15)] * 5)
channels = st.builds(
    ChannelErrors, whole, whole, st.lists(st.builds(ChannelError, whole, anything, anything), max_size=3).map(tuple), whole,
    st.lists(anything, max_size=70).map(tuple), st.lists(anything, max_size=70).map(tuple),
)  # fmt: skip
limits = st.builds(FormatLimits, st.sampled_from(["fp16", "bf16", "fp32", "tf32", "fp64", "fp99"]), whole, whole, whole)
any_detail = st.builds(
    Detail, st.text(max_size=5), whole, whole, whole, whole, histograms, histograms, st.none() | limits, errors, errors,
    st.none() | anything, st.none() | channels,
    st.none() | st.builds(Images, whole, whole, whole, whole, anything, anything, anything, *[st.text(max_size=9)] * 3),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(any_detail)
def test_a_damaged_file_is_drawn_as_far_as_it_goes(detail: Detail) -> None:
    markup = str(detail_parts.details([example_tensor("x", detail=detail)], example_diff().acceptance))
    Tree(markup)
    drawn = "".join(re.findall(r' d="([^"]*)"', markup))
    assert "nan" not in drawn and "inf" not in drawn


def test_a_thousand_layers_with_all_details_are_small_and_quick() -> None:
    kinds = [of(name) for name in ("picture", "channels", "overflow")]
    tensors = tuple(
        example_tensor(
            f"/encoder/layer.{i}/attention/self/Erf_{i}_output_0",
            role="internal",
            detail=replace(kinds[i % 3], images=None),
        )
        for i in range(24)
    )
    base = result_of(1000)
    full: Any = replace(base, tensors=(*base.tensors, *tensors))
    begin = time.process_time()
    page = html_page(full)
    taken = time.process_time() - begin
    assert len(page.encode()) < 3e6 and len(page) - len(html_page(base)) < 24 * 16_000
    assert taken < 4
