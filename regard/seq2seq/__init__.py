"""Sequence to sequence: models with and without attention, their training, translation, scores and alignments.

The parts are imported from their own modules, each when it is needed; importing this package loads nothing.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path


def make_known(where: str | Path | None) -> None:
    """Let transformers' Auto classes know regard's own model types, where a directory holds one of them."""
    if where is None:
        return
    try:
        kind = json.loads((Path(where) / "config.json").read_text(encoding="utf-8")).get("model_type", "")
    except (OSError, ValueError, AttributeError):
        return  # whoever loads it says what is wrong
    if str(kind).startswith("regard_"):
        for module in ("regard.seq2seq.directory", "regard.tasks.known"):
            import_module(module).register()
