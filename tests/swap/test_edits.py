"""Edits: no change keeps every bit, a change is what a hand-masked dense computation says, true heads alone matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from regard.errors import UserError
from regard.hf.attach import attach
from regard.swap import cut, off, pattern, uniform
from tests.hf import test_heads as heads_by_hand
from tests.hf.models import BY_NAME, Case, feed
from tests.hf.test_heads import HEADS, KINDS, LENGTH, TOKEN, VOCAB, repeated, scale_of
from tests.swap.dense import dense, softmax, stepwise

NAMES = ("gpt2", "llama", "qwen3", "gemma3", "opt")
circuit = heads_by_hand.model
CASES = [BY_NAME[name] for name in NAMES]


def built(case: Case) -> tuple[Any, Tensor]:
    return case.build(std=0.12), feed(case, length=14)["input_ids"]


def layer_of(module: Any) -> int:
    return int(module.layer_idx)


def heads_off(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
    made = softmax(scores, allowed).clone()
    if layer_of(module) == 1:
        made[:, [0, 2]] = 0.0
    return made


def edges_cut(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
    allowed = allowed.clone()
    num_queries, num_keys = scores.shape[2:]
    query, key = torch.arange(num_keys - num_queries, num_keys)[:, None], torch.arange(num_keys)
    hidden = (query >= 6) & ((key == 2) | (key == 5))
    if layer_of(module) == 0:
        allowed &= ~hidden
    else:
        allowed[:, 3] &= ~((query == 9) & (key < 4))
    return softmax(scores, allowed)


def made_uniform(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
    made = softmax(scores, allowed).clone()
    if layer_of(module) == 0:
        made[:, 1] = softmax(torch.zeros_like(scores), allowed)[:, 1]
    return made


EDITS: dict[str, tuple[Callable[[], list[Any]], Any]] = {
    "off": (lambda: [off([(1, 0), (1, 2)])], heads_off),
    "cut": (lambda: [cut(slice(6, None), [2, 5], layers=[0]), cut([9], slice(0, 4), heads=[(1, 3)])], edges_cut),
    "uniform": (lambda: [uniform([(0, 1)])], made_uniform),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_edit_is_a_hand_masked_model(case: Case, name: str) -> None:
    model, ids = built(case)
    edits, weights = EDITS[name]
    with torch.no_grad():
        plain = model(ids).logits
        with dense(model, weights):
            expected = model(ids).logits
        for watch in ((), None):
            with attach(model, watch, edit=edits()):
                assert (model(ids).logits - expected).abs().max() <= 1e-5
                assert (stepwise(model, ids) - expected).abs().max() <= 1e-5
        assert (plain - expected).abs().max() > 1e-4


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_edit_that_changes_nothing_keeps_every_bit(case: Case) -> None:
    model, ids = built(case)
    nothing = [cut([3], [4, 5, 6]), cut(slice(0, 5), slice(5, None), layers=[1]), cut([50], [3])]
    with torch.no_grad():
        plain, stepped = model(ids).logits, stepwise(model, ids)
        for watch in ((), None):
            with attach(model, watch, edit=nothing):
                assert torch.equal(model(ids).logits, plain)
                assert torch.equal(stepwise(model, ids), stepped)


def test_edges_in_shreds_are_cut_cell_by_cell() -> None:
    model = BY_NAME["llama"].build(std=0.12)
    ids = feed(BY_NAME["llama"], length=128, batch=1)["input_ids"]
    odd = list(range(1, 127, 2))
    edits = [cut(None, odd[:40], layers=[0]), cut([126, 127], odd, layers=[0])]

    def shredded(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
        if layer_of(module):
            return softmax(scores, allowed)
        allowed = allowed.clone()
        allowed[..., odd[:40]] = False
        allowed[..., 126:, odd] = False
        return softmax(scores, allowed)

    with torch.no_grad():
        with dense(model, shredded):
            expected = model(ids).logits
        with attach(model, watch=(), edit=edits):
            assert (model(ids).logits - expected).abs().max() <= 1e-5


def test_writing_with_edits_equals_computing_everything_anew() -> None:
    model, ids = built(BY_NAME["llama"])
    edits = [off([(0, 1)]), cut(slice(10, None), [1, 11]), uniform([(1, 2)])]
    prompt = ids[:1, :8]
    with torch.no_grad(), attach(model, watch=(), edit=edits):
        wrote = model.generate(prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        anew = prompt
        for _ in range(8):
            anew = torch.cat([anew, model(anew, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    free = model.generate(prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert torch.equal(wrote, anew) and not torch.equal(wrote, free)


def test_edits_are_watched_as_they_are() -> None:
    model, ids = built(BY_NAME["llama"])
    with torch.no_grad():
        with attach(model) as plain:
            model(ids)
        with attach(model, edit=[off([(0, 1)]), cut([7], [2], heads=[(0, 0)]), uniform([(1, 3)])]) as trace:
            model(ids)
    assert float(trace.weights(0, 1).abs().max()) == 0.0
    assert float(trace.weights(0, 0)[7, 2]) == 0.0 < float(plain.weights(0, 0)[7, 2])
    row = plain.weights(0, 0)[7].clone()
    row[2] = 0
    assert torch.allclose(trace.weights(0, 0)[7], row / row.sum(), atol=1e-6)
    assert torch.allclose(trace.weights(1, 3)[4, :5], torch.full((5,), 0.2), atol=1e-6)
    assert torch.allclose(trace.weights(0, 2), plain.weights(0, 2), atol=1e-6)
    assert trace.made["edits"][0] == "off 0.1" and not trace.made["problems"]


def test_a_pattern_of_another_run_takes_a_heads_place() -> None:
    model, ids = built(BY_NAME["llama"])
    other = ids.flip(1)
    heads = [(0, 2), (1, 0), (0, 3)]
    with torch.no_grad():
        with attach(model) as trace:
            model(other)

        def given(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
            made = softmax(scores, allowed).clone()
            for layer, head in heads:
                if layer == layer_of(module):
                    made[:, head] = trace.weights(layer, head).double()[made.shape[2] * -1 :, : made.shape[3]]
            return made

        with dense(model, given):
            expected = model(ids).logits
        with attach(model, edit=pattern(heads, trace)) as seen:
            assert (model(ids).logits - expected).abs().max() <= 1e-5
        assert torch.allclose(seen.weights(0, 2), trace.weights(0, 2), atol=1e-6)
        with attach(model, watch=(), edit=pattern(heads, trace)):
            assert (stepwise(model, ids) - expected).abs().max() <= 1e-5
        with attach(model, edit=pattern(heads, seen)):
            first = model(ids).logits
        assert (first - expected).abs().max() <= 1e-5
        asked = attach(model, watch=(), edit=pattern(heads, trace))
        with pytest.raises(UserError, match="the pattern has 14 tokens"), asked:
            model(torch.cat([ids, ids], 1))


def with_answer(model: Any) -> None:
    """Let the induction head copy the token that it finds into what the model says."""
    factor = scale_of(3)[1]
    block, head = model.transformer.h[1], KINDS[1].index("induction")
    size, width = HEADS * 48, 48
    v = slice(2 * size + head * width, 2 * size + head * width + VOCAB)
    with torch.no_grad():
        block.attn.c_attn.weight[TOKEN, v] = torch.eye(VOCAB)
        block.attn.c_proj.weight[head * width : head * width + VOCAB, TOKEN] = torch.eye(VOCAB) * 6 / factor
        model.transformer.ln_f.weight.fill_(1.0)


def right(model: Any, ids: Tensor, edits: list[Any]) -> float:
    """The mean probability of the next token in the second copy."""
    with torch.no_grad(), attach(model, watch=(), edit=edits):
        p = model(ids).logits[0].softmax(-1)
    rows = torch.arange(LENGTH + 1, 2 * LENGTH)
    return float(p[rows, ids[0, rows + 1]].mean())


def test_the_known_heads_and_only_they_change_the_answer(circuit: Any) -> None:
    ids = repeated()
    before = {name: tensor.clone() for name, tensor in circuit.state_dict().items()}
    with_answer(circuit)
    try:
        whole = right(circuit, ids, [])
        damage = {(n, h): whole - right(circuit, ids, [off([(n, h)])]) for n in range(2) for h in range(HEADS)}
        edges = [cut([t], [t - LENGTH + 1], heads=[(1, 0)]) for t in range(LENGTH + 1, 2 * LENGTH)]
        others = [cut([t], [t - LENGTH + 3], heads=[(1, 0)]) for t in range(LENGTH + 1, 2 * LENGTH)]
        damage_of_edges, damage_of_others = whole - right(circuit, ids, edges), whole - right(circuit, ids, others)
    finally:
        circuit.load_state_dict(before)
    known = {(0, KINDS[0].index("copies previous")), (1, KINDS[1].index("induction"))}
    assert whole > 0.2
    for head, lost in damage.items():
        assert (lost > 0.5 * whole) if head in known else abs(lost) < 1e-5, head
    assert damage_of_edges > 0.5 * whole and damage_of_others < 0.02 * whole


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda: off([(0, 9)]), "heads 0 to 3; head 9"),
        (lambda: off([(7, 0)]), "layers 0 to 1; layer 7"),
        (lambda: off([]), "at least one"),
        (lambda: cut([-1], [2]), "positions from 0"),
        (lambda: cut(layers=[5]), "layer 5 was asked for"),
        (lambda: pattern([(0, 0)], torch.zeros(3, 3))[0], "weights of 1 heads"),
    ],
)
def test_a_mistake_is_one_sentence(edit: Callable[[], Any], said: str) -> None:
    model, ids = built(BY_NAME["llama"])
    with torch.no_grad(), pytest.raises(UserError, match=said), attach(model, watch=(), edit=[edit()]):
        model(ids)
