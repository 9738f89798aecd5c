"""What a figure was measured on, and one measurement in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regard.errors import UserError


def describe() -> dict[str, Any]:
    """Processor, cores, memory and versions, for the record beside every figure."""
    packages = ("torch", "transformers")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def measured(module: str, given: Mapping[str, Any], limit_seconds: float | None = None) -> dict[str, Any]:
    """What `python -m module` prints as its last line of JSON, given its arguments as JSON. A fresh process, so that
    its peak memory is its own. A run that fails, or takes longer than the limit, gives {"failed": reason}."""
    command = [sys.executable, "-m", module, json.dumps(dict(given))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {limit_seconds:g} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"exit status {done.returncode}"}
    try:
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError):
        raise UserError(f"the measurement {module} printed no result") from None


def available_bytes() -> int:
    """Memory that a new process may take now."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
