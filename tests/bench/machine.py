"""What a report says about the machine and the versions. No host names, no paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def describe() -> dict[str, str]:
    """CPU model, usable cores, memory, operating system."""
    cpu = re.search(r"model name\s*:\s*(.*)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+) kB", _read("/proc/meminfo"))
    return {
        "CPU": cpu[1] if cpu else platform.processor() or "not known",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{int(memory[1]) * 1024 / 1e9:.0f} GB" if memory else "not known",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}",
    }


def versions(python: str, packages: tuple[str, ...]) -> str:
    """Installed versions of ``packages`` in the environment of an interpreter: "numpy 2.4.6, onnx 1.23.2"."""
    code = (
        "import sys, importlib.metadata as m\n"
        "for p in sys.argv[1:]:\n"
        "    try: print(p, m.version(p))\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    found = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True).stdout
    return ", ".join(found.splitlines())


def commit() -> str:
    """Short hash of the commit, with "+ changes" where the working tree differs from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "not committed"
    return head + (" + changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
