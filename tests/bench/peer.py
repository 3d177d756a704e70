"""Polygraphy's command lines, and an environment of its own to run them in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import machine

REQUIREMENT = "polygraphy==0.53.6"


def build(folder: Path) -> Path:
    """Make the peer's environment, with our versions of everything both use; return its interpreter. Nothing to do when it is there."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"building the peer's environment in {folder}", flush=True)
        ours = machine.versions(sys.executable, ("numpy", "onnx", "onnxruntime-gpu", "onnxruntime"))
        shared = [one.replace(" ", "==") for one in ours.split(", ")]
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "--quiet", "install", REQUIREMENT, *shared], check=True)
        (folder / ".installed").touch()
    return python


def command(python: Path, *arguments: str) -> tuple[str, ...]:
    return (str(python.with_name("polygraphy")), *arguments)


def record(python: Path, model: Path, seed: int, inputs: Path, outputs: Path) -> tuple[str, ...]:
    """Run a model in ONNX Runtime and save every tensor."""
    return command(
        python, "run", str(model), "--onnxrt", "--onnx-outputs", "mark", "all", "--seed", str(seed),
        "--save-inputs", str(inputs), "--save-outputs", str(outputs),
    )  # fmt: skip


def compare(python: Path, model: Path, actual: Path, golden: Path) -> tuple[str, ...]:
    """Compare two recordings with the default statistics."""
    return command(python, "run", str(model), "--load-outputs", str(actual), str(golden))
