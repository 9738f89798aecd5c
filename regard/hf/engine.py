"""Where this package meets the backends: who reduces weights in its own walk, and who computes an output."""

from __future__ import annotations

from regard.run.backend import PassedOver
from regard.run.choose import BACKENDS, choose, observers, unknown_backend

__all__ = ["BACKENDS", "PassedOver", "choose", "observers", "unknown_backend"]
