"""One measurement of `regard bench see`: one forward of a GPT-2-shaped model, in this process alone."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from typing import Any

import torch
import transformers as tf

from regard.hf.attach import attach
from regard.seeing.statistics import standard


def model_of(tokens: int, implementation: str) -> tf.GPT2Model:
    """GPT-2 small's shape (12 layers, 12 heads, width 768) with random weights and room for `tokens`."""
    torch.manual_seed(0)
    config = tf.GPT2Config(n_positions=tokens, use_cache=False)
    config._attn_implementation = implementation
    return tf.GPT2Model(config).eval()


@torch.inference_mode()
def measure(kind: str, tokens: int, backend: str = "model", resolution: int = 128) -> dict[str, Any]:
    """Seconds and peak bytes of one forward. kind: "plain", "watched" (by regard) or "eager" (with its weights)."""
    model = model_of(tokens, "eager" if kind == "eager" else "sdpa")
    ids = torch.randint(0, 50257, (1, tokens))
    with contextlib.nullcontext() if kind != "watched" else attach(model, backend=backend):
        model(ids[:, :64])
    begin = time.perf_counter()
    if kind == "watched":
        with attach(model, standard(resolution), backend=backend) as trace:
            model(ids)
        assert len(trace.layers) == 12
    else:
        model(ids, output_attentions=kind == "eager")
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


@torch.inference_mode()
def check(tokens: int, backend: str = "model") -> dict[str, Any]:
    """Largest error of every weight against eager attention, whether the output kept its bits, and who computed."""
    eager = model_of(tokens, "eager")
    plain = model_of(tokens, "sdpa")
    ids = torch.randint(0, 50257, (1, tokens))
    dense = eager(ids, output_attentions=True)
    before = plain(ids).last_hidden_state
    with attach(plain, standard(tokens), backend=backend) as trace:
        after = plain(ids).last_hidden_state
    worst = max(
        float((trace.weights(i, h) - dense.attentions[i][0, h]).abs().max()) for i in range(12) for h in range(12)
    )
    return {
        "worst_weight": worst,
        "same_bits": torch.equal(before, after),
        "output_error": float((after - before).abs().max()),
        **{name: trace.made[name] for name in ("output", "watched_by", "passed_over")},
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    run = check if given.pop("check", False) else measure
    print(json.dumps(run(**given)))
