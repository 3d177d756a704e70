"""The sandbox tells apart what it is there to tell apart, and the judge sees a wrong pass."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.forked import run_forked

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not Path("/proc").exists(), reason="needs fork and memory limits"
)

ROOT = Path(__file__).resolve().parents[2]


def in_fresh_process(code: str) -> str:
    """A process of its own: pytest's has threads, and a process with threads must not fork."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = run_forked(["-c", code], ROOT, environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


CASES = """
import ctypes, json, os, sys, tempfile, time
from pathlib import Path
from tests.fuzz.sandbox import WrongError, run

def wrong(): raise WrongError("a pass that is none")
def traceback(): return [].pop()
def memory(): return bytearray(64 << 30) and ("same", "")
def slowly(): time.sleep(60)
def crash(): ctypes.string_at(0)
def leave(): os._exit(7)
def loud(): print("x" * 100000); return "same", "y" * 200000
def fine(): return "refused", "because"
def recursion(): return recursion()
with tempfile.TemporaryDirectory() as folder:
    cases = (wrong, traceback, memory, slowly, crash, leave, loud, fine, recursion)
    print(json.dumps([(c.__name__, (o := run(c, Path(folder) / "log", seconds=2)).kind, o.detail[:200], o.good) for c in cases]))
"""


def test_every_outcome_is_told_apart() -> None:
    found = {name: (kind, detail, good) for name, kind, detail, good in json.loads(in_fresh_process(CASES))}
    assert {name: kind for name, (kind, _, _) in found.items()} == {
        "wrong": "wrong", "traceback": "traceback", "memory": "memory", "slowly": "hang", "crash": "crash", "leave": "crash",
        "loud": "same", "fine": "refused", "recursion": "traceback",
    }  # fmt: skip
    assert "SIGSEGV" in found["crash"][1] and "string_at" in found["crash"][1]
    assert "exit code 7" in found["leave"][1] and found["traceback"][1].startswith("IndexError")
    assert {name for name, (_, _, good) in found.items() if good} == {"loud", "fine"}


# Faults planted in probe: each must make the judge of some kind of case cry out within a few hundred cases.
HASHES = """
import probe.store.dump as d
d.MappedReader.close = lambda self: self._settle()
"""
MANIFEST_HASH = """
import probe.store.dump as d
plain = d.hashlib.sha256
class Anything(str):
    __eq__ = lambda *_: True
    __ne__ = lambda *_: False
    __hash__ = str.__hash__
class Lax:
    def __init__(self, *content): self.inner = plain(*content)
    def update(self, content): self.inner.update(content)
    def hexdigest(self): return Anything(self.inner.hexdigest())
d.hashlib = type("hashlib", (), {"sha256": Lax})
"""
PASSES = """
import dataclasses, probe.api as api
plain = api.diff
api.diff = lambda *a, **k: dataclasses.replace(plain(*a, **k), verdict="passed")
"""
LAST_ELEMENT = """
import probe.store.dump as d
plain = d.MappedReader.window
def window(self, start, stop):
    out = plain(self, start, stop).copy()
    out[-1:] = out[:1]
    return out
d.MappedReader.window = window
"""
MISSING = """
import dataclasses, probe.compare.diff as c
plain = c._lone
c._lone = lambda *a: dataclasses.replace(plain(*a), verdict="passed")
"""
REGRESSION = """
import probe.compare.regression as r
r._grew = lambda *_: False
"""
ARCHIVE = """
import numpy as np, probe.store.numpy_files as n
n.DAMAGE = ()
"""
FAULTS = {  # kind, first seed (near those that notice), cases at most
    "hashes are not looked at": ("dump", 5000, 40, HASHES),
    "the manifest's own hash is not looked at": ("dump", 5000, 80, MANIFEST_HASH),
    "everything passes": ("npy folder", 5000, 40, PASSES),
    "the last element is not read": ("dump rows", 5000, 8, LAST_ELEMENT),
    "missing outputs are forgiven": ("dump rows", 5180, 250, MISSING),
    "a worse result is no regression": ("saved results", 5240, 400, REGRESSION),
    "damage to an archive is our bug": ("npz members", 5000, 30, ARCHIVE),
}

PLANTED = """
import json, sys
{fault}
import tests.fuzz.run as fuzz
with fuzz._folder() as folder:
    tally = fuzz.cases({kind!r}, {first}, {count}, fuzz.Path(folder), until_found=True)
print(json.dumps(len(tally.findings)))
"""


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name: str) -> None:
    kind, first, count, fault = FAULTS[name]
    assert int(in_fresh_process(PLANTED.format(kind=kind, first=first, count=count, fault=fault))) > 0
