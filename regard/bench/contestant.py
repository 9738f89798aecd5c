"""The peak memory of one contestant beyond its inputs, in a process of its own: python -m … '{"case": …, "who": …}'."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable

import torch

from regard.bench.machine import measured
from regard.resident import begun_bytes, peak_so_far

WORKER = "regard.bench.contestant"


def peak_bytes(case: str, who: str, report: Callable[[str], None]) -> int | None:
    """Bytes resident at the peak of one run, less those before it (inputs and libraries); None if it failed, which is
    reported."""
    found = measured(WORKER, {"case": case, "who": who})
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
    before = begun_bytes()
    contestant.run()
    return {"peak_bytes": max(0, peak_so_far() - before)}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
