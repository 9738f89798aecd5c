"""Whether Triton can run here, without importing it."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

OLDEST_CAPABILITY = (8, 0)
OLDEST_VERSION = (3, 7)  # 3.6 and older mix up the fields of a record where one is known when a kernel is compiled


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter; it reads the same variable when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def why_unavailable(device: torch.device) -> str | None:
    """Why the kernels cannot run on tensors of this device, or None if they can."""
    if find_spec("triton") is None:
        return "triton is not installed; it comes with PyTorch for CUDA on Linux, or: pip install triton"
    found = _version()
    if found < OLDEST_VERSION:
        return f"triton {found[0]}.{found[1]} is too old to compile these kernels; they need 3.7 or newer"
    if is_interpreted():
        return None if device.type in ("cpu", "cuda") else f"the tensors lie on {device}, not on an NVIDIA GPU"
    if device.type != "cuda" or torch.version.hip is not None:
        return f"the tensors lie on {device}, and Triton computes on NVIDIA GPUs"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        return (
            f"{device} has compute capability {capability[0]}.{capability[1]}; the kernels need 8.0 (Ampere) or newer"
        )
    return None


@cache
def _version() -> tuple[int, int]:
    """Of the installed triton; one that does not say (a build of one's own) is taken to be new enough."""
    try:
        major, minor = version("triton").split(".")[:2]
    except PackageNotFoundError:
        return OLDEST_VERSION
    return int(major), int(minor)
