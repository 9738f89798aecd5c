"""openvino-genai's continuous batching on a load; see the package's description. Needs openvino-genai, optimum-intel.

Variants: f32 (weights, arithmetic and cache in float32); bf16 (float32 weights, arithmetic as it comes); int8 (weights
as int8 by optimum-intel, activations quantised as it comes, arithmetic and cache as they come); int8-f32 (int8 weights,
the other arithmetic and the cache in float32).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXACT: dict[str, str] = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "f32": ("f32", EXACT),
    "bf16": ("f32", {}),
    "int8": ("int8", {}),
    "int8-f32": ("int8", EXACT),
}


def prepare(model: Path, variant: str, load: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Export the model where that was not done before, and start the engine."""
    import numpy
    import openvino
    import openvino_genai

    stored, precision = VARIANTS[variant]
    properties = {**precision, "INFERENCE_NUM_THREADS": load["threads"]}
    folder = model.parent / f"openvino-{stored}"
    if not (folder / "openvino_model.xml").exists():
        export(model, folder, stored == "int8")
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = load["budget"]
    scheduler.cache_size = 2
    scheduler.max_num_seqs = 64
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = False
    engine = openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
    open_requests: dict[int, tuple[Any, int, list[int]]] = {}
    names = iter(range(1 << 30))

    def add(i: int, prompt: list[int], new_tokens: int) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new_tokens
        config.ignore_eos, config.do_sample = True, False
        ids = openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))
        open_requests[i] = engine.add_request(next(names), ids, config), new_tokens, [0]

    def step() -> Iterator[tuple[int, list[int]]]:
        engine.step()
        for i, (handle, wanted, had) in list(open_requests.items()):
            if handle.can_read():
                new = [token for output in handle.read().values() for token in output.generated_ids]
                had[0] += len(new)
                if had[0] == wanted:
                    del open_requests[i]
                yield i, new

    about = {"openvino-genai": openvino_genai.__version__, "variant": variant, **properties}
    return add, step, about


def export(model: Path, folder: Path, int8: bool) -> None:
    """The checkpoint as OpenVINO's own format."""
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    how: dict[str, Any] = {"load_in_8bit": False}
    if int8:
        how = {"quantization_config": OVWeightQuantizationConfig(bits=8)}
    OVModelForCausalLM.from_pretrained(str(model), export=True, compile=False, **how).save_pretrained(str(folder))
    tokenizer(model, folder)


def tokenizer(model: Path, folder: Path) -> None:
    """The engine wants a tokenizer, though requests come as ids."""
    import openvino
    from openvino_tokenizers import convert_tokenizer
    from transformers import PreTrainedTokenizerFast

    own = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
    for name, made in zip(("tokenizer", "detokenizer"), convert_tokenizer(own, with_detokenizer=True)):
        openvino.save_model(made, str(folder / f"openvino_{name}.xml"))


if __name__ == "__main__":
    from replay import main  # the file beside this one

    main(prepare)
