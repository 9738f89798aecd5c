"""The embedded models as programs: the language model, the translator's encoder, and a step of its decoder."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import inputs
from regard.lesson.record import Program, recorded
from regard.run import reference

ANY_TOKEN = 5


def language_model(model: Any, tokens: int) -> Program:
    """ids [1,tokens] -> logits [1,tokens,vocabulary] and the weights [1,H,tokens,tokens] of each layer.

    model: a causal one, so that fewer tokens give the first rows of this: what follows a token is not seen.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")

    def compute(ids: Tensor) -> dict[str, Tensor]:
        out = model(input_ids=ids, output_attentions=True, use_cache=False)
        return {"logits": out.logits} | {f"weights{layer}": x for layer, x in enumerate(out.attentions)}

    try:
        return recorded(compute, {"ids": torch.full((1, tokens), ANY_TOKEN)})
    finally:
        model.set_attn_implementation(before)


def encoder(model: Any, tokens: int) -> Program:
    """ids [1,tokens] -> states [1,tokens,2 · hidden], the summary [1,1,2 · hidden] that is handed over where nothing is
    looked back at, and begin [1,hidden], the decoder's first state."""

    def compute(ids: Tensor) -> dict[str, Tensor]:
        states = model.encoder(input_ids=ids).last_hidden_state
        progress = model.decoder.start(states, None)
        return {"states": states, "summary": progress.summary[:, None], "begin": progress.state[0]}

    return recorded(compute, {"ids": torch.full((1, tokens), ANY_TOKEN)})


def decoder(model: Any, states: int) -> Program:
    """token [1], state [1,hidden] and the encoder's states [1,states,2 · hidden] -> the next state, the weights
    [1,1,1,states] of Bahdanau's attention, its context, and logits [1,vocabulary] of the next token."""
    hidden = model.config.hidden_size

    def compute(token: Tensor, state: Tensor, states: Tensor) -> dict[str, Tensor]:
        decoder = model.decoder
        memory, words = decoder.attention.memory(states, None), decoder.embed_tokens(token)
        x = inputs(state[:, None, None], memory.keys, memory.values, query_positions=torch.arange(1))
        context, weights = reference.attend(decoder.attention.mechanism(), x)
        assert context is not None
        seen = context[:, 0, 0]
        after = decoder.cell.step(decoder.cell.project(words), seen, (state,), decoder.cell.products())[0]
        out = torch.tanh(decoder.out(torch.cat([after, seen, words], -1)))
        return {"state": after, "weights": weights, "context": seen, "logits": model.lm_head(out)}

    given = {"state": torch.zeros(1, hidden), "states": torch.zeros(1, states, 2 * hidden)}
    return recorded(compute, {"token": torch.full((1,), ANY_TOKEN)} | given)


def tokenizer(fast: Any) -> dict[str, Any]:
    """What the page needs of a byte-pair tokenizer: vocabulary, merges, the unknown token's id, whether of bytes.

    Raises UserError for a tokenizer of another kind.
    """
    about = json.loads(fast.backend_tokenizer.to_str())
    kinds = {each.get("type") for each in _each(about["pre_tokenizer"] or {})}
    if about["model"]["type"] != "BPE" or not kinds & {"ByteLevel", "Metaspace"}:
        raise UserError("the page reads only byte-pair tokenizers of bytes, or with a mark before words")
    model = about["model"]
    return {
        "vocab": model["vocab"],
        "merges": [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]],
        "unknown": fast.unk_token_id or 0,
        "bytes": "ByteLevel" in kinds,
    }


def _each(part: dict[str, Any]) -> list[dict[str, Any]]:
    """A pre-tokenizer and those that it is made of."""
    return [part, *part.get("pretokenizers", [])]
