"""A plan of swaps: which mechanism goes into which layers and heads of a model, as a record and as a text.

    plan  := rule (";" rule)*                  the first rule that names a head decides
    rule  := [where ":"] mechanism             without a where: everywhere
    where := "*" | item ("," item)*            "*" names all that no rule before it named
    item  := layer | layer "-" layer | layer "." head | layer "." head "-" head

A mechanism is a text form ("window(256) | sinks(4)") or "own", which leaves the model's attention as it is. What no
rule names stays the model's own. "0,1: causal; 2.3: own; *: window(256) | sinks(4)"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from regard.errors import UserError
from regard.protocol import Attention
from regard.run.compose import resolved

OWN = "own"
ITEM = re.compile(r"(\d{1,5})(?:\s*-\s*(\d{1,5})|\.(\d{1,5})(?:\s*-\s*(\d{1,5}))?)?")


@dataclass(frozen=True, eq=False)
class Rule:
    """One mechanism for some layers and heads.

    layers: whole layers; heads: (layer, head) of single heads; both None: all. everywhere: heads of every layer. text:
    how the mechanism is written. attention: the mechanism, None for the model's own.
    """

    text: str
    attention: Attention | None
    layers: frozenset[int] | None = None
    heads: frozenset[tuple[int, int]] | None = None
    everywhere: frozenset[int] | None = None

    def names(self, layer: int, head: int) -> bool:
        """Whether the rule says what this head computes."""
        if self.layers is None and self.heads is None:
            return self.everywhere is None or head in self.everywhere
        in_layer = layer in (self.layers or ()) and (self.everywhere is None or head in self.everywhere)
        return in_layer or (layer, head) in (self.heads or ())

    def __str__(self) -> str:
        items = [_spans(self.layers)] if self.layers else []
        items += [f"{layer}.{head}" for layer, head in sorted(self.heads or ())]
        return f"{','.join(items) or '*'}: {self.text}"


@dataclass(frozen=True, eq=False)
class Plan:
    """Rules in order: the first that names a head decides."""

    rules: tuple[Rule, ...]

    def of_head(self, layer: int, head: int) -> Attention | None:
        """What goes into a head; None leaves the model's own attention."""
        return next((rule.attention for rule in self.rules if rule.names(layer, head)), None)

    def touches(self, layer: int) -> bool:
        """Whether any rule may change something in this layer."""
        heads = {0, *(head for rule in self.rules for _, head in rule.heads or ())}
        heads |= {head for rule in self.rules for head in rule.everywhere or ()}
        return any(self.of_head(layer, head) is not None for head in heads)

    def last_head(self, layer: int) -> int:
        """The highest head of a layer that a rule names by number, -1 for none."""
        named = [head for rule in self.rules for head in rule.everywhere or ()]
        return max([-1, *named, *(head for rule in self.rules for at, head in rule.heads or () if at == layer)])

    @property
    def attentions(self) -> list[Attention]:
        """Every mechanism of the plan."""
        return [rule.attention for rule in self.rules if rule.attention is not None]

    @property
    def named_layers(self) -> list[int]:
        """The layers that rules name by number."""
        return sorted({n for r in self.rules for n in (*(r.layers or ()), *(n for n, _ in r.heads or ()))})

    def __str__(self) -> str:
        if len(self.rules) == 1 and self.rules[0].layers is None and self.rules[0].heads is None:
            return self.rules[0].text
        return "; ".join(map(str, self.rules))


NOTHING = Plan(())


def plan_of(
    mechanism: Attention | Plan | str | None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    read: Callable[[str], Attention] = resolved,
) -> Plan:
    """The plan that a mechanism, its text, or the text of a plan says. layers, heads: where it goes, by default all.
    read: what a mechanism's text means.

    Raises UserError for a text that does not parse, and where a plan that says its own layers is given others.
    """
    if mechanism is None:
        return NOTHING
    if isinstance(mechanism, Plan) or (isinstance(mechanism, str) and re.search("[:;]", mechanism)):
        if layers is not None or heads is not None:
            raise UserError(f"the plan {str(mechanism)!r} says its own layers; leave out --layers and --heads")
        return mechanism if isinstance(mechanism, Plan) else read_plan(mechanism, read)
    rule = _rule("*", mechanism, read) if isinstance(mechanism, str) else Rule(str(mechanism), resolved(mechanism))
    only = None if heads is None else frozenset(heads)
    return Plan((Rule(rule.text, rule.attention, None if layers is None else frozenset(layers), None, only),))


def read_plan(text: str, read: Callable[[str], Attention] = resolved) -> Plan:
    """The plan that a text says. Raises UserError, naming what cannot be read."""
    rules = []
    for part in text.split(";"):
        where, colon, mechanism = (word.strip() for word in part.partition(":"))
        if not (mechanism if colon else where):
            raise UserError(f"the plan {text!r} lacks a mechanism in {part.strip()!r}; write it as 0,1: causal; *: own")
        rules.append(_rule(where, mechanism, read) if colon else _rule("*", where, read))
    return Plan(tuple(rules))


def _rule(where: str, mechanism: str, read: Callable[[str], Attention]) -> Rule:
    attention: Any = None if mechanism == OWN else read(mechanism)
    if where == "*":
        return Rule(mechanism, attention)
    layers: set[int] = set()
    heads: set[tuple[int, int]] = set()
    for item in where.split(","):
        match = ITEM.fullmatch(item.strip())
        if match is None:
            raise UserError(f"a plan names layers as 0,3-5, heads as 2.1 or 2.0-3, and the rest as *; not {item!r}")
        first, last, head, last_head = (None if n is None else int(n) for n in match.groups())
        assert first is not None
        if head is None:
            layers |= set(_span(first, last, item))
        else:
            heads |= {(first, n) for n in _span(head, last_head, item)}
    return Rule(mechanism, attention, frozenset(layers), frozenset(heads))


def _span(first: int, last: int | None, item: str) -> range:
    last = first if last is None else last
    if last < first:
        raise UserError(f"the range {item.strip()!r} of a plan ends before it begins")
    return range(first, last + 1)


def _spans(numbers: frozenset[int]) -> str:
    """0,1,2,5 as 0-2,5."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
