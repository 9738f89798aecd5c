"""Run the census in processes of its own, one family at a time, each with a limit of time."""

from __future__ import annotations

import json
import multiprocessing
import warnings
from typing import Any


def _one(family: str, every_class: bool, answers: Any) -> None:
    import logging

    from scripts.census.compare import census_of
    from scripts.census.families import classes_of

    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    kinds = classes_of(family)
    answers.put([census_of(family, kind).as_json() for kind in (kinds if every_class else kinds[:1])])


def run(families: list[str], every_class: bool, seconds: float) -> list[dict[str, Any]]:
    """The rows of these families. A family that takes longer, or ends its process, is a row that says so."""
    fork = multiprocessing.get_context("fork")
    rows: list[dict[str, Any]] = []
    for family in families:
        answers = fork.Queue()
        process = fork.Process(target=_one, args=(family, every_class, answers))
        process.start()
        try:
            found = answers.get(timeout=seconds)
        except Exception:
            found = [{"family": family, "model": "?", "problem": f"it took more than {seconds:.0f} s, or crashed"}]
        process.kill()
        process.join()
        rows.extend(found)
        for row in found:
            print(json.dumps(row), flush=True)
    return rows
