"""What every test stands on: hypothesis without timing, the same examples everywhere, and no way to the network."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: its kernels then run on CPU tensors
settings.register_profile("regard", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("regard")

ABSENT = ("is not installed", "has no native core", "no chromium is installed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line at the end: what was not tested because something is not there, and why."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if any(words in reason for words in ABSENT):
            reasons[reason.removeprefix("Skipped: ")] = reasons.get(reason.removeprefix("Skipped: "), 0) + 1
    if reasons:
        said = "; ".join(f"{count} tests, for {reason}" for reason, count in reasons.items())
        terminalreporter.write_line(f"NOT TESTED: {said}", red=True, bold=True)
