"""``bench_network`` on small and real networks: what is measured is there and consistent. How long it takes is nobody's business here."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys

import jsonschema
import numpy as np
import onnx
import polars as pl
import pytest

from probe.engine.device.cpu import ceilings as cpu_ceilings
from probe.errors import InputError
from probe.model import load
from probe.results import json as saved
from probe.results.bench import BenchResult, Ceilings, LayerTime
from probe.store.feeds import InputSet
from probe.timing.bench import BenchOptions, batch_of, bench_network
from probe.timing.loop import Amount
from probe.timing.machine import Busy
from tests.debug import faulty
from tests.model import builders

FEW = Amount(4, 0.0, 0.0)
ROOFS = Ceilings(1e11, 2e10, "by a test")


@pytest.fixture(autouse=True)
def _known_ceilings(monkeypatch):
    """They take a second, and have a test of their own."""
    monkeypatch.setattr("probe.engine.device.cpu.timeline.measure_ceilings", lambda threads: ROOFS)


def sets_of(*feeds) -> list[InputSet]:
    return [InputSet(f"set{at}", one, f"set {at}") for at, one in enumerate(feeds)]


@pytest.fixture
def network(tmp_path):
    return load(faulty.build(tmp_path / "m.onnx"))


def bench(network, *feeds, **options) -> BenchResult:
    sets = sets_of(*(feeds or (faulty.feeds(),)))
    return bench_network(network, sets, BenchOptions(amount=FEW, layers=FEW, **options), load_seconds=0.25)


def test_everything_is_there_and_adds_up(network, tmp_path) -> None:
    result = bench(network)
    assert (result.precision, result.emulated, result.batch, result.load_seconds) == ("fp32", False, 4, 0.25)
    assert result.enqueue is None, "a CPU has no queue"
    assert result.inferences == len(result.times) == result.latency.runs == 4 and result.warmup_inferences == 2
    for one in result.times:
        assert one.begin <= one.fed <= one.computed <= one.end
    assert result.latency.max == pytest.approx(max(one.latency for one in result.times))
    assert result.throughput == pytest.approx(4 / result.measured_seconds)
    assert all(
        layer.runs == 4 and layer.median and layer.flops is not None and layer.live_bytes for layer in result.layers
    )
    assert result.layers_sum == pytest.approx(sum(layer.median or 0.0 for layer in result.layers))
    assert result.layers_whole and result.call_seconds and result.floor
    assert result.floor == pytest.approx(sum(layer.floor or 0.0 for layer in result.layers))
    assert result.memory is not None and result.memory.unknown == 0
    assert {"passes", "gated session"} <= result.compile_seconds.keys()
    assert {port.name: port.shape for port in result.tensors}["x"] == (4, 32)
    saved.save(result, tmp_path / "r.json")
    tree = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(tree, saved.schema_of(BenchResult))
    assert saved.load(tmp_path / "r.json") == result


def test_the_frame_has_a_row_a_layer(network) -> None:
    result = bench(network)
    frame = result.frame()
    assert frame.height == len(result.layers) and frame.columns == list(LayerTime.__dataclass_fields__)
    assert frame["median"].dtype == pl.Float64 and frame["flops"].dtype == pl.Int64
    assert frame["name"].to_list() == [layer.name for layer in result.layers]


def test_the_clock_that_is_given_measures_everything(network) -> None:
    """A clock that only counts its readings: 3 steps from begin to end, one of them computing."""
    ticks = itertools.count()
    result = bench_network(
        network, sets_of(faulty.feeds()), BenchOptions(amount=FEW, by_layer=False), clock=lambda: float(next(ticks)),
        looks=lambda: Busy(0.0, None, 0.0),
    )  # fmt: skip
    assert (result.latency.min, result.latency.max) == (3.0, 3.0)
    assert result.compute.mean == result.input_copy.mean == result.output_copy.mean == 1.0
    assert result.status == "stable" and not [one for one in result.warnings if "vary" in one]


def test_a_busy_machine_is_said(network) -> None:
    looks = iter([Busy(0.0, 0.0, 0.0), Busy(10.0, 400.0, 10.0)])
    result = bench_network(
        network, sets_of(faulty.feeds()), BenchOptions(amount=FEW, by_layer=False), looks=lambda: next(looks)
    )
    assert result.other_load == pytest.approx(39.0)
    assert not result and result.status == "unstable" and "other programs kept 39.0" in " ".join(result.warnings)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_an_emulated_precision_says_so_and_is_held_against_no_ceiling(network, precision) -> None:
    result = bench(network, precision=precision)
    assert result.emulated and "emulated" in result.device
    assert all(layer.roofline is None and layer.floor is None and not layer.bound for layer in result.layers)
    assert result.ceilings == ROOFS and result.floor is None


def test_what_is_kept_runs_in_fp32(network) -> None:
    result = bench(network, precision="fp16", keep=(re.compile("act1$"),))
    assert "act1" in result.keep and {layer.precision for layer in result.layers} == {"fp32", "fp16"}


def test_latency_only(network) -> None:
    result = bench(network, by_layer=False)
    assert result.layers == () and result.memory is None and result.ceilings is None and result.floor is None


def test_streams(network) -> None:
    result = bench(network, streams=3)
    assert result.streams == 3 and {one.stream for one in result.times} == {0, 1, 2}


def test_several_input_sets_take_turns_and_a_batch_is_what_they_share(network) -> None:
    small = {"x": faulty.feeds()["x"][:2]}
    assert bench(network, faulty.feeds(), small).batch is None
    assert bench(network, small, small).batch == 2


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [([(4, 3)], 4), ([(4, 3), (4,)], 4), ([(4, 3), (2, 4)], None), ([(4, 3), ()], None), ([()], None)],
)
def test_batch(shapes, batch) -> None:
    assert batch_of(sets_of({f"x{at}": np.zeros(shape) for at, shape in enumerate(shapes)})) == batch


def test_more_times_than_are_saved(network, monkeypatch) -> None:
    monkeypatch.setattr("probe.timing.bench.MOST_TIMES", 10)
    options = BenchOptions(amount=Amount(25, 0.0, 0.0), by_layer=False)
    result = bench_network(network, sets_of(faulty.feeds()), options)
    assert result.inferences == result.latency.runs == 25 and len(result.times) == 9
    assert [one.begin for one in result.times] == sorted(one.begin for one in result.times)


def test_a_branch_that_is_not_taken_has_no_time(tmp_path) -> None:
    onnx.save(builders.if_else(), tmp_path / "m.onnx")
    feeds = {"x": np.ones((2, 3), np.float32), "c": np.array(True)}
    result = bench(load(tmp_path / "m.onnx"), feeds, fusion="none")
    ran = {layer.name: layer.runs > 0 for layer in result.layers}
    assert ran == {"neg": True, "relu": True, "exp": False, "double": False}
    assert all(layer.live_bytes is None for layer in result.layers if not layer.runs)
    assert result.memory is not None and result.memory.unknown == 0


LACKING = """<ir_version: 10, opset_import: ["" : 22]>
g (float[1,2,6,6] x, float[n,4] rois, int64[n] item) => (float[n,2,2,2] y)
{ a = Relu (x)  r = RoiAlign <output_height = 2, output_width = 2> (a, rois, item)  y = Neg (r) }"""


def test_what_runs_layer_by_layer_says_so_and_has_one_stream(tmp_path) -> None:
    onnx.save(onnx.parser.parse_model(LACKING), tmp_path / "m.onnx")
    feeds = {
        "x": np.ones((1, 2, 6, 6), np.float32), "rois": np.array([[0, 0, 3, 3]], np.float32), "item": np.zeros(1, np.int64),
    }  # fmt: skip
    result = bench(load(tmp_path / "m.onnx"), feeds)
    assert result.executor.startswith("layer by layer") and result.layerwise and len(result.layers) == 3
    with pytest.raises(InputError, match="1 layer has no kernel"):
        bench(load(tmp_path / "m.onnx"), feeds, streams=2)


REFUSED = {
    "no stream": ({"streams": 0}, "0 streams"),
    "a device that does not tell": ({"device": "tpu"}, "unknown device"),
    "a pattern for nothing": ({"keep": (re.compile("nowhere"),)}, "nothing to keep matches"),
    "an unknown precision": ({"precision": "fp8"}, "fp8"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused(network, options, said) -> None:
    with pytest.raises(InputError) as found:
        bench(network, **options)
    assert said in str(found.value)


def test_ceilings_are_measured_once() -> None:
    cpu_ceilings.measure_ceilings.cache_clear()
    first = cpu_ceilings.measure_ceilings(1)
    assert first.flops_per_second > 1e8 and first.bytes_per_second > 1e8 and "512 x 512" in first.method
    assert cpu_ceilings.measure_ceilings(1) is first


@pytest.mark.parametrize("name", ["mnist", "silero_vad", "ultraface_slim_320_qdq"])
def test_real_models(models, name) -> None:
    from probe.api.arguments import input_sets

    loaded = load(models / "models" / f"{name}.onnx")
    sets, _ = input_sets(loaded, None, 0, None, None)
    result = bench_network(loaded, sets, BenchOptions(amount=FEW, layers=FEW))
    assert result.latency.runs == 4 and any(layer.runs for layer in result.layers)
    assert result.memory is not None and result.memory.arena >= result.memory.peak_live > 0
    assert sum(layer.share or 0.0 for layer in result.layers) == pytest.approx(1.0)


def test_the_timeline_loads_no_polars(tmp_path) -> None:
    faulty.build(tmp_path / "m.onnx")
    code = "import sys, probe.timing.bench; assert not {'polars', 'typer', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(("option", "given"), [("--nvtx", {"ranges": True}), ("--no-graph", {"graphs": False})])
def test_what_only_a_gpu_has_is_refused(network, option, given) -> None:
    with pytest.raises(InputError, match="neither CUDA graphs nor NVTX") as caught:
        bench(network, by_layer=False, **given)
    assert caught.value.where == option
