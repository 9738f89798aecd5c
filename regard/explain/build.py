"""From a name or a text form to an Explanation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from regard.errors import UserError
from regard.explain import around
from regard.explain import example as worked_example
from regard.explain.composites import Worked, worked
from regard.explain.example import MADE_UP, SENTENCE, WIDTH, Example
from regard.explain.grid import cells
from regard.explain.pattern import LENGTHS, pairs, pattern
from regard.explain.record import Explanation, Panel, Part, Step
from regard.explain.search import found as found_cards
from regard.explain.steps import Labels, mask_meaning, meaning, per_token, words
from regard.explain.uses import use_of
from regard.mechanism import Mechanism
from regard.parts.masks import Full
from regard.protocol import Attention
from regard.zoo import CATALOGUE, Card, Sizes, families

PATTERN_TOKENS = 16
HOMES = {
    "glimpse": "regard.nn.GlimpseNetwork",
    "reinforce": "regard.nn.Reinforce",
    "memory_as_context": "regard.nn.MemoryAsContext",
    "memory_as_gate": "regard.nn.MemoryAsGate",
    "memory_as_layer": "regard.nn.MemoryAsLayer",
    "per_layer": "regard.nn.TransformerEncoderLayer, one mechanism each",
    "neural_memory": "regard.nn.NeuralMemory",
    "additive": "regard.nn.AdditiveAttention",
    "multi_head": "regard.nn.MultiHeadAttention",
    "cross": "regard.nn.CrossAttention",
    "trainable": "regard.nn.SelfAttention",
    "causal": "regard.nn.CausalSelfAttention",
    "spatial_soft": "regard.nn.SpatialAttention",
    "spatial_hard": "regard.nn.HardSpatialAttention",
}


def listing() -> list[tuple[str, list[tuple[str, str]]]]:
    """(family, [(name, one line)]) of the whole catalogue, in its order."""
    return [(family, [(card.name, card.line) for card in cards]) for family, cards in families().items()]


def explain(name: str, text: str = SENTENCE) -> Explanation:
    """A mechanism by its catalogue name or in the text form, worked through on the words of a text.

    Raises UserError for an unknown name (the closest known one is offered), a text form that does not parse (the
    place is pointed at) and a text that is empty or too long to draw.
    """
    tokens = worked_example.tokens_of(text)
    meant = _meant(name)
    if meant is not None:
        card = CATALOGUE[meant]
        return _refused(card) if card.factory is None else _of_card(card, tokens)
    attention = _parsed(name)
    found = re.fullmatch(r"\s*(\w+)\s*\([^()]*\)\s*", name)
    card_of = CATALOGUE.get(found[1]) if found else None
    made = worked_example.of_attention(attention, tokens)
    shown = _pattern_of(attention)
    if card_of is not None:
        return _made(made, shown, title=name.strip(), **_about(card_of))
    return _made(made, shown, title=name.strip(), **_about_text(name.strip(), made))


def _meant(name: str) -> str | None:
    """The catalogue's name for what was asked, by its name, another name, an author, a paper or a model; None for a
    text form. Raises UserError where several are meant, and lists them."""
    if name in CATALOGUE:
        return name
    if re.search(r"[(&|~)]", name):
        return None
    cards = found_cards(name)
    if len(cards) > 1:
        listed = "; ".join(f"{card.name} ({card.line.rstrip('.')})" for card in cards[:8])
        more = f" and {len(cards) - 8} more" if len(cards) > 8 else ""
        raise UserError(f"{name!r} can mean {len(cards)} mechanisms; say which: {listed}{more}")
    return cards[0].name if cards else None


def _parsed(text: str) -> Attention:
    from regard.text import parse

    try:
        return parse(text)
    except ValueError as error:
        raise UserError(str(error)) from error


def _of_card(card: Card, tokens: list[str]) -> Explanation:
    made = worked_example.of_card(card, tokens)
    heads, groups = worked_example.HEADS.get(card.name, (2, 2))
    keys = len(made.key_tokens) if card.name in worked_example.OTHER_KEYS else PATTERN_TOKENS
    queries = len(tokens) if card.name in worked_example.OTHER_KEYS else PATTERN_TOKENS
    sizes = Sizes(1, heads, groups, queries, keys, WIDTH, WIDTH)
    shown = pattern(card.made(sizes), card.arrange(sizes.inputs(), sizes))

    def grown(n: int) -> Attention:
        return card.made(_square(n))

    def _square(n: int) -> Sizes:
        return Sizes(1, heads, groups, n, n, WIDTH, WIDTH)

    settings = {n: _said(card.example(_square(n))) for n in LENGTHS}
    return _made(made, shown, grown, title=card.name, settings=settings, **_about(card))


def _said(arguments: dict[str, Any]) -> str:
    """Numbers among the arguments of an example: "stride = 5, summary = 1"."""
    return ", ".join(f"{name} = {value}" for name, value in arguments.items() if isinstance(value, int | float))


def _about(card: Card) -> dict[str, Any]:
    names = ("name", "family", "line", "equation", "source", "time", "attends")
    about = {name: getattr(card, name) for name in names} | {"memory": _memory(card.memory, card.stored)}
    use = use_of(card.name)
    known = {"when": use.when, "models": use.models} if use else {}
    return {**about, **known, "parameters": dict(card.parameters), "home": HOMES.get(card.name)}


def _memory(here: str, stored: str) -> str:
    """What regard needs, a strip of rows at a time, and what it takes to keep every weight, as textbooks count."""
    return f"{here} in regard; {stored} if every weight is kept, as textbooks count" if stored else here


def _about_text(text: str, made: Example) -> dict[str, Any]:
    attention = made.attention
    counted = pairs(attention, made.x)
    cost = "O(n² d)"
    if counted is not None:
        (short, few), (long, many) = counted[-2:]
        cost = "O(n d · keys per query)" if many / few < 2 * long / short else "O(n² d)"
    return {
        "name": text,
        "family": "text form",
        "line": "Composed from parts; what is not said is standard: scaled dot product, softmax, weighted sum.",
        "equation": _equation(attention),
        "source": attention.source or "composed from parts, see below",
        "time": cost,
        "memory": _memory("O(n d)", "O(n²)"),
        "attends": mask_meaning(attention.mask) if isinstance(attention, Mechanism) else "see its parts",
        "parameters": {},
        "home": None,
    }


def _equation(attention: Attention) -> str:
    if not isinstance(attention, Mechanism):
        return meaning(attention)
    last = [] if attention.mix is None else [meaning(attention.mix)]
    said = [
        *(meaning(part) for part in attention.score),
        meaning(attention.normaliser),
        *map(meaning, attention.adjust),
    ]
    mask = mask_meaning(attention.mask)
    return ";  ".join(re.sub(r" \([^()]*\d{4}[^()]*\)$", "", part) for part in (*said, f"where {mask}", *last) if part)


def _pattern_of(attention: Attention) -> Step | None:
    sizes = Sizes(1, 2, 2, PATTERN_TOKENS, PATTERN_TOKENS, WIDTH, WIDTH)
    try:
        return pattern(attention, sizes.inputs())
    except ValueError:
        return None


def _refused(card: Card) -> Explanation:
    return Explanation(
        **_about(card),
        title=card.name,
        parts=[],
        pairs=None,
        pattern=None,
        steps=[],
        tokens=[],
        about="",
        refused=card.refused,
    )


def _made(
    made: Example, shown: Step | None, grown: Callable[[int], Attention] | None = None, **about: Any
) -> Explanation:
    try:
        joins = around.goes_on(made, about["family"])  # then every head is shown, so that they can be joined by hand
        done = work(made, joins)
    except ValueError as error:
        raise UserError(f"{about['title']} cannot be worked through on these words: {error}") from error
    on = around.after(made, done.last) if joins else []
    return Explanation(
        **about,
        parts=_parts(made.attention),
        pairs=pairs(made.attention, made.x, grown),
        pattern=shown,
        steps=[*_inputs_shown(made, joins), *done.steps, *on],
        tokens=made.tokens,
        about=MADE_UP,
        unobservable=done.unobservable,
    )


def work(made: Example, all_heads: bool = False) -> Worked:
    """The steps after the inputs, and the last one's whole tensor: what `regard.attention` gives."""
    return worked(made.attention, made.x, Labels(made.tokens, made.key_tokens, all_heads))


def _inputs_shown(made: Example, all_heads: bool) -> list[Step]:
    labels = Labels(made.tokens, made.key_tokens, all_heads)
    columns = [str(place + 1) for place in range(WIDTH)]
    panels = [Panel("", made.tokens, columns, cells(made.embedded), "numbers")]
    if made.key_tokens != made.tokens:
        panels.append(Panel("what is attended to", made.key_tokens, columns, cells(made.embedded_keys), "numbers"))
    steps = [Step("tokens", "x: an embedding for each token", f"[{len(made.tokens)}, {WIDTH}]", panels)]
    if made.plain:
        said = "queries, keys and values start as the tokens themselves"
        return [Step("tokens", f"x: an embedding for each token;  {said}", steps[0].shape, panels)]
    sides = {"q": ("queries", made.tokens), "k": ("keys", made.key_tokens), "v": ("values", made.key_tokens)}
    for name, (title, rows) in sides.items():
        values = getattr(made.x, name)
        equation = f"{name}: made up, as this mechanism takes them" if name in made.given else f"{name} = x W_{name}"
        if values is not None and not (name in made.given and not bool(values.any())):
            if name not in made.given:
                steps.append(around.projection_of(made, name, 4 if all_heads else 1))
            steps.append(per_token(title, equation, values, rows, labels))
    extras: list[tuple[str, Tensor, list[str]]] = [
        *((name, value, made.tokens) for name, value in made.x.per_query.items()),
        *((name, value, made.key_tokens) for name, value in made.x.per_key.items()),
    ]
    for name, value, rows in extras:
        steps.append(per_token(name.replace("_", " "), "given per token; made up here", value, rows, labels))
    return steps


def _parts(attention: Attention) -> list[Part]:
    return [_part(role, part) for role, part in attention.composition()]


def _part(role: str, part: Any) -> Part:
    """A part of a mechanism by its own words; an attention among others by its name."""
    if part is None:
        return Part(role, "none", "the weights are the output")
    if role == "mask":
        return Part(role, words(part), mask_meaning(part))
    if isinstance(part, Mechanism):
        return Part(role, part.name, "" if isinstance(part.mask, Full) else mask_meaning(part.mask))
    return Part(role, words(part), meaning(part))
