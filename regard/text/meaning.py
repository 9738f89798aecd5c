"""From a tree to an attention: names looked up, arguments checked, parts put together."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from regard.mechanism import Mask, Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.parts.masks import And, Combinable, Not, Or
from regard.protocol import Attention
from regard.text.reader import Call, Joined, TextError, Tree
from regard.text.vocabulary import MASKS, PARTS
from regard.text.writing import text_or
from regard.zoo import CATALOGUE


@dataclass(frozen=True)
class Draft:
    """A mechanism being put together; `tree` is where it stands in the text."""

    tree: Tree
    start: Mechanism | None = None
    base: Any = None
    terms: tuple[Any, ...] = ()
    normaliser: Any = None
    prepare: tuple[Any, ...] = ()
    adjust: tuple[Any, ...] = ()
    mask: Mask | None = field(default=None)

    def mechanism(self, text: str) -> Mechanism:
        whole = self.start or mechanism_with("scaled_dot", CATALOGUE["scaled_dot"].source)
        score = whole.score if self.base is None else (self.base, *whole.score[1:])
        mask = whole.mask if self.mask is None else _both(whole.mask, self.mask)
        made = whole.replace(
            score=(*score, *self.terms),
            mask=mask,
            normaliser=whole.normaliser if self.normaliser is None else self.normaliser,
            prepare=(*whole.prepare, *self.prepare),
            adjust=(*whole.adjust, *self.adjust),
        )
        return made.replace(name=text_or(made, text.strip()), source=f"composed from {whole.source}")


def _both(left: Mask, right: Mask) -> Mask:
    return right if isinstance(left, masks.Full) else And(left, right)


def value_of(tree: Tree, text: str, alone: bool = False) -> Any:
    """A mask, a draft of a mechanism, or (only alone) a composite or recurrence."""
    if isinstance(tree, Call):
        return _named(tree, text)
    if tree.sign == "&":
        return _all(tree, text)
    found = [value_of(part, text) for part in tree.parts]
    for part, value in zip(tree.parts, found, strict=True):
        if not isinstance(value, Combinable):
            sign = "~ negates" if tree.sign == "~" else "| joins"
            raise TextError(
                f"{sign} masks, and this is not one; put masks in parentheses, as in alibi & (causal | sinks(4))",
                text,
                part.start,
                part.end,
            )
    if tree.sign == "~":
        return Not(found[0])
    whole = found[0]
    for value in found[1:]:
        whole = Or(whole, value)
    return whole


def _all(tree: Joined, text: str) -> Any:
    found = [value_of(part, text) for part in tree.parts]
    seen: Mask | None = None
    draft: Draft | None = None
    for part, value in zip(tree.parts, found, strict=True):
        if isinstance(value, Combinable):
            seen = value if seen is None else And(seen, value)
        elif isinstance(value, Draft):
            draft = value if draft is None else _merged(draft, value, part, text)
        else:
            raise TextError(
                f"{value.name} is a {type(value).__name__} of its own and cannot be combined with &; use it alone",
                text,
                part.start,
                part.end,
            )
    if draft is None:
        return seen
    if seen is None:
        return replace(draft, tree=tree)
    return replace(draft, tree=tree, mask=seen if draft.mask is None else And(draft.mask, seen))


def _merged(a: Draft, b: Draft, at: Tree, text: str) -> Draft:
    for name, what in (("start", "mechanisms"), ("base", "scores to begin with"), ("normaliser", "normalisers")):
        if _own(a, name) is not None and _own(b, name) is not None:
            raise TextError(f"two {what} cannot be combined: one attention has one", text, at.start, at.end)
    return Draft(
        at,
        start=a.start or b.start,
        base=b.base if a.base is None else a.base,
        terms=(*a.terms, *b.terms),
        normaliser=b.normaliser if a.normaliser is None else a.normaliser,
        prepare=(*a.prepare, *b.prepare),
        adjust=(*a.adjust, *b.adjust),
        mask=b.mask if a.mask is None else a.mask if b.mask is None else And(a.mask, b.mask),
    )


def _own(draft: Draft, name: str) -> Any:
    """What a draft brings for a place that only one can fill: given, or its mechanism's where that is not standard."""
    given = getattr(draft, name)
    if given is not None or draft.start is None:
        return given
    plain = mechanism_with("scaled_dot", "")
    if name == "base":
        return None if _same(draft.start.score[0], plain.score[0]) else draft.start.score[0]
    return None if _same(draft.start.normaliser, plain.normaliser) else draft.start.normaliser


def _same(part: Any, plain: Any) -> bool:
    return type(part) is type(plain) and vars(part) == vars(plain)


def _named(call: Call, text: str) -> Any:
    if call.name in MASKS:
        return _called(call, MASKS[call.name], text)
    if call.name in PARTS:
        slot, factory = PARTS[call.name]
        made = _called(call, factory, text)
        several = {"term": "terms", "prepare": "prepare", "adjust": "adjust"}
        held: dict[str, Any] = {several[slot]: (made,)} if slot in several else {slot: made}
        return Draft(call, **held)
    if call.name in CATALOGUE:
        made = from_catalogue(call, text)
        return Draft(call, start=made) if isinstance(made, Mechanism) else made
    known = [*MASKS, *PARTS, *CATALOGUE]
    close = get_close_matches(call.name, known, n=1, cutoff=0.5)
    offer = f"; did you mean {close[0]!r}?" if close else "; `regard explain` lists the catalogue"
    end = call.start + len(call.name)
    raise TextError(f"no mask, part or mechanism is called {call.name!r}{offer}", text, call.start, end)


def from_catalogue(call: Call, text: str) -> Attention:
    card = CATALOGUE[call.name]
    if card.factory is None:
        raise TextError(f"{card.name} is not a mechanism: {card.refused}", text, call.start, call.end)
    needs = [
        name
        for name, parameter in inspect.signature(card.factory).parameters.items()
        if parameter.default is parameter.empty and not _scalar(parameter.annotation)
    ]
    if needs:
        raise TextError(
            f"{card.name} needs {', '.join(needs)}, which a text cannot hold; build it with regard.zoo",
            text,
            call.start,
            call.end,
        )
    found: Attention = _called(call, card.factory, text)
    return found


def _written(annotation: Any) -> str:
    """A parameter's annotation as text, whether its file postpones them or not."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _scalar(annotation: Any) -> bool:
    return bool(set(re.split(r"\W+", _written(annotation))) & {"int", "float", "bool"})


def _called(call: Call, factory: Callable[..., Any], text: str) -> Any:
    """The factory with the call's arguments, by position or name; anything that does not fit points at the call."""
    signature = inspect.signature(factory)
    names = list(signature.parameters)
    given: dict[str, Any] = {}
    for index, (name, value) in enumerate(call.arguments):
        wanted = name or (names[index] if index < len(names) else "")
        if wanted not in signature.parameters or wanted in given:
            raise _misfit(call, names, text)
        if not _fits(value, signature.parameters[wanted].annotation):
            kind = (
                _written(signature.parameters[wanted].annotation)
                .replace("int", "a whole number")
                .replace("float", "a number")
            )
            raise TextError(f"{call.name}'s {wanted} is {kind}, got {value!r}", text, call.start, call.end)
        given[wanted] = value
    if any(p.default is p.empty and n not in given for n, p in signature.parameters.items()):
        raise _misfit(call, names, text)
    try:
        return factory(**given)
    except ValueError as error:
        raise TextError(str(error), text, call.start, call.end) from error


def _misfit(call: Call, names: list[str], text: str) -> TextError:
    takes = f"{call.name}({', '.join(names)})" if names else f"{call.name}, without arguments"
    return TextError(f"{call.name} is written {takes}", text, call.start, call.end)


def _fits(value: Any, annotation: Any) -> bool:
    kinds = set(re.split(r"\W+", _written(annotation)))
    if value is None:
        return "None" in kinds
    if isinstance(value, bool):
        return "bool" in kinds
    return "float" in kinds or ("int" in kinds and isinstance(value, int))
