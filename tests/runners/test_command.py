"""``command:``: any program reads inputs from files and leaves tensors in files."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from probe.errors import InputError
from probe.model import load
from probe.runners.command import CommandRunner
from tests.model import builders as b

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "a/b:0": np.array([1, 2])}


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "engine.py"
    path.write_text("import sys, numpy as np\n" + textwrap.dedent(text))
    return f"{sys.executable} {path}"


def tensors(template: str, feeds=FEEDS, **options):
    return {t.info.name: t for t in CommandRunner(template, **options).run(feeds, "one")}


def test_npz_in_npz_out(tmp_path):
    run = program(
        tmp_path,
        """
        feeds = np.load(sys.argv[1])
        assert sorted(feeds.files) == ["a/b:0", "x"], feeds.files
        np.savez(sys.argv[2], **{"y": feeds["x"] * 2, "deep/er:0": feeds["a/b:0"]})
        """,
    )
    made = tensors(f"{run} {{inputs}} {{outputs}}")
    assert np.array_equal(made["y"].array, FEEDS["x"] * 2) and made["deep/er:0"].array.dtype == np.int64
    assert made["y"].info.input_id == "one"


def test_folders_of_npy_and_percent_encoded_names(tmp_path):
    run = program(
        tmp_path,
        """
        import os
        assert sorted(os.listdir(sys.argv[1])) == ["a%2Fb%3A0.npy", "x.npy"], os.listdir(sys.argv[1])
        np.save(os.path.join(sys.argv[2], "out%2Fy.npy"), -np.load(os.path.join(sys.argv[1], "x.npy")))
        """,
    )
    assert np.array_equal(tensors(f"{run} {{inputs_dir}} {{outputs_dir}}")["out/y"].array, -FEEDS["x"])


def test_roles_model_and_input_id(tmp_path):
    model = load(b.save(b.mlp(), tmp_path / "m.onnx"))
    run = program(
        tmp_path,
        """
        assert sys.argv[2].endswith("m.onnx") and sys.argv[3] == "one" and sys.argv[4] == "{x}"
        np.savez(sys.argv[1], y=np.ones(1), hidden=np.ones(1), x=np.ones(1))
        """,
    )
    made = tensors(f"{run} {{outputs}} {{model}} {{input_id}} {{{{x}}}}", model=model)
    assert {name: tensor.info.role for name, tensor in made.items()} == {"y": "output", "hidden": "internal"}


def test_text_and_narrow_types_reach_the_program(tmp_path):
    run = program(
        tmp_path,
        """
        feeds = np.load(sys.argv[1])
        assert feeds["half"].dtype == np.float32 and feeds["half"].tolist() == [1.5] and feeds["file"].tolist() == ["zoë"]
        np.savez(sys.argv[2], y=feeds["file"])
        """,
    )
    feeds = {"half": np.array([1.5], ml_dtypes.bfloat16), "file": np.array(["zoë"], object)}
    made = tensors(f"{run} {{inputs}} {{outputs}}", feeds)
    assert made["y"].array.tolist() == ["zoë"] and made["y"].info.dtype == "string"


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    run = program(tmp_path, "np.savez(sys.argv[1], a=np.ones(1), b=np.ones(1))")
    made = CommandRunner(f"{run} {{outputs}}").run(FEEDS, "one")
    next(made)
    made.close()  # abandoned in the middle
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("engine {inputs}", "no place for its outputs"),
        ("engine {outputs} {outputs_dir}", "two places"),
        ("engine {outputs} {weights}", "unknown placeholder {weights}"),
        ("engine {outputs} {", "cannot be read"),
        ("engine {outputs!r}", "cannot be read"),
        ("engine {outputs:>9}", "cannot be read"),
        ("engine '{outputs}", "cannot be read"),
        ("engine {outputs} {model}", "there is none"),
        ("engine {outputs} {}", "unknown placeholder {}"),
    ],
)
def test_templates_that_cannot_work(template, message):
    with pytest.raises(InputError) as caught:
        CommandRunner(template)
    assert message in caught.value.what


def failure(template: str, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        tensors(template, **options)
    return caught.value


def test_a_failing_program_is_quoted(tmp_path):
    run = program(
        tmp_path, "print('loading'); print('\\n'.join(f'line {i}' for i in range(40)), file=sys.stderr); sys.exit(7)"
    )
    error = failure(f"{run} {{outputs}}")
    assert "failed with exit code 7 on input 'one'" in error.what
    assert "line 39" in error.where and "line 10" not in error.where


def test_a_program_that_crashes(tmp_path):
    run = program(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "ended by SIGSEGV" in failure(f"{run} {{outputs}}").what


def test_a_program_that_is_not_there():
    error = failure("/no/such/engine {outputs}")
    assert "cannot start '/no/such/engine': No such file" in error.what


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "left nothing in {outputs}"),
        ("open(sys.argv[1], 'wb').write(b'PK nonsense')", "cannot read"),
        ("np.savez(sys.argv[1])", "no tensors"),
        ("np.savez(sys.argv[1], y=np.array([object()]))", "pickled"),
    ],
)
def test_outputs_that_cannot_be_used(tmp_path, text, message):
    assert message in failure(f"{program(tmp_path, text)} {{outputs}}").what


def test_an_empty_output_folder(tmp_path):
    assert "left nothing in {outputs_dir}" in failure(f"{program(tmp_path, '')} {{outputs_dir}}").what


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_a_timeout_ends_the_program_and_its_children(tmp_path):
    mark = tmp_path / "child"
    run = program(
        tmp_path,
        f"""
        import subprocess, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open({str(mark)!r}, "w").write(str(child.pid))
        print("started", flush=True)
        time.sleep(60)
        """,
    )
    began = time.monotonic()
    error = failure(f"{run} {{outputs}}", timeout=3.0)
    assert "did not end within 3 s" in error.what and time.monotonic() - began < 30
    child = int(mark.read_text())
    for _ in range(100):  # it may be a zombie until init collects it
        if not _runs(child):
            break
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_there_is_no_shell(tmp_path):
    run = program(tmp_path, "np.savez(sys.argv[1], y=np.array(sys.argv[2:]))")
    made = tensors(f"{run} {{outputs}} '$HOME; echo' `pwd` > x")
    assert made["y"].array.tolist() == ["$HOME; echo", "`pwd`", ">", "x"]
