"""How long choosing tokens takes beside reading the logits: `python -m regard.bench.serving.sampling`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch

from regard.run.native.extension import extension
from regard.serve.request import Sampling
from regard.serve.sampler import Row, choose

FULL = Sampling(
    temperature=0.8, top_k=50, top_p=0.9, repetition_penalty=1.1, presence_penalty=0.2, frequency_penalty=0.1
)
KINDS = {"greedy": Sampling(temperature=0.0), "top_p": Sampling(temperature=0.8, top_p=0.9), "full": FULL}


def measure(rows: int = 32, vocabulary: int = 49152, repeats: int = 30) -> dict[str, float]:
    """Median milliseconds of one choice for all rows, each repeat on logits of its own, and its ratio to reading them
    once. Prompts and outputs have 100 tokens."""
    draw = torch.Generator().manual_seed(0)
    every = torch.randn(repeats, rows, vocabulary, generator=draw) * 3
    words = torch.randint(0, vocabulary, (rows, 2, 100), generator=draw).tolist()
    native, threads = extension(), torch.get_num_threads()

    def median(once: Callable[[torch.Tensor], object]) -> float:
        taken = []
        for logits in every:
            begin = time.perf_counter()
            once(logits)
            taken.append(1000 * (time.perf_counter() - begin))
        return sorted(taken)[repeats // 2]

    read = median(lambda logits: native.read_floats(logits.data_ptr(), logits.numel(), threads))
    found = {"read": read}
    for name, sampling in KINDS.items():
        asked = [Row(sampling, prompt, output, i) for i, (prompt, output) in enumerate(words)]
        found[name] = median(lambda logits, asked=asked: choose(logits, asked))  # type: ignore[misc]
        found[f"{name} / read"] = found[name] / read
    return found


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
