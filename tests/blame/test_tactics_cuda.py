"""``probe tactics ... --device cuda``: a GPU's own tactics recorded, replayed to the bit, tabled; and what is said without a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from probe.api.tactics import record_tactics, replay_tactics, tactics_table
from probe.cli.main import main
from probe.engine.device.cuda import guard
from probe.engine.tuning.tactic_file import read_tactic_file
from probe.errors import InputError
from tests.engine.cuda.conftest import backend, gpu, host  # noqa: F401 - fixtures
from tests.engine.cuda.test_tuning_measure import NET, WEIGHTS, few  # noqa: F401 - a fixture
from tests.engine.cuda.test_tuning_names import network

FEEDS = {"x": np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)}
FEW = ("exact|mma_64x64|simt_32x32",)


@pytest.fixture
def path(tmp_path):
    network(tmp_path, NET, **WEIGHTS)
    return tmp_path / "m.onnx"


def test_recorded_and_replayed(backend, monkeypatch, path, tmp_path):  # noqa: F811 - the fixture
    monkeypatch.setattr(guard, "first_gpu", lambda: backend)
    given = {"inputs": FEEDS, "device": "cuda"}
    made = record_tactics(path, tmp_path / "a", choose="random", choose_seed=1, allow=FEW, **given)
    assert made and made.run.fingerprint.device == f"cuda {backend.arch}"
    file, _ = read_tactic_file(tmp_path / "a")
    taken = {line.tactic for line in file.layers}
    assert taken <= {"exact", "mma_64x64", "simt_32x32"} and taken != {"exact"}
    again = replay_tactics(path, tmp_path / "a", inputs=FEEDS)
    assert again and again.identical and again.compared == 1, (
        "the file says the device, and the bits are the recorded ones"
    )
    refused = {one.tactic: one.refused_by for one in made.run.layers[0].candidates}
    assert refused["acc16"].startswith("allow exact") and not refused["mma_64x64"]


def test_measured_on_the_device(host, monkeypatch, path, tmp_path):  # noqa: F811
    monkeypatch.setattr(guard, "first_gpu", lambda: host)
    cache = tmp_path / "times.json"
    deny = ("acc16|.*_acc16|mma_128.*",)
    made = record_tactics(path, tmp_path / "a", allow=FEW, deny=deny, inputs=FEEDS, device="cuda", timing_cache=cache)
    assert made.measured > 4 and cache.exists()
    times = {one.tactic: one.median_us for one in made.run.layers[0].candidates}
    assert times["mma_64x64"] and times["simt_32x32"] and times["exact"]
    again = record_tactics(path, tmp_path / "b", allow=FEW, deny=deny, inputs=FEEDS, device="cuda", timing_cache=cache)
    assert again.measured == 0 and again.reused == made.measured
    assert [one.tactic for one in again.run.layers] == [one.tactic for one in made.run.layers]


def test_the_table(host, monkeypatch, path):  # noqa: F811
    monkeypatch.setattr(guard, "first_gpu", lambda: host)
    found = tactics_table(path, tactics="exact|acc16|mma_64x64", inputs=FEEDS, device="cuda")
    row = {one.tactic: one for one in found.layers[0].candidates}
    assert row["mma_64x64"].rms and row["acc16"].rms > row["mma_64x64"].rms
    assert row["mma_64x64"].flipped is not None and row["mma_64x64"].flipped.passed


def test_without_a_gpu(monkeypatch, path, tmp_path, capsys):
    monkeypatch.setattr(guard, "find_gpu", lambda: guard.Gpu(reason="no NVIDIA driver (for this test)"))
    monkeypatch.setattr(guard, "first_gpu", guard._opened.__wrapped__)
    with pytest.raises(InputError, match="no NVIDIA driver") as error:
        record_tactics(path, tmp_path / "a", inputs=FEEDS, device="cuda")
    assert error.value.hint == "--device cpu" and not (tmp_path / "a").exists()
    np.savez(tmp_path / "x.npz", **FEEDS)
    words = [
        "tactics",
        "record",
        str(path),
        "--inputs",
        str(tmp_path / "x.npz"),
        "-o",
        str(tmp_path / "a"),
        "--device",
        "cuda",
    ]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2 and "no NVIDIA driver" in capsys.readouterr().err
