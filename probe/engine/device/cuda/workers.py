"""Many kernels compiled at once, in processes of their own: NVRTC takes one at a time in a process, however many threads ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from probe.engine.device.cuda.compile import Compiler, Source
from probe.engine.device.cuda.errors import CompileError

_FEW = 4  # kernels that are not worth starting processes for
_MOST = 16  # processes


def compile_ahead(
    compiler: Compiler, sources: Iterable[Source], progress: Callable[[int, int], None] | None = None
) -> int:
    """Compile what the compiler's folder does not hold yet, into that folder. One that NVRTC refuses is left out: whoever launches it is told.
    Without a folder, or for a few, nothing is done: each is compiled when it is first launched.

    Args:
        progress: told how many of how many are done.

    Returns:
        how many were compiled.
    """
    missing = compiler.missing(sources)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, _MOST, len(missing))
    if compiler.folder is None or len(missing) < _FEW or count < 2:
        return 0
    shares = [missing[at::count] for at in range(count)]
    done = 0
    with _started(compiler, shares) as outputs:
        for line in outputs:
            done += line.startswith("compiled")
            if progress is not None:
                progress(done, len(missing))
    return done


@contextmanager
def _started(compiler: Compiler, shares: Sequence[Sequence[Source]]) -> Iterator[Iterator[str]]:
    """Processes at work on a share each; what they say, a line a kernel. None of them outlives the block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
    running: list[subprocess.Popen[str]] = []
    try:
        for share in shares:
            one = subprocess.Popen(
                (sys.executable, "-m", __name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=environment,
            )  # fmt: skip
            running.append(one)
            assert one.stdin is not None
            with suppress(BrokenPipeError):  # it did not start: its kernels are compiled when they are launched
                json.dump([compiler.arch, str(compiler.folder), [_fields(source) for source in share]], one.stdin)
                one.stdin.close()
        yield (line for one in running for line in one.stdout or ())
    finally:
        for one in running:
            if one.poll() is None and sys.exc_info()[0] is not None:
                one.kill()
            for pipe in (one.stdin, one.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            one.wait()


def _fields(source: Source) -> list[object]:
    return [source.file, source.entry, source.defines, source.text, source.contract]


def _work() -> None:
    arch, folder, share = json.load(sys.stdin)
    compiler = Compiler(arch, Path(folder))
    for file, entry, defines, text, contract in share:
        with suppress(CompileError):
            compiler(Source(file, entry, tuple((name, value) for name, value in defines), text, contract))
            sys.stdout.write(f"compiled {entry}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _work()
