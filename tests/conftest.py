"""What every test stands on: hypothesis without timing, the same examples everywhere, and no way to the network."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: its kernels then run on CPU tensors
settings.register_profile("regard", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("regard")
