"""What deciding costs: a policy's scores of a prompt, beside its attention and its prefill."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from regard.bench.swap.writing import HEADS, OWN, WIDTH, gpt2
from regard.inputs import inputs
from regard.parts.masks import causal
from regard.run import choose
from regard.swap.policies import policy_of
from regard.swap.policies.policy import Prompt


@torch.inference_mode()
def statistics_rows(tokens: int, repeats: int) -> list[dict[str, Any]]:
    """What each policy's scores cost at one layer of GPT-2 small's shape, beside its attention and its prefill."""
    torch.manual_seed(0)
    model, ids = gpt2(tokens).transformer, torch.randint(0, 50000, (1, tokens))
    q, k, v = (torch.randn(HEADS, tokens, WIDTH) for _ in range(3))
    x, meant = inputs(q[None], k[None], v[None]), OWN.masked(causal())
    run_of: dict[str, Callable[[], Any]] = {"attention": lambda: choose.attend(meant, x)}
    for name in ("sinks(0.25)", "h2o(0.25)", "tova(0.25)", "snapkv(0.25)", "expected(0.25)", "ada(0.25)"):
        policy = policy_of(name)

        def decide(policy: Any = policy) -> Any:
            prompt = Prompt(q, k, v, OWN, 0, 12)
            return policy.keep(prompt, policy.scores(prompt))

        run_of[name] = decide
    seconds = {name: _median(once, repeats) for name, once in run_of.items()}
    prefill = _median(lambda: model(ids, use_cache=False), max(repeats // 2, 1)) / model.config.n_layer
    return [
        {"what": name, "seconds": t, "of attention": t / seconds["attention"], "of prefill": t / prefill}
        for name, t in seconds.items()
    ]


def _median(once: Callable[[], Any], repeats: int) -> float:
    once()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    return median(seconds)
