"""What sanitize.py runs: something of every file of kernels/."""

from __future__ import annotations

from probe.engine.device.cuda.compiling.compile import kernel_folder
from tests.engine.cuda.sanitize import WORDS, taken


def test_every_file_of_kernels_is_launched(tmp_path):
    found, kernels = taken(1, tmp_path)
    files = {file for file, _, _ in kernels}
    assert {path.name for path in kernel_folder().glob("*.cu")} - files == set()
    assert {"fp16", "fp32", "tf32"} <= {kind for _, _, kind in kernels} and 30 < len(found) < 300


def test_what_the_tools_say_is_read():
    assert WORDS.search("========= ERROR SUMMARY: 0 errors") and WORDS.search(
        "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    )
