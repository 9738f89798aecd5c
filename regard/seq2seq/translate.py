"""regard.translate: sentences in, translations out, with what aligned with what where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from regard.errors import UserError
from regard.hf.load import Loaded
from regard.seq2seq.alignments import alignment, hard, has_attention, pharaoh
from regard.seq2seq.beam import Search
from regard.seq2seq.decode import decoded
from regard.seq2seq.directory import opened
from regard.seq2seq.words import by_words, words_of


@dataclass(frozen=True, eq=False)
class Translation:
    """A sentence and its translation. weights: float64 [target words, source words], or None where none were asked
    for; copied: numbers of the target words that were unknown and taken from the source."""

    source: str
    text: str
    source_words: list[str]
    words: list[str]
    weights: Tensor | None = None
    copied: tuple[int, ...] = ()

    def links(self) -> list[tuple[int, int]]:
        """The hard alignment: for each target word its source word, as (source, target)."""
        return [] if self.weights is None else hard(self.weights)

    def json(self) -> dict[str, Any]:
        """All of it as plain JSON; weights rounded to six digits."""
        found: dict[str, Any] = {"source": self.source, "translation": self.text}
        if self.weights is not None:
            rows = [[round(value, 6) for value in row] for row in self.weights.tolist()]
            found |= {"source_words": self.source_words, "words": self.words, "weights": rows}
            found |= {"alignment": pharaoh(self.links())}
        return found | ({"copied": list(self.copied)} if self.copied else {})


@overload
def translate(model: Loaded | str | Path | None, text: str, *, beams: int = ..., **options: Any) -> str: ...
@overload
def translate(model: Loaded | str | Path | None, text: list[str], *, beams: int = ..., **options: Any) -> list[str]: ...
def translate(
    model: Loaded | str | Path | None, text: str | list[str], *, beams: int = 5, **options: Any
) -> str | list[str]:
    """The translation of a sentence, or of each of several.

    model: a directory, a hub name, what `opened` gave, or None for the embedded translator of dates and numbers
    (French and German to English). options: as for `translations`.
    """
    several = [text] if isinstance(text, str) else list(text)
    found = [each.text for each in translations(model, several, Search(beams=beams), **options)]
    return found[0] if isinstance(text, str) else found


def translations(
    model: Loaded | str | Path | None,
    sentences: Sequence[str],
    search: Search,
    *,
    align: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> list[Translation]:
    """Translations in the sentences' order; an empty one stays empty. note: is told what was cut.

    Words unknown to the vocabulary are copied from the source along their alignment (Luong 2015b).
    """
    loaded = model if isinstance(model, Loaded) else opened(model)
    tokenizer: Any = loaded.tokenizer
    if tokenizer is None or not loaded.model.config.is_encoder_decoder:
        raise UserError(
            f"{type(loaded.model).__name__} is no translator: that takes an encoder–decoder and a tokenizer"
        )
    texts = [_clean(sentence) for sentence in sentences]
    sources = _sources(loaded, [text for text in texts if text], note)
    found: list[list[int]] = [[]] * len(sources)
    for row, ids in decoded(loaded.model, sources, search):
        found[row] = ids
    made = iter(_made(loaded, text, *pair, align) for text, pair in zip(filter(None, texts), zip(sources, found)))
    return [next(made) if text else Translation("", "", [], []) for text in texts]


def _clean(sentence: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in sentence):
        raise UserError("the text holds bytes that are not UTF-8; convert it first")
    return " ".join(sentence.split())


def _sources(loaded: Loaded, texts: list[str], note: Callable[[str], None]) -> list[list[int]]:
    if not texts:
        return []
    tokenizer: Any = loaded.tokenizer
    limit = int(getattr(loaded.model.config, "max_position_embeddings", None) or 1 << 20)
    ids = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    cut = sum(len(sentence) > limit for sentence in ids)
    if cut:
        sentences = "sentence is" if cut == 1 else "sentences are"
        note(f"{cut} {sentences} longer than the model's {limit} tokens and were cut there; split them")
    return [sentence if len(sentence) <= limit else [*sentence[: limit - 1], sentence[-1]] for sentence in ids]


def _made(loaded: Loaded, text: str, source: list[int], target: list[int], align: bool) -> Translation:
    tokenizer: Any = loaded.tokenizer
    words = words_of(tokenizer, target)
    unknown = words.unknown(target, tokenizer.unk_token_id)
    plain = tokenizer.decode(target, skip_special_tokens=True).strip()
    if not target or not has_attention(loaded.model) or not (align or unknown):
        if align and not has_attention(loaded.model):
            raise UserError("this model has no attention, so there is nothing to align by; drop --align")
        return Translation(text, plain, [], words.text)
    read = words_of(tokenizer, source)
    weights = by_words(alignment(loaded.model, source, target), words, read)
    if not unknown:
        return Translation(text, plain, read.text, words.text, weights if align else None)
    # What the tokenizer could not read stands in the text itself, as many words as it has.
    originals = text.split() if len(text.split()) == len(read.text) else read.text
    final = list(words.text)
    for word in unknown:
        final[word] = originals[int(weights[word].argmax())]
    return Translation(text, " ".join(final), originals, final, weights if align else None, tuple(unknown))
