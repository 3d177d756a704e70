"""Full disks and places that cannot be written: exit code 2, a reason, and nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from probe.errors import EXIT_INPUT, InputError
from probe.results.tensors import RunHeader, TensorInfo
from probe.store import target as target_module
from probe.store.opening import open_sink, open_source
from tests.store.arrays import ROOT, Array, contents, record

NAMES = ["d", "x.npz", "x.safetensors"]


def tensors(count: int = 20, size: int = 50_000) -> dict[str, Array]:
    return {f"t{k}": np.full(size, k, np.float32) for k in range(count)}


def write(path: Path, arrays: dict[str, Array]) -> None:
    with open_sink(path, RunHeader()) as sink:
        for name, array in arrays.items():
            sink.add(TensorInfo(name, "", ()), array)


# A child process whose files may not grow beyond a limit, which is what a quota does; Python ignores the signal and sees EFBIG.
LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from probe.cli.main import guard
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.opening import open_sink
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def run():
    with open_sink(sys.argv[1], RunHeader(), stats_only=sys.argv[3] == "stats") as sink:
        for k in range(20):
            sink.add(TensorInfo(f"t{k}", "", ()), np.full(50_000, k, np.float32))
    return 0
sys.exit(guard(run, sys.argv[1:]))
"""


def limited(path: Path, limit: int, mode: str = "all") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit), mode],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [0, 1, 5000, 199_999, 1_000_000, 3_999_999])
def test_a_file_that_may_not_grow(name: str, limit: int, tmp_path: Path) -> None:
    done = limited(tmp_path / "new" / name, limit)
    assert done.returncode == EXIT_INPUT, done.stderr
    assert done.stderr.startswith("error: cannot write") and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_may_not_grow(tmp_path: Path) -> None:
    """Statistics only: the rows themselves are what no longer fits, here when they are copied behind the header at the end."""
    done = limited(tmp_path / "d", 5100, "stats")
    assert done.returncode == EXIT_INPUT, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_room_enough_the_same_run_succeeds(tmp_path: Path) -> None:
    for name in NAMES:
        assert limited(tmp_path / name, 5_000_000).returncode == 0
        assert len(open_source(tmp_path / name).rows()) == 20


class FailingFile:
    """A file whose writes fail after so many bytes; a short write comes first, as on a real disk that fills up."""

    def __init__(self, file: Any, budget: list[int], error: int) -> None:
        self._file, self._budget, self._error = file, budget, error

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._budget[0] <= 0 and size:
            raise OSError(self._error, os.strerror(self._error))
        part = min(size, self._budget[0])
        self._budget[0] -= part
        return self._file.write(memoryview(data)[:part])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("budget", [0, 100, 4096, 100_000, 4_010_000, 4_015_000])
def test_a_disk_that_fills_up_at_any_byte(
    budget: int, error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [budget]
    plain = Path.open

    def failing(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = plain(self, mode, *args, **kwargs)
        return FailingFile(file, left, error) if "w" in mode and self.name != "rows" else file

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(InputError, match="cannot write the recording") as caught:
        record(tmp_path / "d", tensors())  # 4 014 080 bytes of data, then some 6000 of manifest
    assert os.strerror(error) in caught.value.what and caught.value.hint
    assert ("free some space" in caught.value.hint) == (error in (errno.ENOSPC, errno.EDQUOT))
    assert list(tmp_path.iterdir()) == []


def test_a_write_may_take_less_than_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux takes 2 GiB less a page at a time; here a thousand bytes."""

    class Small(FailingFile):
        def write(self, data: Any) -> int:
            return self._file.write(memoryview(data)[:1000])

    plain = Path.open

    def small(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = plain(self, mode, *args, **kwargs)
        return Small(file, [0], 0) if mode == "wb" and self.name.startswith("data") else file

    arrays = tensors(3, 5000)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", small)
        record(tmp_path / "d", arrays)
    assert {name: array.tolist() for (name, _), array in contents(tmp_path / "d").items()} == {
        n: a.tolist() for n, a in arrays.items()
    }


def refusing(error: int) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return fail


STEPS = [
    ("mkdir", Path, "mkdir"), ("open", Path, "open"), ("rename", os, "rename"), ("fsync", os, "fsync"), ("unlink", Path, "unlink"),
    ("link", Path, "is_symlink"),
]  # fmt: skip


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize(("where", "attribute"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
def test_any_step_of_a_recording_may_fail(
    where: Any, attribute: str, error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(where, attribute, refusing(error))
        with pytest.raises(InputError, match="cannot write the recording"):
            record(tmp_path / "deep" / "d", tensors(2, 10))
    assert list(tmp_path.iterdir()) == []


def test_an_overwrite_that_fails_at_the_last_step_puts_the_old_recording_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(tmp_path / "d", {"x": np.full(3, 7)})
    plain = os.rename

    def failing(source: Path, destination: Path) -> None:
        if ".partial-" in Path(source).name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        plain(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        with pytest.raises(InputError, match="cannot write"):
            record(path, {"x": np.full(3, 8)}, overwrite=True)
    assert contents(path)["x", ""].tolist() == [7, 7, 7]
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_a_folder_that_cannot_be_listed_may_still_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refusing(errno.EACCES))
        record(tmp_path / "d", tensors(2, 10))
    assert len(open_source(tmp_path / "d").rows()) == 2


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
@pytest.mark.parametrize(
    ("where", "attribute"), [(Path, "mkdir"), (os, "link"), (os, "open")], ids=["mkdir", "link", "open"]
)
def test_any_step_of_a_file_may_fail(
    name: str, where: Any, attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if attribute == "open" and name != "x.npz":
        pytest.skip("the safetensors library opens its file itself")
    with monkeypatch.context() as patch:
        patch.setattr(Path if attribute == "open" else where, attribute, refusing(errno.EROFS))
        if attribute == "link":  # neither links nor renames
            patch.setattr(os, "rename", refusing(errno.EROFS))
        with pytest.raises(InputError, match="cannot write"):
            write(tmp_path / "deep" / name, tensors(2, 10))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_gets_its_file_by_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    write(tmp_path / "x.npz", tensors(2, 10))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]
    assert len(open_source(tmp_path / "x.npz").rows()) == 2


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module.fcntl, "flock", refusing(errno.ENOLCK))
    (tmp_path / ".d.partial-999999999-00000000").mkdir()
    record(tmp_path / "d", {"x": np.zeros(3)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("name", NAMES)
def test_the_kernels_own_refusal(name: str) -> None:
    """/proc takes no files from anyone, root included."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    with pytest.raises(InputError, match="cannot write"):
        write(Path("/proc/self") / name, tensors(1, 3))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_folder(name: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot write the recording: Permission denied"):
            write(tmp_path / name, tensors(1, 3))
    finally:
        tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


TINY = """
set -e
mount -t tmpfs -o size=1m tmpfs "$1"
"$2" -c "$3" "$1/$4" 100000000 all && code=0 || code=$?
ls -A "$1"
exit "$code"
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_of_one_megabyte(name: str, tmp_path: Path) -> None:
    """A real full disk, where this process may make one: a memory-backed mount in its own namespace."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    able = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False) if _has("unshare") else None  # fmt: skip
    if able is None or able.returncode:
        pytest.skip("making a mount is not permitted here")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", TINY, "sh", str(tmp_path), sys.executable, LIMITED, name],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == EXIT_INPUT, done.stderr
    assert "No space left on device" in done.stderr and done.stdout == ""


def _has(program: str) -> bool:
    import shutil

    return shutil.which(program) is not None
