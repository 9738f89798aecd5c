"""The peak memory of one contestant beyond its inputs, in a process of its own: python -m … '{"case": …, "who": …}'."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from regard.bench.machine import measured

WORKER = "regard.bench.memory"
STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(case: str, who: str, report: Callable[[str], None]) -> int | None:
    """Bytes resident at the peak of one run, less those before it (inputs and libraries); None if it failed, which is
    reported."""
    found = measured(WORKER, case=case, who=who)
    if "failed" in found:
        report(f"{case}: the memory of {who} was not measured: {found['failed']}")
        return None
    return int(found["peak_bytes"])


@torch.no_grad()
def measure(case: str, who: str) -> dict[str, int]:
    """The same in this process."""
    from regard.bench.cases import CASES

    contestant = CASES[case].make().contestants[who]
    torch.randn(256, 256) @ torch.randn(256, 256)  # threads and workspaces that are no contestant's
    if contestant.compiles:
        contestant.run()
    gc.collect()
    _give_back()
    before = _resident("VmRSS")
    REFS.write_text("5")  # the kernel forgets the peak so far
    contestant.run()
    return {"peak_bytes": max(0, _resident("VmHWM") - before)}


def _give_back() -> None:
    """Freed memory that the allocator keeps goes back to the system, so that taking it again counts."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
