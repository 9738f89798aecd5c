"""What every test stands on: hypothesis without timing, the same examples everywhere, and no way to the network."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile("regard", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("regard")
