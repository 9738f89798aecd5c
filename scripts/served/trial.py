"""One class tried: its tiny model served in chunks beside others, and held against what generate writes."""

from __future__ import annotations

import copy
import random
from dataclasses import asdict, dataclass
from typing import Any

from scripts.apart import Overran, apart

NEW = 7
LENGTHS = (5, 33, 61)
TIE = 1e-4


@dataclass
class Tried:
    """verdict: exact, wrong, refused, failed (an error that is no refusal) or not built; why: in words."""

    family: str
    model: str
    verdict: str
    why: str = ""
    how: str = ""


def tried(family: str, name: str) -> Tried:
    """Build, serve, compare."""
    import transformers

    from regard.errors import UserError
    from regard.serve.runner import Runner
    from scripts.census.compare import build

    try:
        kind = getattr(transformers, name)
        model = build(kind).float()
        wanted = [_generated(copy.deepcopy(model), prompt) for prompt in _prompts()]
    except Exception as error:
        return Tried(family, name, "not built", _said(error))
    try:
        runner = Runner(copy.deepcopy(model))
    except UserError as error:
        named = name in str(error)
        return Tried(family, name, "refused" if named else "failed", str(error) if named else f"not named: {error}")
    except Exception as error:
        return Tried(family, name, "failed", _said(error))
    try:
        got = _served(runner)
    except Exception as error:
        return Tried(family, name, "failed", _said(error), runner.how)
    for tokens, (want, gaps) in zip(got, wanted):
        tie = next((i for i, gap in enumerate(gaps) if gap <= TIE), len(want))
        if tokens[:tie] != want[:tie] or len(tokens) != len(want):
            return Tried(family, name, "wrong", f"{tokens} where generate writes {want}", runner.how)
    return Tried(family, name, "exact", "", runner.how.split(" (")[0])


def _prompts() -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randrange(20, 100) for _ in range(length)] for length in LENGTHS]


def _generated(model: Any, prompt: list[int]) -> tuple[list[int], list[float]]:
    """Greedy tokens, never stopping, and how far the best logit is above the second at each."""
    import torch

    for config in (model.generation_config, model.config):
        config.eos_token_id = None
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones((1, len(prompt)), dtype=torch.long), max_new_tokens=NEW,
            do_sample=False, pad_token_id=0, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    gaps = [float(torch.diff(-torch.topk(logits[0].float(), 2).values)) for logits in out.logits]
    return out.sequences[0, len(prompt) :].tolist(), gaps


def _served(runner: Any) -> list[list[int]]:
    """All prompts at once, in chunks of at most 16 rows a step."""
    from regard.serve.engine import Engine
    from regard.serve.request import Request, Sampling, Stopping
    from regard.serve.scheduler import Limits, Scheduler

    events: list[Any] = []
    bounds = Limits(token_budget=16, max_running=8, max_length=runner.max_length)
    engine = Engine(runner, Scheduler(runner.pool(4 << 20, 16, 8), bounds), events.extend)
    for i, prompt in enumerate(_prompts()):
        engine.submit(Request(str(i), tuple(prompt), Sampling(temperature=0.0), Stopping(max_tokens=NEW)))
    engine.step()
    while not engine.scheduler.is_idle:
        engine.step()
    return [[t for e in events if e.request_id == str(i) for t in e.tokens] for i in range(len(LENGTHS))]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def isolated(family: str, name: str, seconds: float) -> Tried:
    """The trial in a process of its own, with a limit of processor time."""
    try:
        return Tried(**apart(_plain, family, name, seconds=seconds))
    except Overran as why:
        return Tried(family, name, "failed", str(why))


def _plain(family: str, name: str) -> dict[str, str]:
    return asdict(tried(family, name))
