"""Run one family of the census in a process of its own, with a limit of processor time."""

from __future__ import annotations

import multiprocessing
import resource
import warnings
from multiprocessing.connection import Connection, wait
from typing import Any

WAIT = 20  # a family may wait for a processor that others use, so many times as long as it may compute


def _answer(family: str, every_class: bool, seconds: float, answers: Connection) -> None:
    import logging

    from scripts.census.compare import census_of
    from scripts.census.families import classes_of, plain_class

    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    kinds = classes_of(family) if every_class else [plain_class(family)]
    answers.send([census_of(family, kind).as_json() for kind in kinds])


def run(family: str, every_class: bool, seconds: float) -> list[dict[str, Any]]:
    """The rows of a family. One that takes longer, or ends its process, is a row that says so."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_answer, args=(family, every_class, seconds, there))
    process.start()
    there.close()
    try:
        ready = wait([here], timeout=WAIT * seconds)
        return list(here.recv()) if ready else [_problem(family, f"not run: it took more than {WAIT * seconds:.0f} s")]
    except EOFError:
        return [_problem(family, f"not run: it took more than {seconds:.0f} s of processor time, or crashed")]
    finally:
        process.kill()
        process.join()


def _problem(family: str, problem: str) -> dict[str, Any]:
    return {"family": family, "model": "?", "problem": problem}
