"""Graph to graph: clean-up before layers are formed, one file a pass. ``pipeline.py`` has them in their order; ``edit.py`` is their hand."""

from __future__ import annotations

from probe.engine.passes.edit import Change as Change
from probe.engine.passes.pipeline import PIPELINE as PIPELINE
from probe.engine.passes.pipeline import Pass as Pass
from probe.engine.passes.pipeline import PassReport as PassReport
from probe.engine.passes.pipeline import run_passes as run_passes
