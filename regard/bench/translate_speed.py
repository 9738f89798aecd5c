"""Beam search timed: regard's, transformers' generate with the same weights, and CTranslate2 where it is installed."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import MarianMTModel

from regard.bench.machine import describe
from regard.seq2seq.batches import padded
from regard.seq2seq.beam import Search
from regard.seq2seq.decode import outputs
from regard.seq2seq.directory import opened

Written = list[list[int]]
Run = Callable[[Tensor, Tensor], Written]
LIBRARY = "ctranslate2"


@torch.no_grad()
def speed(name: str, sources: Sequence[str], search: Search, batch: int, turns: int) -> dict[str, Any]:
    """Seconds of each contestant over the same batches, in turns, all float32 with the same weights.

    same_translations: for each, the share of sentences that it writes as transformers does.
    """
    loaded = opened(name)
    model, tokenizer = loaded.model, loaded.tokenizer
    batches = _batches(tokenizer, sources, batch)
    with tempfile.TemporaryDirectory() as folder:
        runs = {"regard": _ours(model, search), "transformers": _theirs(model, search)}
        if importlib.util.find_spec(LIBRARY) is not None and type(model) is MarianMTModel:
            runs[LIBRARY] = _converted(model, tokenizer, search, Path(folder) / "converted")
        first = {who: [row for pair in batches for row in run(*pair)] for who, run in runs.items()}
        seconds = _timed(runs, batches, turns)
    return {
        "model": Path(name).name,
        "sentences": sum(len(source) for source, _ in batches),
        "batch": batch,
        "beams": search.beams,
        "threads": torch.get_num_threads(),
        "seconds": {who: round(median(times), 3) for who, times in seconds.items()},
        "regard_is_faster": {
            who: round(median(b / a for a, b in zip(seconds["regard"], times, strict=True)), 2)
            for who, times in seconds.items()
            if who != "regard"
        },
        "same_translations": {
            who: round(sum(map(list.__eq__, rows, first["transformers"])) / len(rows), 4)
            for who, rows in first.items()
            if who != "transformers"
        },
        "machine": describe(),
    }


def _batches(tokenizer: Any, sources: Sequence[str], batch: int) -> list[tuple[Tensor, Tensor]]:
    ids = sorted(tokenizer(list(sources), verbose=False)["input_ids"], key=len)
    made = []
    for begin in range(0, len(ids), batch):
        rows = ids[begin : begin + batch]
        lengths = torch.tensor([len(row) for row in rows])
        source = padded(rows, int(tokenizer.pad_token_id or 0))
        made.append((source, (torch.arange(source.shape[1]) < lengths[:, None]).long()))
    return made


def _timed(runs: dict[str, Run], batches: Sequence[tuple[Tensor, Tensor]], turns: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(turns):
        for who, run in runs.items():
            begin = time.perf_counter()
            for pair in batches:
                run(*pair)
            seconds[who].append(time.perf_counter() - begin)
    return seconds


def _ours(model: Any, search: Search) -> Run:
    return lambda source, mask: outputs(model, source, mask, search)


def _theirs(model: Any, search: Search) -> Run:
    """transformers' generate, with sdpa as the model was loaded."""
    never = [model.config.pad_token_id, model.config.decoder_start_token_id]
    end = int(model.config.eos_token_id)
    asked = {"num_beams": search.beams, "do_sample": False, "length_penalty": search.length_penalty}

    def run(source: Tensor, mask: Tensor) -> Written:
        written = model.generate(
            input_ids=source, attention_mask=mask, max_new_tokens=search.longest, suppress_tokens=never, **asked
        )[:, 1:].tolist()
        return [row[: row.index(end)] if end in row else row for row in written]

    return run


def _converted(model: Any, tokenizer: Any, search: Search, folder: Path) -> Run:
    """CTranslate2 with the weights written out in its form, as many threads as torch has."""
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader

    model.config.normalize_before = model.config.normalize_embedding = False
    spec = BartLoader()(model, tokenizer)
    spec.validate()
    spec.optimize(quantization=None)
    folder.mkdir()
    spec.save(str(folder))
    threads = {"inter_threads": 1, "intra_threads": torch.get_num_threads()}
    translator = ctranslate2.Translator(str(folder), device="cpu", compute_type="float32", **threads)
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    never = [[tokenizer.pad_token], [tokenizer.bos_token]]

    def run(source: Tensor, mask: Tensor) -> Written:
        rows = [[pieces[i] for i in row[:size]] for row, size in zip(source.tolist(), mask.sum(1).tolist())]
        made = translator.translate_batch(
            rows,
            beam_size=search.beams,
            length_penalty=search.length_penalty,
            max_decoding_length=search.longest,
            suppress_sequences=never,
        )
        return [tokenizer.convert_tokens_to_ids(each.hypotheses[0]) for each in made]

    return run
