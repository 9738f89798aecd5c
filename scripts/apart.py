"""Run a piece of work in a process of its own, with a limit of processor time."""

from __future__ import annotations

import multiprocessing
import resource
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

PATIENCE = 20  # work may wait for a processor that others use, so many times as long as it may compute


class Overran(Exception):
    """The work took too long, or its process ended without an answer; the message says which."""


def apart(work: Callable[..., Any], *given: Any, seconds: float) -> Any:
    """What work(*given) gives. Raises Overran where it takes more than `seconds` of processor time or crashes."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_answer, args=(work, given, seconds, there))
    process.start()
    there.close()
    try:
        if wait([here], timeout=PATIENCE * seconds):
            return here.recv()
        raise Overran(f"it took more than {PATIENCE * seconds:.0f} s")
    except EOFError:
        raise Overran(f"it took more than {seconds:.0f} s of processor time, or crashed") from None
    finally:
        process.kill()
        process.join()


def _answer(work: Callable[..., Any], given: tuple[Any, ...], seconds: float, answers: Connection) -> None:
    import logging

    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    answers.send(work(*given))
