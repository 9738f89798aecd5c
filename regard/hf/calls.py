"""One call of transformers' attention interface, read as a Mechanism. Every keyword is honoured or refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.masking_utils import flash_attention_mask

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.hf.errors import Unsupported
from regard.hf.families import HARMLESS, SINKS
from regard.hf.masks import ModelMask, split_mask
from regard.hf.seam import AttentionCall
from regard.mechanism import Mechanism, Score
from regard.parts.masks import Full
from regard.parts.mixes import WeightedSum
from regard.parts.normalisers import Softmax
from regard.parts.scores import Dot, Softcap, Table, widened

HONOURED = frozenset({"position_bias", "softcap", "is_causal", *SINKS})


@dataclass(frozen=True, eq=False)
class Call:
    """q [B,H,Tq,Dk], k [B,G,Tk,Dk], v [B,G,Tk,Dv] as they reached the interface; what they mean; what they may see.

    first_query and first_key: their slots in the sequence so far (first_query None: this call cannot tell).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mechanism: Mechanism
    allowed: Ranges
    first_query: int | None
    first_key: int
    mask: ModelMask | None
    valid: Tensor | None = None

    def over(self, q: Tensor, k: Tensor, v: Tensor) -> Call:
        """The same call on other tensors of the same shapes; keys beyond those of this one are left out."""
        k, v = (t if t.shape[2] == self.k.shape[2] else t[:, :, : self.k.shape[2]] for t in (k, v))
        rest = (self.mechanism, self.allowed, self.first_query, self.first_key, self.mask, self.valid)
        return Call(q, k, v, *rest)

    def of_heads(self, heads: list[int]) -> Call:
        """The same call for some query heads, each with its key-value head."""
        num_heads, groups = self.q.shape[1], self.k.shape[1]
        if heads == list(range(num_heads)):
            return self
        shared = [head // (num_heads // groups) for head in heads]
        terms = tuple(
            Table(t.bias[:, heads]) if isinstance(t, Table) and t.bias.shape[1] > 1 else t for t in self.mechanism.score
        )
        softmax = self.mechanism.normaliser
        if isinstance(softmax, Softmax) and isinstance(softmax.sink, Tensor):
            softmax = Softmax(softmax.sink[heads])
        mechanism = self.mechanism.replace(score=terms, normaliser=softmax)
        q, k, v = self.q[:, heads], self.k[:, shared], self.v[:, shared]
        return replace(self, q=q, k=k, v=v, mechanism=mechanism, allowed=self.allowed.head_slice(heads))


def read(call: AttentionCall, where: str, asked: tuple[ModelMask | None, bool] | None = None) -> Call:
    """The call as data. `where` names the layer in errors; asked: what its mask means, where that is known. Raises
    Unsupported for a keyword that changes the result in a way not known here."""
    query, key, keywords = call.query, call.key, call.keywords
    unknown = sorted(name for name, value in keywords.items() if value is not None and name not in HONOURED | HARMLESS)
    if unknown:
        raise Unsupported(
            f"{where} passes {', '.join(map(repr, unknown))} to its attention, which regard does not know how to "
            "honour; watch other layers with layers=…, or report the model"
        )
    if asked is None:
        asked = call.questions.of(call.mask, query.shape[2], key.shape[2], keywords.get("sliding_window"))
    question, certain = asked
    allowed, bias = _allowed(call, question if certain else None, where)
    terms: list[Score] = [Dot(query.shape[-1] ** -0.5 if call.scaling is None else call.scaling)]
    if keywords.get("position_bias") is not None:
        terms.append(Table(_cropped(keywords["position_bias"], query, key, where)))
    if keywords.get("softcap") is not None:
        terms.append(Softcap(float(keywords["softcap"])))
    if bias is not None:
        terms.append(Table(bias))
    sink = next((widened(keywords[name].detach()) for name in SINKS if keywords.get(name) is not None), None)
    softmax = Softmax(sink)
    if sink is not None and sink.ndim == 4:
        # a logit for each query: e^s / (e^σ + Σ e^s) = e^(s - σ) / (1 + Σ e^(s - σ))
        terms.append(Table(-sink.expand(-1, -1, -1, key.shape[2])))
        softmax = Softmax(0.0)
    mechanism = Mechanism(
        name=type(call.module).__name__,
        source="the model's own",
        score=tuple(terms),
        mask=Full(),
        normaliser=softmax,
        mix=WeightedSum(),
    )
    first_query, first_key = (None, 0) if question is None else (question.query_offset, question.key_offset)
    return Call(query, key, call.value, mechanism, allowed, first_query, first_key, question)


def _allowed(call: AttentionCall, question: ModelMask | None, where: str) -> tuple[Ranges, Tensor | None]:
    num_queries, num_keys = call.query.shape[2], call.key.shape[2]
    if call.mask is None and (question is None or question.answer is not flash_attention_mask):
        return _without_mask(call), None
    try:
        seen, bias = _dense_mask(call, where) if question is None else (question.ranges(), None)
    except ranges.TooManyRuns as error:
        raise Unsupported(f"the mask of {where} cannot be stated as intervals: {error}") from None
    if seen.num_queries == 1 < num_queries:  # one row for all queries
        start, stop = (table.expand(-1, -1, num_queries, -1) for table in (seen.start, seen.stop))
        seen = Ranges(start, stop, seen.num_keys)
    if seen.num_keys != num_keys:
        raise Unsupported(f"{where} was passed a mask over {seen.num_keys} keys for {num_keys} keys")
    return seen, bias


def _dense_mask(call: AttentionCall, where: str) -> tuple[Ranges, Tensor | None]:
    """A mask that the model or its user made by itself, read cell by cell."""
    mask = call.mask
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise Unsupported(f"{where} was passed a mask {shape}, which is none of [batch, heads, queries, keys]")
    return split_mask(mask.detach().expand(-1, -1, call.query.shape[2], -1))


def _without_mask(call: AttentionCall) -> Ranges:
    """transformers' rule without a mask: causal, aligned to the first key, if the call or the module says so. The
    models' own eager functions have no such rule: without a mask, all is seen."""
    num_queries, num_keys, device = call.query.shape[2], call.key.shape[2], call.query.device
    said = call.keywords.get("is_causal")
    causal = bool(getattr(call.module, "is_causal", True) if said is None else said)
    causal = causal and num_queries > 1 and not call.is_eager

    def make() -> Ranges:
        if not causal:
            return ranges.full(num_queries, num_keys, device)
        upto = torch.arange(1, num_queries + 1, device=device)[None, None]
        return ranges.between(torch.zeros_like(upto), upto, num_keys)

    return call.questions.ranges((causal, num_queries, num_keys, device), make)


def _cropped(bias: Tensor, query: Tensor, key: Tensor, where: str) -> Tensor:
    if bias.shape[2] not in (1, query.shape[2]) or bias.shape[3] < key.shape[2]:
        raise Unsupported(
            f"{where} has a position bias {list(bias.shape)} for {query.shape[2]} queries and {key.shape[2]} keys"
        )
    return bias.detach()[..., : key.shape[2]]


def swapped(own: Mechanism, wanted: Mechanism) -> Mechanism:
    """The model's mechanism with another one's parts in place; what the model may see stays ANDed as data.

    A dot product that does not name its scale takes the model's.
    """
    own_dot = own.score[0]
    score = tuple(own_dot if isinstance(term, Dot) and term.scale is None else term for term in wanted.score)
    return wanted.replace(score=score)
