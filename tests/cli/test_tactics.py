"""``probe tactics record``, ``replay`` and ``log`` as a user types them: exit codes, files, pages, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import typer
import typer.main

from probe.cli.main import main
from probe.cli.tactics import tactics
from probe.results import json as saved
from probe.results.tactics import TacticsRecordResult, TacticsReplayResult
from tests.blame.test_trt_log import BAD as BAD_LOG
from tests.blame.test_trt_log import GOOD as GOOD_LOG
from tests.cli.program import probe
from tests.debug import faulty

CALM = ("--inputs", "calm.npz")
COMMANDS = typer.main.get_command(tactics).commands  # type: ignore[attr-defined]
MINE = ("record", "replay", "log")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, other ones, inputs, a recorded run with drawn tactics."""
    folder = tmp_path_factory.mktemp("tactics")
    faulty.build(folder / "model.onnx")
    proto = onnx.load(folder / "model.onnx")
    (node,) = [one for one in proto.graph.node if one.op_type == "Softmax"]
    node.attribute[0].i = 0
    onnx.save(proto, folder / "other.onnx")
    np.savez(folder / "calm.npz", x=faulty.feeds()["x"])
    np.savez(folder / "second.npz", x=faulty.feeds(1)["x"])
    (folder / "good.log").write_text(GOOD_LOG)
    (folder / "bad.log").write_text(BAD_LOG)
    done = probe(
        "tactics", "record", "model.onnx", *CALM, "--choose", "random", "--choose-seed", "4", "-o", "drawn.tactics", cwd=folder
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return folder


Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """``probe`` in this process: ten times as fast as in one of its own, for what has no state."""

    def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as left:
            main(list(map(str, words)))
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(words, int(left.value.code or 0), out, err)

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- record ------------------------------------------------------------------------------------------------------------


def test_record_measures_chooses_runs_and_writes(work: Path, tmp_path: Path) -> None:
    """Polygraphy's test_run: --save-tactics."""
    target = tmp_path / "good.tactics"
    done = probe(
        "tactics", "record", "model.onnx", *CALM, "-o", target, "--timing-cache", tmp_path / "times.json", "--json", tmp_path / "r.json",
        cwd=work,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PASSED  fp16: 2 outputs within the acceptance; 9 layers, ")
    assert "times       28 measured, 0 from a cache; kept in" in done.stdout
    result = saved.load(tmp_path / "r.json")
    assert isinstance(result, TacticsRecordResult) and result.run.verdict == "passed"
    jsonschema.validate(json.loads((tmp_path / "r.json").read_text()), saved.schema_of(TacticsRecordResult))
    for layer in result.run.layers:
        times = [one.median_us for one in layer.candidates if one.median_us is not None]
        assert times == sorted(times) and layer.tactic == layer.candidates[0].tactic
    text = target.read_text()
    assert len(re.findall(r'^\{"tactic"', text, re.MULTILINE)) == 9
    assert '"verdict": "passed"' in text and result.run.recorded[0].outputs_sha256 in text


def test_the_second_time_the_cache_is_used(work: Path, tmp_path: Path, typed: Typed) -> None:
    """Polygraphy's test_run: test_timing_cache."""
    words = ("tactics", "record", "model.onnx", *CALM, "--timing-cache", tmp_path / "times.json")
    assert typed(*words, "-o", tmp_path / "a.tactics", cwd=work).returncode == 0
    before = (tmp_path / "times.json").read_bytes()
    again = typed(*words, "-o", tmp_path / "b.tactics", cwd=work)
    assert "times       0 measured, 28 from a cache" in again.stdout
    assert (tmp_path / "times.json").read_bytes() == before
    assert (tmp_path / "a.tactics").read_bytes() == (tmp_path / "b.tactics").read_bytes()


def test_what_was_measured_is_kept_where_the_rest_fails(work: Path, tmp_path: Path, typed: Typed) -> None:
    words = (
        "tactics",
        "record",
        "model.onnx",
        *CALM,
        "--timing-cache",
        tmp_path / "times.json",
        "-o",
        tmp_path / "a.tactics",
    )
    failed = typed(*words, "--allow", "splitk4", cwd=work)
    assert failed.returncode == 2 and not (tmp_path / "a.tactics").exists()
    assert "times       0 measured, 28 from a cache" in typed(*words, cwd=work).stdout


def test_a_bad_run_is_recorded_too(work: Path, tmp_path: Path, typed: Typed) -> None:
    target = tmp_path / "bad.tactics"
    done = typed(
        "tactics", "record", "model.onnx", *CALM, "-o", target, "--no-times", "--allow", "sum_acc16 @ norm", "--accept", "range_rel<=1e-7",
        cwd=work,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout.startswith("FAILED  ")
    assert '"verdict": "failed"' in target.read_text() and '{"tactic": "sum_acc16"' in target.read_text()


def test_rules_decide(work: Path, tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "deny.txt").write_text("# found by bisecting\nacc16\nsplitk.* @ ^fc2\n")
    done = typed(
        "tactics", "record", "model.onnx", *CALM, "-o", tmp_path / "a.tactics", "--no-times", "--deny", f"@{tmp_path / 'deny.txt'}",
        "--allow", "splitk4|acc16 @ ^fc1", "-v", cwd=work,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = re.findall(r'^\{"tactic": "(\w+)".*"layer": "(fc\d)', (tmp_path / "a.tactics").read_text(), re.MULTILINE)
    assert {layer: tactic for tactic, layer in lines} == {
        "fc1": "splitk4",
        **dict.fromkeys(("fc2", "fc3", "fc4", "fc5"), "exact"),
    }
    assert "refused by" in done.stdout


BAD = [
    (("record", "model.onnx", "-o", "x.tactics", "--allow", "splitk4"), "exact refused by allow splitk4"),
    (("record", "model.onnx", "-o", "x.tactics", "--deny", "("), "is no rule about tactics"),
    (("record", "model.onnx", "-o", "x.tactics", "--deny", "winogard_.*"), "no tactic is called so"),
    (("record", "model.onnx", "-o", "x.tactics", "--deny", "acc16 @ fc77"), "it is about no layer of this network"),
    (("record", "model.onnx", "-o", "x.tactics", "--deny", "@none.txt"), "cannot read none.txt"),
    (("record", "model.onnx", "-o", "drawn.tactics"), "'drawn.tactics' exists"),
    (("record", "model.onnx", "-o", "model.onnx", "--overwrite"), "it will not be overwritten"),
    (("record", "model.onnx", "-o", "no/such/x.tactics"), "its folder does not exist"),
    (("record", "model.onnx", "-o", "x.tactics", "--timing-cache", "drawn.tactics"), "is a probe.tactics/1, not a timing cache"),
    (("record", "model.onnx", "-o", "x.tactics", "--timing-cache", "x.tactics"), "are two files"),
    (("record", "model.onnx", "-o", "x.tactics", "--keep", "zzz"), "nothing to keep matches 'zzz'"),
    (("record", "nothing.onnx", "-o", "x.tactics"), "nothing.onnx"),
    (("record", "model.onnx"), "Missing option"),
    (("replay", "model.onnx", "none.tactics"), "cannot read the tactic file"),
    (("replay", "model.onnx", "model.onnx"), "tactic file"),
    (("replay", "model.onnx", "drawn.tactics", "-o", "drawn.tactics"), "'drawn.tactics' exists"),
    (("log", "model.onnx"), "no operator is autotuned"),
    (("log", "good.log", "none.log"), "cannot read the log"),
    (("nonsense",), "nonsense"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), BAD)
def test_what_cannot_be_used_is_exit_2_and_writes_nothing(
    words: tuple[str, ...], said: str, work: Path, typed: Typed
) -> None:
    before = files(work)
    done = typed("tactics", *words, *(CALM if words[0] != "log" and len(words) > 1 else ()), cwd=work)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and not done.stdout
    assert files(work) == before


# --- replay ------------------------------------------------------------------------------------------------------------


def test_replay_makes_the_same_choices_and_the_same_bits(work: Path, tmp_path: Path) -> None:
    """Polygraphy's test_run: test_tactic_replay. Another process is another build."""
    done = probe(
        "tactics",
        "replay",
        "model.onnx",
        "drawn.tactics",
        *CALM,
        "--json",
        tmp_path / "r.json",
        "-o",
        tmp_path / "again",
        cwd=work,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PASSED  the outputs of 1 input are those recorded, bit for bit; ")
    result = saved.load(tmp_path / "r.json")
    assert (
        isinstance(result, TacticsReplayResult)
        and result.identical is True
        and result.compared == 1
        and not result.misses
    )
    jsonschema.validate(json.loads((tmp_path / "r.json").read_text()), saved.schema_of(TacticsReplayResult))
    assert (tmp_path / "again").read_bytes() == (work / "drawn.tactics").read_bytes()


def test_other_inputs_have_no_recorded_bits(work: Path, typed: Typed) -> None:
    done = typed("tactics", "replay", "model.onnx", "drawn.tactics", "--inputs", "second.npz", cwd=work)
    assert done.returncode == 0 and done.stdout.startswith("PASSED  no outputs were recorded for these inputs")


def edited(work: Path, path: Path, change: Callable[[str], str], *, seal: bool) -> Path:
    """A changed tactic file; ``seal``: with the hash that belongs to it."""
    import hashlib

    text = (work / "drawn.tactics").read_text()
    assert change(text) != text
    body = change(text).rpartition('"sha256": "')[0] if seal else ""
    path.write_text(f'{body}"sha256": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n' if seal else change(text))
    return path


def test_other_bits_fail_though_they_are_good(work: Path, tmp_path: Path, typed: Typed) -> None:
    path = edited(work, tmp_path / "f", lambda text: re.sub(r'("outputs_sha256": ")....', r"\1dead", text), seal=True)
    done = typed("tactics", "replay", "model.onnx", path, *CALM, cwd=work)
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED  the outputs are NOT those recorded for 1 of 1 input (calm)")
    lenient = typed("tactics", "replay", "model.onnx", path, *CALM, "--lenient", cwd=work)
    assert lenient.returncode == 0 and "NOT those recorded" in lenient.stdout


def other_problem(text: str) -> str:
    return text.replace("LayerNormalization(fp16[4,32]", "LayerNormalization(fp16[4,64]")


REFUSED: list[tuple[str, Callable[[str], str], bool, tuple[str, ...]]] = [
    ("edited", lambda t: t.replace('"exact"', '"acc16"', 1), False, ("edited, damaged or cut short",)),
    ("cut", lambda t: t[: len(t) // 2], False, ("not valid JSON", "cut short")),
    ("line gone", lambda t: re.sub(r'^\{"tactic".*"layer": "mixed".*\n', "", t, count=1, flags=re.MULTILINE), False, ("edited",)),
    ("empty", lambda _: "", False, ("not valid JSON",)),
    ("device", lambda t: t.replace('"device": "cpu ', '"device": "cpu-of-elsewhere '), True, ("unknown device",)),
    ("machine", lambda t: re.sub(r'"device": "cpu [^"]*', '"device": "cpu riscv64', t), True, ("recorded on another device: cpu riscv64",)),
    ("model", lambda t: re.sub(r'"model_sha256": "....', '"model_sha256": "0000', t), True, ("recorded of another model: 0000",)),
    ("tactic", lambda t: re.sub(r'"tactic": "\w+"', '"tactic": "cutlass_42"', t, count=1), True, ("no tactic is called 'cutlass_42'",)),
    ("problem", other_problem, True, ("layer norm: recorded for LayerNormalization(fp16[4,64]",)),
    ("edited and nonsense", lambda t: t.replace('"passes": "safe"', '"passes": "some"'), False, ("edited, damaged or cut short",)),
    (
        "several", lambda t: re.sub(r'"tactic": "\w+"', '"tactic": "cutlass_42"', other_problem(t)), True,
        ("9 misses", "layer norm: recorded for", "layer softmax: no tactic is called"),
    ),
    ("precision", lambda t: t.replace('"precision": "fp16",\n', '"precision": "fp12",\n'), True, ("unknown precision 'fp12'",)),
    ("passes", lambda t: t.replace('"passes": "safe"', '"passes": "some"'), True, ("--passes some: unknown",)),
    ("schema", lambda t: t.replace("probe.tactics/1", "probe.tactics/7"), True, ("unknown schema",)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "seal", "said"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_a_file_that_does_not_fit_is_refused(
    work: Path, tmp_path: Path, change: Callable[[str], str], seal: bool, said: tuple[str, ...], typed: Typed
) -> None:
    path = edited(work, tmp_path / "f.tactics", change, seal=seal)
    done = typed(
        "tactics", "replay", "model.onnx", path, *CALM, "-o", tmp_path / "new", "--json", tmp_path / "r.json", cwd=work
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(one in done.stderr for one in said), done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
    assert files(tmp_path) == {"f.tactics"}, "nothing is written"


def test_another_model_is_refused_and_the_layer_that_changed_named(work: Path, typed: Typed) -> None:
    done = typed("tactics", "replay", "other.onnx", "drawn.tactics", *CALM, cwd=work)
    assert done.returncode == 2
    assert (
        "2 misses" in done.stderr
        and "recorded of another model" in done.stderr
        and "layer softmax: recorded for Softmax" in done.stderr
    )


def test_lenient_says_what_it_took_instead(work: Path, tmp_path: Path, typed: Typed) -> None:
    path = edited(
        work,
        tmp_path / "f",
        lambda t: re.sub(r'"tactic": "\w+"(.*"layer": "norm")', r'"tactic": "cutlass_42"\1', t),
        seal=False,
    )
    done = typed("tactics", "replay", "model.onnx", path, *CALM, "--lenient", "-o", tmp_path / "new", cwd=work)
    assert done.returncode == 0, done.stderr
    flat = " ".join(done.stdout.split())
    assert "2 things not as recorded" in flat and "its hash is not that of its text" in flat
    assert "norm: no tactic is called 'cutlass_42'; exact was taken" in flat
    strictly = typed("tactics", "replay", "model.onnx", tmp_path / "new", *CALM, cwd=work)
    assert strictly.returncode == 0 and "bit for bit" in strictly.stdout, "what lenient wrote is a file like any other"


def test_a_file_says_how_the_network_is_compiled(work: Path, tmp_path: Path, typed: Typed) -> None:
    words = ("--precision", "bf16", "--fusion", "none", "--passes", "none", "--keep", "^fc2", "--no-times")
    assert typed("tactics", "record", "model.onnx", *CALM, "-o", tmp_path / "a", *words, cwd=work).returncode == 0
    done = typed("tactics", "replay", "model.onnx", tmp_path / "a", *CALM, cwd=work)
    assert done.returncode == 0 and "bit for bit" in done.stdout
    assert "passes none, fusion none" in done.stdout and "BF16 storage" in done.stdout and "kept" in done.stdout


def test_polygraphy_s_replay(work: Path, tmp_path: Path, typed: Typed) -> None:
    stored = {"dtype": "DataType.FLOAT", "strides": [1], "vectorized_dim": -1, "components_per_element": 1}
    algorithm = {"implementation": 1, "tactic": 2, "inputs": [stored], "outputs": [stored]}
    path = tmp_path / "replay.json"
    path.write_text(
        json.dumps({"replay": {"softmax": algorithm, "nowhere": algorithm}, "polygraphy_class": "TacticReplayData"})
    )
    strict = typed("tactics", "replay", "model.onnx", path, *CALM, cwd=work)
    assert strict.returncode == 2 and "cannot be replayed strictly" in strict.stderr
    done = typed("tactics", "replay", "model.onnx", path, *CALM, "--lenient", "--json", tmp_path / "r.json", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "ignored: " in done.stdout and "nowhere" in done.stdout
    result = saved.load(tmp_path / "r.json")
    assert {one.layer: one.precision for one in result.run.layers}["softmax"] == "fp32"
    assert result.kind == "polygraphy" and result.identical is None


# --- TensorRT's log, files, help -----------------------------------------------------------------------------------------


def test_a_log_and_the_difference_of_two(work: Path, typed: Typed) -> None:
    alone = typed("tactics", "log", "good.log", "-v", cwd=work)
    assert alone.returncode == 0
    assert all(
        word in alone.stdout
        for word in ("2 operators autotuned", "matMul1", "0x665ded9abbf88", "0x2ad3a182fb05c", "0.0113")
    )
    both = typed("tactics", "log", "good.log", "bad.log", cwd=work)
    assert both.returncode == 1
    assert "1 operator chosen differently" in both.stdout and "0x393e4ef8ad243" in both.stdout
    assert typed("tactics", "log", "good.log", "good.log", cwd=work).returncode == 0


def test_inspect_shows_a_tactic_file(work: Path, typed: Typed) -> None:
    done = typed("inspect", "drawn.tactics", cwd=work)
    assert (
        done.returncode == 0
        and done.stdout.startswith("tactics of 9 layers: ")
        and "fc2/MatMul + fc2/Add" in done.stdout
    )


def test_pages_fit_80_columns(work: Path, typed: Typed) -> None:
    for words in (
        ("replay", "model.onnx", "drawn.tactics", *CALM, "-v"),
        ("log", "good.log", "-v"),
        ("log", "good.log", "bad.log"),
    ):
        lines = typed("tactics", *words, cwd=work).stdout.splitlines()
        assert lines and all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("name", MINE)
def test_help(name: str, tmp_path: Path, typed: Typed) -> None:
    done = typed("tactics", name, "--help", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    text = " ".join(done.stdout.split())
    example = re.search(rf"Example: (probe tactics {name} .*?) Arguments:", text)
    assert example is not None
    COMMANDS[name].make_context(name, shlex.split(example[1])[3:])
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    (summary,) = [x for x in typed("tactics", "--help", cwd=tmp_path).stdout.splitlines() if x.split()[:1] == [name]]
    assert not summary.endswith("...")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ultraface_slim_320"])
def test_a_real_network_with_winograd(name: str, models: Path, tmp_path: Path) -> None:
    model, data = models / "models" / f"{name}.onnx", models / "data" / f"{name}__main.npz"
    words = (model, "--inputs", data)
    done = probe(
        "tactics",
        "record",
        *words,
        "-o",
        tmp_path / "a",
        "--no-times",
        "--choose",
        "random",
        "--choose-seed",
        "1",
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stderr
    assert '"tactic": "winograd_' in (tmp_path / "a").read_text()
    again = probe("tactics", "replay", model, tmp_path / "a", "--inputs", data, cwd=tmp_path)
    assert again.returncode == done.returncode and "bit for bit" in again.stdout
