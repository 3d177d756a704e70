"""The functions behind ``import probe``; what each takes and gives is said there. Heavy imports are inside them."""

from __future__ import annotations

from probe.api import tactics as tactics
from probe.api.networks import compile as compile  # noqa: A004 - probe.compile is what users write
from probe.api.networks import convert as convert
from probe.api.networks import run as run
from probe.api.precision import check as check
from probe.api.precision import find as find
from probe.api.recordings import diff as diff
from probe.api.recordings import dump as dump
from probe.api.recordings import load as load
from probe.api.recordings import load_result as load_result
from probe.api.recordings import open_recording as open_recording
from probe.api.timing import bench as bench
