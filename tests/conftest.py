"""Where the real models are, and how the tests are split over machines."""

from __future__ import annotations

import gc
import os
import signal
import sys
import zlib
from pathlib import Path

import pytest

try:
    from hypothesis import settings
except ImportError:
    pass  # a GPU machine that runs `pytest -m gpu` may not have it
else:
    # In CI the same examples every time: a failure there is of the change under test. Elsewhere new ones, which find new failures.
    settings.register_profile("ci", derandomize=True, deadline=None)
    settings.register_profile("here", deadline=None)
    settings.load_profile("ci" if os.environ.get("CI") else "here")

ROOT = Path(__file__).resolve().parent.parent

# A suite that a shell started in the background ignores Ctrl-C, and so would every program that it starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """``PROBE_SHARD=i/n`` keeps the i-th of n parts. A test's part depends on its own name only, so parts stay put when tests are added."""
    text = os.environ.get("PROBE_SHARD", "1/1")
    try:
        index, count = (int(part) for part in text.split("/"))
        if not 1 <= index <= count:
            raise ValueError(text)
    except ValueError:
        raise pytest.UsageError(f"PROBE_SHARD={text!r}: expected i/n with 1 <= i <= n, such as 2/3") from None
    if count == 1:
        return
    mine, others = [], []
    for item in items:
        (mine if zlib.crc32(item.nodeid.encode()) % count == index - 1 else others).append(item)
    items[:] = mine
    config.hook.pytest_deselected(items=others)


def _first_example() -> None:
    from hypothesis import given, strategies

    settings(max_examples=1, database=None)(given(strategies.none())(lambda _: None))()


def pytest_collection_finish() -> None:
    """Ten thousand tests and what they import stay until the end: looking through them for garbage again and again took a tenth of the time."""
    if "hypothesis" in sys.modules:
        _first_example()  # which looks for those who hold numpy's generator, and does not see what is frozen
    gc.collect()
    gc.freeze()


def _folder(variable: str, beside: str) -> Path | None:
    named = os.environ.get(variable)
    folder = Path(named) if named else ROOT.parent / "shared" / beside
    return folder if (folder / "MANIFEST.json").is_file() else None


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of public models: ``models/NAME.onnx``, ``data/NAME__TAG.npz``, ``MANIFEST.json``. Skips where it is absent."""
    folder = _folder("PROBE_MODELS", "models")
    if folder is None:
        pytest.skip("no public models: set PROBE_MODELS to their folder, or put them in ../shared/models")
    return folder


@pytest.fixture(scope="session")
def exports() -> Path:
    """Folder of exported models, laid out as ``models``. Skips where it is absent."""
    folder = _folder("PROBE_EXPORTS", "exports")
    if folder is None:
        pytest.skip("no exported models: set PROBE_EXPORTS to their folder, or put them in ../shared/exports")
    return folder
