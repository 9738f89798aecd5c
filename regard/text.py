"""The text form of attention: "causal & window(1024) | sinks(4)", "alibi & causal", "entmax(1.5)". Parsed, never run.

    expression := term ("|" term)*          masks joined by or
    term       := factor ("&" factor)*      masks joined by and; parts and masks put together into one mechanism
    factor     := "~" factor | "(" expression ")" | name ["(" arguments ")"]
    arguments  := [name "="] (number | True | False | None), separated by commas

A name is a mask, a part (a score, a normaliser, a prepare, an adjust) or a mechanism of the catalogue. What is not said
is standard: scaled dot product, no mask, softmax, weighted sum. What holds tensors is built in Python.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from regard.composite import Attention
from regard.mechanism import Mask, Mechanism
from regard.parts import masks
from regard.parts.adjusts import Dropout
from regard.parts.features import PositiveFeatures
from regard.parts.masks import And, Combinable, Not, Or
from regard.parts.mixes import WeightedSum
from regard.parts.normalisers import Entmax, Gumbel, Hard, Ratio, Relu, Sigmoid, Softmax, TopK
from regard.parts.prepare import AddPositions as Positions
from regard.parts.prepare import EluPlusOne, Normalise, Rotary, Temperature
from regard.parts.relative import Alibi, SelfPenalty
from regard.parts.scores import Dot, Euclidean, Softcap
from regard.parts.select import SelectBlocks
from regard.parts.standard import standard
from regard.zoo import CATALOGUE

Slot = Literal["base", "term", "normaliser", "prepare", "adjust"]


class TextError(ValueError):
    """A text that does not say an attention: one sentence, and the place."""

    def __init__(self, reason: str, text: str, start: int, end: int) -> None:
        self.reason, self.text, self.start, self.end = reason, text, start, end
        line = re.sub(r"\s", " ", text)
        super().__init__(f"{reason}\n  {line}\n  {' ' * start}{'^' * max(end - start, 1)}")


# ---- the vocabulary --------------------------------------------------------------------------------------------------


def _dot(scale: float = 1.0) -> Dot:
    return Dot(scale)


def _scaled_dot() -> Dot:
    return Dot()


def _gaussian(gamma: float = 0.5) -> Euclidean:
    return Euclidean(gamma)


def _softmax(sink: float | None = None) -> Softmax:
    return Softmax(sink)


def _off_by_one() -> Softmax:
    return Softmax(0.0)


def _sparsemax() -> Entmax:
    return Entmax(2.0)


def _entmax(alpha: float = 1.5) -> Entmax:
    return Entmax(alpha)


def _softcap(cap: float = 50.0) -> Softcap:
    return Softcap(cap)


def _sample(seed: int = 0) -> Gumbel:
    return Gumbel(seed=seed, straight_through=False)


def _gumbel(temperature: float = 1.0, seed: int = 0) -> Gumbel:
    return Gumbel(temperature, seed)


def _rotary(base: float = 10_000.0, width: int | None = None, interleaved: bool = False) -> Rotary:
    return Rotary(base, width, None, interleaved)


def _sinusoidal(values: bool = False) -> Positions:
    return Positions(None, values)


def _favor(count: int = 256, seed: int = 0) -> PositiveFeatures:
    return PositiveFeatures(count, seed)


def _mean_blocks(size: int, count: int) -> SelectBlocks:
    return SelectBlocks(size, count, "mean")


def _bound_blocks(size: int, count: int) -> SelectBlocks:
    return SelectBlocks(size, count, "bound")


MASKS: dict[str, Callable[..., Mask]] = {
    "full": masks.full,
    "causal": masks.causal,
    "window": masks.window,
    "near": masks.near,
    "sinks": masks.sinks,
    "globals": masks.global_keys,
    "global_tokens": masks.global_tokens,
    "prefix": masks.prefix,
    "chunk": masks.chunk,
    "every": masks.every,
    "dilated": masks.dilated,
    "summary": masks.summary,
    "near_blocks": masks.near_blocks,
    "random_blocks": masks.random_blocks,
    "heads": masks.heads,
}

PARTS: dict[str, tuple[Slot, Callable[..., Any]]] = {
    "scaled_dot": ("base", _scaled_dot),
    "dot": ("base", _dot),
    "gaussian": ("base", _gaussian),
    "alibi": ("term", Alibi),
    "softcap": ("term", _softcap),
    "self_penalty": ("term", SelfPenalty),
    "softmax": ("normaliser", _softmax),
    "off_by_one": ("normaliser", _off_by_one),
    "sigmoid": ("normaliser", Sigmoid),
    "relu": ("normaliser", Relu),
    "ratio": ("normaliser", Ratio),
    "sparsemax": ("normaliser", _sparsemax),
    "entmax": ("normaliser", _entmax),
    "topk": ("normaliser", TopK),
    "hard": ("normaliser", Hard),
    "gumbel": ("normaliser", _gumbel),
    "sample": ("normaliser", _sample),
    "temperature": ("prepare", Temperature),
    "unit": ("prepare", Normalise),
    "rotary": ("prepare", _rotary),
    "sinusoidal": ("prepare", _sinusoidal),
    "elu_plus_one": ("prepare", EluPlusOne),
    "favor": ("prepare", _favor),
    "mean_blocks": ("prepare", _mean_blocks),
    "bound_blocks": ("prepare", _bound_blocks),
    "dropout": ("adjust", Dropout),
}


# ---- reading ---------------------------------------------------------------------------------------------------------


def parse(text: str) -> Attention:
    """The attention that a text says. Raises TextError, which points at the place."""
    reader = _Reader(text)
    tree = reader.expression()
    if reader.token[0] != "end":
        raise reader.error(f"expected & or | or the end, found {reader.token[1]!r}")
    if isinstance(tree, _Call) and tree.name in CATALOGUE:
        return _from_catalogue(tree, text)
    found = _value(tree, text, alone=True)
    if isinstance(found, _Draft):
        return found.mechanism(text)
    if isinstance(found, Combinable):
        return _Draft(tree, mask=found).mechanism(text)  # type: ignore[arg-type]
    return found


def mechanism(given: Attention | str) -> Mechanism:
    """A Mechanism as it is, or what its text says; raises where that is a recurrence or a composite."""
    found = parse(given) if isinstance(given, str) else given
    if not isinstance(found, Mechanism):
        raise ValueError(
            f"{found.name} is a {type(found).__name__}, not a single mechanism with a row of scores; give a mechanism"
        )
    return found


@dataclass(frozen=True)
class _Call:
    name: str
    arguments: tuple[tuple[str | None, Any], ...]
    start: int
    end: int


@dataclass(frozen=True)
class _Joined:
    sign: Literal["&", "|", "~"]
    parts: tuple[_Tree, ...]
    start: int
    end: int


_Tree = _Call | _Joined
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TOKEN = re.compile(rf"\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<number>{_NUMBER})|(?P<sign>\S))")
_WORDS = {"True": True, "False": False, "None": None}


class _Reader:
    """Recursive descent over tokens (kind, text, start, end)."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.last_end = text, 0, 0
        self.token = self._next()

    def _next(self) -> tuple[str, str, int, int]:
        found = _TOKEN.match(self.text, self.place)
        if found is None or found.lastgroup is None or not found.group(found.lastgroup).strip():
            return "end", "the end", len(self.text), len(self.text)
        kind = found.lastgroup
        return kind, found.group(kind), found.start(kind), found.end(kind)

    def take(self) -> tuple[str, str, int, int]:
        taken = self.token
        self.place = self.last_end = taken[3]
        self.token = self._next()
        return taken

    def error(self, reason: str) -> TextError:
        return TextError(reason, self.text, self.token[2], self.token[3])

    def expect(self, sign: str) -> None:
        if self.token[1] != sign:
            raise self.error(f"expected {sign!r}, found {self.token[1]!r}")
        self.take()

    def expression(self) -> _Tree:
        return self._joined("|", self._term)

    def _term(self) -> _Tree:
        return self._joined("&", self._factor)

    def _joined(self, sign: Literal["&", "|"], read: Callable[[], _Tree]) -> _Tree:
        parts = [read()]
        while self.token[1] == sign:
            self.take()
            parts.append(read())
        return parts[0] if len(parts) == 1 else _Joined(sign, tuple(parts), parts[0].start, self.last_end)

    def _factor(self) -> _Tree:
        kind, word, start, _ = self.token
        if word == "~":
            self.take()
            return _Joined("~", (self._factor(),), start, self.last_end)
        if word == "(":
            self.take()
            inner = self.expression()
            self.expect(")")
            return replace(inner, start=start, end=self.last_end)
        if kind != "name":
            raise self.error(f"expected the name of a mask, part or mechanism, found {word!r}")
        self.take()
        arguments = self._arguments() if self.token[1] == "(" else ()
        return _Call(word, arguments, start, self.last_end)

    def _arguments(self) -> tuple[tuple[str | None, Any], ...]:
        self.take()
        found: list[tuple[str | None, Any]] = []
        while self.token[1] != ")":
            if found:
                self.expect(",")
            found.append(self._argument())
        self.take()
        return tuple(found)

    def _argument(self) -> tuple[str | None, Any]:
        kind, word, _, _ = self.token
        if kind == "name" and word not in _WORDS:
            self.take()
            self.expect("=")
            return word, self._literal()
        return None, self._literal()

    def _literal(self) -> Any:
        kind, word, _, _ = self.token
        if kind == "number":
            self.take()
            return float(word) if re.search(r"[.eE]", word) else int(word)
        if word in _WORDS:
            self.take()
            return _WORDS[word]
        raise self.error(f"expected a number, True, False or None, found {word!r}")


# ---- meaning ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draft:
    """A mechanism being put together; `tree` is where it stands in the text."""

    tree: _Tree
    start: Mechanism | None = None
    base: Any = None
    terms: tuple[Any, ...] = ()
    normaliser: Any = None
    prepare: tuple[Any, ...] = ()
    adjust: tuple[Any, ...] = ()
    mask: Mask | None = field(default=None)

    def mechanism(self, text: str) -> Mechanism:
        whole = self.start or standard("scaled_dot", CATALOGUE["scaled_dot"].source)
        score = whole.score if self.base is None else (self.base, *whole.score[1:])
        mask = whole.mask if self.mask is None else _both(whole.mask, self.mask)
        made = whole.replace(
            score=(*score, *self.terms),
            mask=mask,
            normaliser=whole.normaliser if self.normaliser is None else self.normaliser,
            prepare=(*whole.prepare, *self.prepare),
            adjust=(*whole.adjust, *self.adjust),
        )
        return made.replace(name=_text_or(made, text.strip()), source=f"composed from {whole.source}")


def _both(left: Mask, right: Mask) -> Mask:
    return right if isinstance(left, masks.Full) else And(left, right)


def _value(tree: _Tree, text: str, alone: bool = False) -> Any:
    """A mask, a draft of a mechanism, or (only alone) a composite or recurrence."""
    if isinstance(tree, _Call):
        return _named(tree, text)
    if tree.sign == "&":
        return _all(tree, text)
    found = [_value(part, text) for part in tree.parts]
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


def _all(tree: _Joined, text: str) -> Any:
    found = [_value(part, text) for part in tree.parts]
    seen: Mask | None = None
    draft: _Draft | None = None
    for part, value in zip(tree.parts, found, strict=True):
        if isinstance(value, Combinable):
            seen = value if seen is None else And(seen, value)  # type: ignore[assignment, arg-type]
        elif isinstance(value, _Draft):
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


def _merged(a: _Draft, b: _Draft, at: _Tree, text: str) -> _Draft:
    for name, what in (("start", "mechanisms"), ("base", "scores to begin with"), ("normaliser", "normalisers")):
        if _own(a, name) is not None and _own(b, name) is not None:
            raise TextError(f"two {what} cannot be combined: one attention has one", text, at.start, at.end)
    return _Draft(
        at,
        start=a.start or b.start,
        base=b.base if a.base is None else a.base,
        terms=(*a.terms, *b.terms),
        normaliser=b.normaliser if a.normaliser is None else a.normaliser,
        prepare=(*a.prepare, *b.prepare),
        adjust=(*a.adjust, *b.adjust),
        mask=b.mask if a.mask is None else a.mask if b.mask is None else And(a.mask, b.mask),
    )


def _own(draft: _Draft, name: str) -> Any:
    """What a draft brings for a place that only one can fill: given, or its mechanism's where that is not standard."""
    given = getattr(draft, name)
    if given is not None or draft.start is None:
        return given
    plain = standard("scaled_dot", "")
    if name == "base":
        return None if _same(draft.start.score[0], plain.score[0]) else draft.start.score[0]
    return None if _same(draft.start.normaliser, plain.normaliser) else draft.start.normaliser


def _same(part: Any, plain: Any) -> bool:
    return type(part) is type(plain) and vars(part) == vars(plain)


def _named(call: _Call, text: str) -> Any:
    if call.name in MASKS:
        return _called(call, MASKS[call.name], text)
    if call.name in PARTS:
        slot, factory = PARTS[call.name]
        made = _called(call, factory, text)
        several = {"term": "terms", "prepare": "prepare", "adjust": "adjust"}
        held: dict[str, Any] = {several[slot]: (made,)} if slot in several else {slot: made}
        return _Draft(call, **held)
    if call.name in CATALOGUE:
        made = _from_catalogue(call, text)
        return _Draft(call, start=made) if isinstance(made, Mechanism) else made
    known = [*MASKS, *PARTS, *CATALOGUE]
    close = get_close_matches(call.name, known, n=1, cutoff=0.5)
    offer = f"; did you mean {close[0]!r}?" if close else "; `regard explain` lists the catalogue"
    end = call.start + len(call.name)
    raise TextError(f"no mask, part or mechanism is called {call.name!r}{offer}", text, call.start, end)


def _from_catalogue(call: _Call, text: str) -> Attention:
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


def _scalar(annotation: str) -> bool:
    return bool(set(re.split(r"\W+", annotation)) & {"int", "float", "bool"})


def _called(call: _Call, factory: Callable[..., Any], text: str) -> Any:
    """The factory with the call's arguments, by position or name; anything that does not fit points at the call."""
    signature = inspect.signature(factory)
    names = list(signature.parameters)
    given: dict[str, Any] = {}
    for index, (name, value) in enumerate(call.arguments):
        wanted = name or (names[index] if index < len(names) else "")
        if wanted not in signature.parameters or wanted in given:
            raise _misfit(call, names, text)
        if not _fits(value, signature.parameters[wanted].annotation):
            kind = signature.parameters[wanted].annotation.replace("int", "a whole number").replace("float", "a number")
            raise TextError(f"{call.name}'s {wanted} is {kind}, got {value!r}", text, call.start, call.end)
        given[wanted] = value
    if any(p.default is p.empty and n not in given for n, p in signature.parameters.items()):
        raise _misfit(call, names, text)
    try:
        return factory(**given)
    except ValueError as error:
        raise TextError(str(error), text, call.start, call.end) from error


def _misfit(call: _Call, names: list[str], text: str) -> TextError:
    takes = f"{call.name}({', '.join(names)})" if names else f"{call.name}, without arguments"
    return TextError(f"{call.name} is written {takes}", text, call.start, call.end)


def _fits(value: Any, annotation: str) -> bool:
    kinds = set(re.split(r"\W+", annotation))
    if value is None:
        return "None" in kinds
    if isinstance(value, bool):
        return "bool" in kinds
    return "float" in kinds or ("int" in kinds and isinstance(value, int))


# ---- writing ---------------------------------------------------------------------------------------------------------


def unparse(attention: Attention) -> str:
    """The text that says this mechanism; parse(unparse(m)) computes the same. Raises ValueError where there is none."""
    if not isinstance(attention, Mechanism):
        raise ValueError(f"{attention.name} is a {type(attention).__name__} and has no text form; build it in Python")
    held = attention.tensors()
    if held:
        raise ValueError(f"{attention.name} holds tensors ({', '.join(held)}) and has no text form; build it in Python")
    if type(attention.mix) is not WeightedSum:
        raise ValueError(f"{attention.name} does not end in a weighted sum and has no text form; build it in Python")
    base, terms = attention.score[0], attention.score[1:]
    parts: list[Any] = [part for part in (base,) if _written(part) != "scaled_dot"]
    parts += [*terms, *attention.prepare]
    parts += [part for part in (attention.normaliser,) if _written(part) != "softmax"]
    pieces = [_written(part) for part in (*parts, *attention.adjust)]
    if not isinstance(attention.mask, masks.Full):
        seen = _written(attention.mask)
        pieces.append(f"({seen})" if pieces and isinstance(attention.mask, Or) else seen)
    return " & ".join(pieces) or "scaled_dot"


def _text_or(made: Mechanism, given: str) -> str:
    """The canonical text, or the given one where a part of the catalogue's has none."""
    try:
        return unparse(made)
    except ValueError:
        return given


def _written(part: Any) -> str:
    if type(part).__str__ is object.__str__:
        raise ValueError(f"{type(part).__name__} has no text form; build it in Python")
    return str(part)


__all__ = ["MASKS", "PARTS", "TextError", "mechanism", "parse", "unparse"]
