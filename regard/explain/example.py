"""The inputs of the worked example: a short sentence with made-up embeddings, the same on every machine.

A word's embedding is drawn from a seed that is a checksum of the word, rounded to one digit so that a reader can
follow with a pencil; W_q, W_k and W_v are drawn once, rounded too. Nothing here was learned.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, inputs
from regard.parts.prepare import Project
from regard.protocol import Attention
from regard.zoo import Card, Sizes

SENTENCE = "The cat sat on the mat"
MOST_TOKENS = 16
WIDTH = 4
MADE_UP = (
    "Embeddings and projections are made up (drawn from fixed seeds, one digit each, equal words alike); every "
    "number after them is computed by the mechanism's own parts."
)

SOURCE_WORDS = ("le", "chat", "est", "assis")
CELLS = tuple(f"c{row},{column}" for row in (1, 2) for column in (1, 2, 3))
OTHER_KEYS: dict[str, tuple[str, ...]] = {
    "cross": SOURCE_WORDS,
    "additive": SOURCE_WORDS,
    "concat": SOURCE_WORDS,
    "spatial_soft": CELLS,
    "spatial_hard": CELLS,
}
HEADS: dict[str, tuple[int, int]] = {"grouped_query": (4, 2), "multi_query": (3, 3), "simplified": (1, 1)}


@dataclass(frozen=True, eq=False)
class Example:
    """A call: tokens and key tokens, their embeddings [T,D], the mechanism and the inputs that it is given.

    plain: the queries, keys and values are the tokens themselves. given: names of q, k, v that are not projections.
    """

    tokens: list[str]
    key_tokens: list[str]
    embedded: Tensor
    embedded_keys: Tensor
    attention: Attention
    x: Inputs
    plain: bool
    given: frozenset[str]


def tokens_of(text: str) -> list[str]:
    """Words and signs of a text; raises UserError where it is empty or too long to draw."""
    found = re.findall(r"\w+|[^\w\s]", text)
    if not found:
        raise UserError("the text has no words to attend to; give a short sentence")
    if len(found) > MOST_TOKENS:
        raise UserError(
            f"a worked example shows every number of at most {MOST_TOKENS} words, got {len(found)}; "
            "`regard see` looks at longer texts"
        )
    return found


def embedding(token: str, width: int = WIDTH) -> Tensor:
    """The made-up embedding [width] float64 of a word, whatever its case."""
    generator = torch.Generator().manual_seed(zlib.crc32(token.casefold().encode("utf-8", "surrogatepass")))
    return torch.randn(width, dtype=torch.float64, generator=generator).mul(10).round().div(10)


def projection(which: int, heads: int, width: int = WIDTH) -> Tensor:
    """The made-up W [heads, width, width] of queries (1), keys (2) or values (3)."""
    generator = torch.Generator().manual_seed(which)
    return torch.randn(heads, width, width, dtype=torch.float64, generator=generator).mul(7).round().div(10)


def embedded(tokens: list[str]) -> Tensor:
    """[T,D]."""
    return torch.stack([embedding(token) for token in tokens])


Embed = Callable[[list[str]], Tensor]


def of_card(card: Card, tokens: list[str], embed: Embed = embedded) -> Example:
    """The example of a mechanism of the catalogue, with its example's arguments. embed: words -> embeddings [T,D]."""
    key_tokens = list(OTHER_KEYS.get(card.name, tokens))
    heads, groups = HEADS.get(card.name, (2, 2))
    sizes = Sizes(1, heads, groups, len(tokens), len(key_tokens), WIDTH, WIDTH)
    attention = card.made(sizes)
    projected = _plain_inputs(tokens, key_tokens, heads, groups, embed)
    x = card.arrange(projected, sizes)
    plain = (x.v is x.q and x.k is x.q) or _projects(attention)
    if plain:
        x = card.arrange(_unprojected(projected, tokens, key_tokens, embed), sizes)
    given = frozenset(name for name in "qkv" if not plain and getattr(x, name) is not getattr(projected, name))
    return _example(tokens, key_tokens, attention, x, plain, _changed(given, card), embed)


def of_attention(attention: Attention, tokens: list[str]) -> Example:
    """The example of any attention that needs nothing but queries, keys and values."""
    return _example(tokens, tokens, attention, _plain_inputs(tokens, tokens, 2, 2), False, frozenset())


def _changed(given: frozenset[str], card: Card) -> frozenset[str]:
    """multi-query only drops heads of k and v, which are projections still."""
    return frozenset() if card.name == "multi_query" else given


def _example(
    tokens: list[str],
    key_tokens: list[str],
    attention: Attention,
    x: Inputs,
    plain: bool,
    given: frozenset[str],
    embed: Embed = embedded,
) -> Example:
    return Example(tokens, key_tokens, embed(tokens), embed(key_tokens), attention, x, plain, given)


def _projects(attention: Attention) -> bool:
    return any(isinstance(part, Project) and part.w_v is not None for _, part in attention.composition())


def _plain_inputs(tokens: list[str], key_tokens: list[str], heads: int, groups: int, embed: Embed = embedded) -> Inputs:
    q, k, v = (
        (embed(words) @ projection(which, count))[None]
        for which, words, count in ((1, tokens, heads), (2, key_tokens, groups), (3, key_tokens, groups))
    )
    return inputs(q, k, v, query_positions=torch.arange(len(tokens)))


def _unprojected(x: Inputs, tokens: list[str], key_tokens: list[str], embed: Embed) -> Inputs:
    q, k = embed(tokens).expand_as(x.q), embed(key_tokens).expand_as(x.k)
    return x.replace(q=q, k=k, v=k)
