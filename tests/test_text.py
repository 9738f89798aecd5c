"""The text form: what it says, that it comes back the same, and what it answers to what it cannot say."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regard
from regard import text
from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.run import compose, reference
from regard.text import MASKS, PARTS, TextError, parse, unparse
from regard.zoo import CATALOGUE, Sizes

SIZES = Sizes(2, 2, 2, 7, 7, 6, 5)


def same(a: object, b: object) -> bool:
    """Whether two attentions give the same on one example."""
    x = SIZES.inputs()
    first, second = (compose.attend(m, x, "reference") for m in (a, b))  # type: ignore[arg-type]
    return torch.allclose(first, second, atol=1e-12)


@pytest.mark.parametrize(
    ("written", "mask"),
    [
        ("causal & window(4) | sinks(2)", (masks.causal() & masks.window(4)) | masks.sinks(2)),
        ("causal & (window(4) | sinks(2))", masks.causal() & (masks.window(4) | masks.sinks(2))),
        ("~causal", ~masks.causal()),
        ("~(causal & chunk(3)) | prefix(2)", ~(masks.causal() & masks.chunk(3)) | masks.prefix(2)),
        ("near(None, 2)", masks.near(None, 2)),
        ("  globals( 2 )&near(before=1,after=3) ", masks.global_keys(2) & masks.near(1, 3)),
        ("full", masks.full()),
    ],
)
def test_masks_join_with_and_before_or(written: str, mask: masks.Combinable) -> None:
    assert same(parse(written), mechanism_with("wanted", "test", mask=mask))  # type: ignore[arg-type]


def test_parts_and_masks_make_one_mechanism() -> None:
    made = text.mechanism("alibi & softcap(5) & causal & sigmoid(-1) & rotary(base=500.0)")
    assert [type(part).__name__ for part in made.score] == ["Dot", "Alibi", "Softcap"]
    assert type(made.normaliser).__name__ == "Sigmoid" and str(made.mask) == "causal"
    assert made.name == "alibi & softcap(5) & rotary(500.0) & sigmoid(-1) & causal"
    assert same(made, parse(made.name))


def test_a_mechanism_of_the_catalogue_takes_masks_and_parts() -> None:
    both = text.mechanism("moba(2, 2) & alibi")
    assert "mean_blocks(2, 2)" in unparse(both) and "causal" in unparse(both)
    assert same(text.mechanism("linear & causal"), CATALOGUE["linear"].make(mask=masks.causal()))


def test_one_name_alone_is_the_catalogue_s_and_the_same_as_its_part() -> None:
    """A name that is both a part and a mechanism means the same either way; alibi alone is causal, as its paper's."""
    arguments = {
        "window": "(3)",
        "prefix": "(2)",
        "dilated": "(2, 2)",
        "sinks": "(2)",
        "topk": "(2)",
        "temperature": "(2)",
    }
    shared = set(CATALOGUE) & {*MASKS, *PARTS}
    assert {"alibi", "window", "sigmoid", "causal", "rotary"} <= shared
    assert str(text.mechanism("alibi").mask) == "causal" and str(text.mechanism("alibi & full").mask) == "full"
    for name in sorted(shared - {"alibi"}):
        written = name + arguments.get(name, "")
        alone = parse(written)
        assert isinstance(alone, Mechanism) and alone.name == name
        assert same(alone, parse(f"({written}) & full")), name


masks_written = st.recursive(
    st.sampled_from(["causal", "full", "window(3)", "sinks(2)", "globals(1)", "near(1, 2)", "prefix(2)", "chunk(3)"])
    | st.sampled_from(
        ["every(2)", "summary(4, 1)", "near_blocks(2, 1)", "global_tokens(1)", "random_blocks(2, 1, 9, 0)"]
    ),
    lambda inner: (
        st.builds(lambda a, b: f"({a}) & ({b})", inner, inner)
        | st.builds(lambda a, b: f"({a}) | ({b})", inner, inner)
        | st.builds(lambda a: f"~({a})", inner)
    ),
    max_leaves=4,
)
parts_written = st.lists(
    st.sampled_from(["alibi", "softcap(3.0)", "rotary", "unit", "temperature(0.5)", "sinusoidal", "dropout(0.2, 3)"]),
    max_size=3,
    unique=True,
)
rows_written = st.sampled_from(
    ["", "sigmoid(-0.5)", "entmax(1.5)", "sparsemax", "topk(2)", "off_by_one", "relu", "gumbel(0.7, 2)"]
)


@settings(max_examples=80, deadline=None)
@given(masks_written, parts_written, rows_written)
def test_what_is_written_comes_back_the_same(mask: str, parts: list[str], normaliser: str) -> None:
    made = text.mechanism(" & ".join([*parts, *([normaliser] if normaliser else []), f"({mask})"]))
    again = text.mechanism(unparse(made))
    assert unparse(again) == unparse(made)
    x = Sizes(1, 2, 2, 5, 5, 4, 3).inputs()
    (out, weights), (wanted_out, wanted) = (reference.attend(m, x) for m in (again, made))
    assert torch.equal(weights, wanted) and torch.equal(out, wanted_out)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="causlwindo(4),&|~= .1e_-+$\n", max_size=25))
def test_any_text_parses_or_points_at_the_place(written: str) -> None:
    try:
        parse(written)
    except TextError as error:
        assert 0 <= error.start <= error.end <= len(written)
        assert error.reason and "^" in str(error)


@pytest.mark.parametrize(
    ("written", "said", "place"),
    [
        ("causal & widow(4)", "called 'widow'; did you mean 'window'?", (9, 14)),
        ("causal & qqqqq", "called 'qqqqq'; `regard explain` lists the catalogue", (9, 14)),
        ("window(0)", r"window\(0\): a window holds at least 1 token; use causal\(\)", (0, 9)),
        ("window(1.5)", "window's width is a whole number, got 1.5", (0, 11)),
        ("window", r"window is written window\(width\)", (0, 6)),
        ("causal & window(2, 3)", r"window is written window\(width\)", (9, 21)),
        ("window(width=2, width=3)", r"window is written window\(width\)", (0, 24)),
        ("causal(3)", "causal is written causal, without arguments", (0, 9)),
        ("causal &", "expected the name of a mask, part or mechanism, found 'the end'", (8, 8)),
        ("", "expected the name", (0, 0)),
        ("alibi & (causal", r"expected '\)', found 'the end'", (15, 15)),
        ("causal window(2)", "expected & or | or the end, found 'window'", (7, 13)),
        ("window(wide)", "expected '=', found '\\)'", (11, 12)),
        ("window(__import__)", "expected '='", (17, 18)),
        ("window(2", "expected ',', found 'the end'", (8, 8)),
        ("causal | alibi", "| joins masks, and this is not one", (9, 14)),
        ("~sigmoid", "~ negates masks", (1, 8)),
        ("sigmoid & relu", "two normalisers cannot be combined", (10, 14)),
        ("dot & gaussian", "two scores to begin with cannot be combined", (6, 14)),
        ("moba(2, 2) & linear", "two mechanisms cannot be combined", (13, 19)),
        ("linear & sigmoid", "two normalisers cannot be combined", (9, 16)),
        ("nystrom(4) & causal", "nystrom is a LowRank of its own and cannot be combined with &", (0, 10)),
        ("gla & causal", "gla is a Decay of its own", (0, 3)),
        ("learned_sink", "learned_sink needs sink, which a text cannot hold; build it with regard.zoo", (0, 12)),
        ("glimpse", "glimpse is not a mechanism: a context weights features", (0, 7)),
        ("memory_as_gate", "memory_as_gate is not a mechanism", (0, 14)),
        ("entmax(1)", "alpha = 1 is softmax", (0, 9)),
    ],
)
def test_what_cannot_be_said_is_answered_in_one_sentence(written: str, said: str, place: tuple[int, int]) -> None:
    with pytest.raises(TextError, match=said.replace("|", r"\|").replace("?", r"\?").replace("+", r"\+")) as caught:
        parse(written)
    assert (caught.value.start, caught.value.end) == place
    line, echo, marks = str(caught.value).split("\n")
    assert echo == "  " + written and marks.strip("^ ") == "" and marks.index("^") == place[0] + 2
    assert ". " not in line


def test_what_holds_tensors_has_no_text() -> None:
    for name in ("learned_sink", "t5", "additive", "adaptive_span"):
        card = CATALOGUE[name]
        with pytest.raises(ValueError, match="holds tensors"):
            unparse(card.made(Sizes()))
    for name, said in (
        ("nystrom", "is a LowRank and has no text form"),
        ("retention", "is a Decay"),
        ("pointer", "tensors"),
    ):
        with pytest.raises(ValueError, match=said):
            unparse(CATALOGUE[name].made(Sizes()))
    with pytest.raises(ValueError, match="holds tensors"):
        unparse(CATALOGUE["document"].made(Sizes()))


def test_mechanism_takes_text_or_a_mechanism_and_refuses_the_rest() -> None:
    made = mechanism_with("mine", "test")
    assert text.mechanism(made) is made
    assert text.mechanism("causal").name == "causal"
    with pytest.raises(
        ValueError, match="nystrom is a LowRank, which has no row of scores of its own; give a single mechanism"
    ):
        text.mechanism("nystrom(3)")


def test_every_name_of_the_vocabulary_can_be_written() -> None:
    """Each part's own text parses back to it."""
    fill = {"int": "2", "float": "1.5", "bool": "False"}
    for name, factory in [*MASKS.items(), *((n, f) for n, (_, f) in PARTS.items())]:
        needed = [
            next(word for kind, word in fill.items() if kind in p.annotation)
            for p in inspect.signature(factory).parameters.values()
            if p.default is p.empty
        ]
        written = f"{name}({', '.join(needed)})" if needed else name
        written = {"dropout": "dropout(0.5)", "random_blocks": "random_blocks(2, 2, 9)"}.get(name, written)
        made = text.mechanism(f"{written} & full")
        assert unparse(text.mechanism(unparse(made))) == unparse(made), name


def test_public_functions_take_text() -> None:
    q = torch.randn(1, 2, 6, 4)
    out = regard.attention(q, q, q, "alibi & (causal & window(3) | sinks(1))")
    weights = regard.weights(q, q, "alibi & (causal & window(3) | sinks(1))")
    assert torch.allclose(weights @ q, out, atol=1e-5)
    with pytest.raises(ValueError, match="did you mean 'window'"):
        regard.attention(q, q, q, "windov(3)")
