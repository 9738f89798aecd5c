"""Texts to vectors: an encoder's last states, pooled as its directory says.

x_1 … x_n the last states of a text: mean Σ x_i / n; cls x_1; last x_n; max over i; mean_sqrt_len Σ x_i / √n; then
divided by its length where the directory asks for it (Reimers & Gurevych 2019, Sentence-BERT, section 3, and the files
that the sentence-transformers library writes: modules.json, 1_Pooling/config.json, sentence_bert_config.json).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError

KINDS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_lasttoken": "last",
}
MODULES = ("Transformer", "Pooling", "Normalize")
TOKENS = 8192  # of one forward, padding included


@dataclass(frozen=True)
class Pooling:
    """kind: one of KINDS' values; normalised: whether vectors have length 1; longest: tokens, None for the model's."""

    kind: str = "mean"
    normalised: bool = True
    longest: int | None = None


def pooling_of(directory: Path) -> Pooling:
    """What the files of a directory say; mean and length 1 where there are none.

    Raises UserError for a module or a kind of pooling that this server does not compute.
    """
    modules = _read(directory / "modules.json")
    if modules is None:
        return Pooling()
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    unknown = next((kind for kind in kinds if kind not in MODULES), None)
    if unknown is not None:
        raise UserError(f"{directory}: its module {unknown} is none of {', '.join(MODULES)}; serve another encoder")
    said = _read(directory / "1_Pooling" / "config.json") or {}
    asked = [name for name, on in said.items() if name.startswith("pooling_mode") and on is True]
    if len(asked) > 1 or any(name not in KINDS for name in asked):
        raise UserError(f"{directory}: pooling by {' and '.join(asked)} is not computed here; serve another encoder")
    longest = (_read(directory / "sentence_bert_config.json") or {}).get("max_seq_length")
    return Pooling(KINDS[asked[0]] if asked else "mean", "Normalize" in kinds, longest)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def pool(states: Tensor, valid: Tensor, kind: str) -> Tensor:
    """states [B,T,D], valid bool [B,T], padding on the right -> [B,D]."""
    if kind == "cls":
        return states[:, 0]
    count = valid.sum(1, keepdim=True)
    if kind == "last":
        return states[torch.arange(len(states)), count[:, 0] - 1]
    if kind == "max":
        return states.masked_fill(~valid[..., None], -torch.inf).amax(1)
    total = (states * valid[..., None]).sum(1)
    return total / (count.sqrt() if kind == "mean_sqrt_len" else count)


class Embedder:
    """An encoder in eval mode and how its states become one vector."""

    def __init__(self, model: Any, pooling: Pooling, pad: int = 0) -> None:
        self.model, self.pooling, self.pad = model, pooling, pad
        own = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)
        offset = 2 if model.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
        self.longest = min(own - offset, pooling.longest or own)
        self.width = int(model.config.hidden_size)

    def embed(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Token ids of each text -> [texts, D] float32. Texts of like length share a forward."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        result = torch.empty(len(texts), self.width)
        at = 0
        while at < len(order):
            batch = order[at : at + max(1, TOKENS // len(texts[order[at]]))]
            result[batch] = self._forward([texts[i] for i in batch])
            at += len(batch)
        return result

    @torch.no_grad()
    def _forward(self, texts: list[Sequence[int]]) -> Tensor:
        width = max(map(len, texts))
        ids = torch.tensor([[*text, *[self.pad] * (width - len(text))] for text in texts])
        valid = torch.arange(width) < torch.tensor([len(text) for text in texts])[:, None]
        states = self.model(input_ids=ids, attention_mask=valid.long()).last_hidden_state
        vectors = pool(states, valid, self.pooling.kind).float()
        return torch.nn.functional.normalize(vectors, dim=-1) if self.pooling.normalised else vectors
