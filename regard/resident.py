"""The memory of this process: how much is resident, and the most that was since asked."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path


def begun_bytes() -> int:
    """Resident bytes now, without what the allocator keeps of memory already freed; the peak counts from here on.

    Raises OSError where the system does not tell, which is anywhere but on Linux.
    """
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def peak_so_far() -> int:
    """The most bytes that were resident since `begun_bytes`."""
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status does not tell {field}: memory can only be measured on Linux")
