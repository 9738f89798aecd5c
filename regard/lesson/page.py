"""The page that teaches as one file: chapters, the programs that its pictures run, and their numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from regard.errors import UserError
from regard.explain.example import MADE_UP, MOST_TOKENS, SENTENCE, WIDTH
from regard.explain.maths import mathml
from regard.lesson import mechanisms, models
from regard.lesson.written import Pool, kept, raw, written
from regard.view.arrays import Reference, Shelf
from regard.view.page import filled
from regard.view.words import visible
from regard.zoo import CATALOGUE, families

if TYPE_CHECKING:
    from regard.hf.load import Loaded

MOST_WORDS = 12
MOST_PIECES = 20
PROMPT_TOKENS = 24
LONGEST_WRITTEN = 20
PROMPT = "A fluffy blue creature roamed the forest. A fluffy blue"
SAMPLES = ("mardi 3 mai 1988", "vierhundertsiebenundzwanzig", "le vingt et un juin", "neuf mille quatre-vingt-douze")
FACTS = ("line", "source", "attends", "time", "memory")
Told = Callable[[float], None]


def page(
    language: Loaded,
    translator: Loaded,
    sentence: str = SENTENCE,
    words: Sequence[int] = range(1, MOST_WORDS + 1),
    told: Told = lambda share: None,
) -> str:
    """The page. language, translator: the models of chapters 8 and 1 to 3; sentence: that of the others at first;
    words: how many words a sentence may have; told: called with the share that is done."""
    if sentence_words(sentence) not in words:
        raise UserError(
            f"the page shows sentences of {min(words)} to {max(words)} words, got {sentence_words(sentence)}; "
            "give a shorter one, and type others in the page"
        )
    shelf, pool = Shelf(), Pool()
    cards = [card for card in CATALOGUE.values() if card.factory is not None]
    programs = {}
    for done, card in enumerate(cards):
        programs[card.name] = kept({str(n): _mechanism(mechanisms.of_card(card, n), pool) for n in words}, shelf)
        told((done + 1) / len(cards))
    programs |= _models(language.model, translator.model, shelf, pool)
    about = _about(language, translator, max(words))
    scene = {
        "programs": programs,
        "about": kept(about, shelf),
        "numbers": raw(pool.bytes, shelf),
        "arrays": shelf.blobs,
    }
    body = _body(language.model, translator.model, sentence)
    title = "Attention, from the bottleneck to the Transformer · regard"
    return filled(
        "lesson.html",
        title,
        scene | {"arrays": shelf.blobs},
        entry="lesson",
        styles=("page.css", "lesson.css"),
        body=body,
    )


def sentence_words(sentence: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", sentence))


def _mechanism(made: mechanisms.Recorded, pool: Pool) -> dict[str, Any]:
    program = None if made.program is None else written(made.program, pool)
    return {"program": program, "keys": made.keys, "refused": made.refused, "unobservable": made.unobservable}


def _models(language: Any, translator: Any, shelf: Shelf, pool: Pool) -> dict[str, Reference]:
    programs = {"model": kept(written(models.language_model(language, PROMPT_TOKENS), pool), shelf)}
    for count in range(1, MOST_PIECES + 1):
        programs[f"encoder {count}"] = kept(written(models.encoder(translator, count), pool), shelf)
        programs[f"decoder {count}"] = kept(written(models.decoder(translator, count), pool), shelf)
    return programs


def _about(language: Loaded, translator: Loaded, most: int) -> dict[str, Any]:
    config, writes = language.model.config, translator.model.config
    cards = [card for card in CATALOGUE.values() if card.factory is not None]
    return {
        "most": min(most, MOST_TOKENS),
        "width": WIDTH,
        "first": "window",
        "families": [
            [family, [x.name for x in known if x.factory is not None]] for family, known in families().items()
        ],
        "cards": {x.name: {name: getattr(x, name) for name in FACTS} for x in cards},
        "translator": {
            "tokenizer": models.tokenizer(translator.tokenizer),
            "samples": list(SAMPLES),
            "most": MOST_PIECES,
            "longest": LONGEST_WRITTEN,
            "start": writes.decoder_start_token_id,
            "end": writes.eos_token_id,
            "unknown": translator.tokenizer.unk_token_id,
        },
        "model": {
            "tokenizer": models.tokenizer(language.tokenizer),
            "most": PROMPT_TOKENS,
            "start": config.bos_token_id,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "first": {"layer": 1, "head": 0},
        },
    }


def _body(language: Any, translator: Any, sentence: str) -> str:
    cards = [card for card in CATALOGUE.values() if card.factory is not None]
    known = {
        "hidden": str(translator.config.hidden_size),
        "source": escape(SAMPLES[0]),
        "sentence": escape(visible(sentence)),
        "prompt": escape(PROMPT),
        "width": str(WIDTH),
        "layers": str(language.config.num_hidden_layers),
        "heads": str(language.config.num_attention_heads),
        "parameters": f"{language.num_parameters():,}",
        "count": str(len(cards)),
        "equations": "".join(f'<div data-of="{escape(x.name)}" hidden>{_equation(x.equation)}</div>' for x in cards),
        "made_up": escape(MADE_UP),
    }
    text = resources.files(__package__).joinpath("chapters.html").read_text("utf-8")
    text = re.sub(r"^\{\{(.*)\}\}$", lambda found: _equation(found[1]), text, flags=re.MULTILINE)
    return re.sub(r"%(\w+)%", lambda found: known[found[1]], text)


def _equation(text: str) -> str:
    return f'<p class="equation">{mathml(visible(text))}</p>'
