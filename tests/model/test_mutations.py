"""Damaged models end in ``InputError`` or load: no other exception, no hang, no growing memory.

``PROBE_MUTATIONS=N`` sets the number of cases (default 600 in 6 parts); ``PROBE_MUTATION_SEED`` another series of them.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
from collections import Counter
from contextlib import contextmanager

import pytest

from probe.errors import InputError
from probe.model import load
from probe.model.expose import expose
from probe.model.quantised import steps
from probe.model.upcast import upcast
from tests.model import builders as b
from tests.model.mutations import mutate_bytes, mutate_message

PARTS = 6
CASES = int(os.environ.get("PROBE_MUTATIONS", "600")) // PARTS
SEED = int(os.environ.get("PROBE_MUTATION_SEED", "0"))
SECONDS = 10  # a case; the slowest of 60 000 took 1.2 s


@contextmanager
def limited(seconds: int):
    def stop(*_):
        raise TimeoutError(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_models(tmp_path, part, caplog):
    caplog.set_level(logging.ERROR)  # onnx-ir warns about models that onnx accepts
    rng = random.Random(SEED * PARTS + part)
    sound = {name: build().SerializeToString() for name, build in b.GOOD.items()}
    outcomes: Counter[str] = Counter()
    path = tmp_path / "model.onnx"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(CASES):
        name = rng.choice(list(sound))
        mutate = mutate_bytes if rng.random() < 0.4 else mutate_message
        path.write_bytes(mutate(sound[name], rng))
        try:
            with limited(SECONDS):
                model = load(path)
                outcomes["loaded"] += 1
                expose(model)
                steps(model)
                upcast(model)
        except InputError as error:
            outcomes["refused"] += 1
            assert error.what and str(path) in error.where
        except Exception as error:
            pytest.fail(
                f"part {part}, case {case} ({mutate.__name__} of {name}): {type(error).__name__}: {error}", pytrace=True
            )
    assert outcomes["refused"] > CASES / 5 and outcomes["loaded"] > CASES / 20, outcomes
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300 * 1024
    )  # KiB; onnx-ir takes 60 MB of it when it comes in
