"""Evidence: on a circuit set by hand the true edges rank first; curves equal a dense recomputation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from regard.errors import UserError
from regard.hf.load import load
from regard.swap.evidence import SHARES, _Asking, _ordered, _shown, evidence
from regard.swap.faithful import Faithful, faithful
from tests.hf import test_heads as heads_by_hand
from tests.hf.models import BY_NAME, feed
from tests.hf.test_heads import KINDS, LENGTH, repeated
from tests.swap.dense import dense, softmax
from tests.swap.test_edits import with_answer

circuit = heads_by_hand.model


def test_curves_equal_a_dense_recomputation() -> None:
    model = BY_NAME["llama"].build(std=0.15)
    ids = feed(BY_NAME["llama"], length=9, batch=1)["input_ids"]
    asking = _Asking(model, ids, -1, None)
    rankings = asking.rankings(0)
    found = evidence(model, ids)
    every = {n: torch.ones_like(a, dtype=torch.bool) for n, a in asking.weights.items()}
    none = {n: ~asking.edges.expand(a.shape) for n, a in asking.weights.items()}

    def log_p(shown: dict[int, Tensor]) -> float:
        def masked(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
            return softmax(scores, allowed & shown[module.layer_idx])

        with torch.no_grad(), dense(model, masked):
            return float(asking.log_p(model(ids).logits))

    assert found.whole == pytest.approx(log_p(every), abs=1e-5)
    assert found.nothing == pytest.approx(log_p(none), abs=1e-5)
    for curve in found.curves:
        order = _ordered(rankings[curve.ranking], asking.edges)
        for share, without, alone in zip(SHARES, curve.deletion, curve.insertion, strict=True):
            assert without == pytest.approx(log_p(_shown(order, share, every, False)), abs=1e-5)
            assert alone == pytest.approx(log_p(_shown(order, share, none, True)), abs=1e-5)


def test_tokens_are_hidden_whole_and_the_one_most_looked_at_first() -> None:
    model = BY_NAME["llama"].build(std=0.3)
    ids = feed(BY_NAME["llama"], length=9, batch=1)["input_ids"]
    asking = _Asking(model, ids, -1, None)
    with torch.no_grad():
        eager = BY_NAME["llama"].build(std=0.3)
        eager.set_attn_implementation("eager")
        weights = torch.stack(eager(ids, output_attentions=True).attentions)[:, 0]
    expected = {"last row": weights[:, :, -1].sum((0, 1))[:-1]}
    columns = weights.tril(-1).sum((0, 1, 2))[:-1]
    expected["received"] = columns / torch.arange(8, 0, -1)
    every = {n: torch.ones_like(a, dtype=torch.bool) for n, a in asking.weights.items()}
    for name, numbers in expected.items():
        order = _ordered(asking.rankings(0)[f"tokens: {name}"], asking.edges)
        first = int(numbers.argmax())
        share = (8 - first) / 36  # of the edges, those of this key
        shown = torch.stack(list(_shown(order, share, every, False).values()))
        assert not shown[:, :, first + 1 :, first].any()
        shown[:, :, first + 1 :, first] = True
        assert shown.all()


def test_gradients_are_those_of_eager_weights() -> None:
    model = BY_NAME["llama"].build(std=0.15)
    ids = feed(BY_NAME["llama"], length=9, batch=1)["input_ids"]
    asking = _Asking(model, ids, -1, None)
    kept: list[Tensor] = []

    def weighed(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
        made = softmax(scores, allowed).detach().requires_grad_()
        kept.append(made)
        return made

    with dense(model, weighed):
        asking.log_p(model(ids).logits).backward()
    for layer, gradient in asking.gradients().items():
        expected = kept[layer].grad
        assert expected is not None
        seen = asking.edges | torch.eye(9, dtype=torch.bool)
        assert torch.allclose(gradient[:, seen].double(), expected[0][:, seen], atol=1e-5)


def test_on_a_circuit_set_by_hand_the_true_edges_come_first(circuit: Any) -> None:
    ids = repeated()[:, : 2 * LENGTH - 3]
    before = {name: tensor.clone() for name, tensor in circuit.state_dict().items()}
    with_answer(circuit)
    try:
        asking = _Asking(circuit, ids, -1, None)
        rankings = asking.rankings(0)
        last = ids.shape[1] - 1
        found = last - LENGTH + 1  # what the induction head of the last token looks at
        true = {(1, KINDS[1].index("induction"), last, found), (0, KINDS[0].index("copies previous"), found, found - 1)}
        every = {n: torch.ones_like(a, dtype=torch.bool) for n, a in asking.weights.items()}
        for layer, head, query, key in true:
            every[layer][head, query, key] = False
        optimum = asking.with_shown(every)  # without the true edges alone
        whole = evidence(circuit, ids, shares=(0.001, 0.01, 0.1))
        order = _ordered(rankings["gradient × attention"], asking.edges)
        first = {
            tuple(torch.unravel_index(flat, (2, order.heads, order.length, order.length))) for flat in order.flat[:2]
        }
        assert {tuple(int(n) for n in edge) for edge in first} == true
    finally:
        circuit.load_state_dict(before)
    by = {curve.ranking: curve for curve in whole.curves}
    assert optimum < whole.whole - 0.5
    assert by["gradient × attention"].deletion[0] <= optimum + 0.05  # it hides these two and four more
    for other in ("random", "recency"):
        assert by[other].deletion_area > by["gradient × attention"].deletion_area + 0.3
        assert by[other].comprehensiveness < by["gradient × attention"].comprehensiveness


def test_of_texts_it_says_numbers_with_their_spread_and_a_sentence() -> None:
    result = faithful(load(), ["The cat sat on the mat and the cat", "She looked at him and he looked at"])
    assert isinstance(result, Faithful) and result.inputs == 2
    assert len(result.damage) == 24 and set(result.agreement) >= {"entropy", "previous"}
    assert any("±" in line for line in result.lines()) and result.sentence == result.lines()[-1]
    with pytest.raises(UserError, match="3 to 256 tokens"):
        faithful(load(), ["a"])


def test_a_sentence_says_when_attention_explains_nothing() -> None:
    result = faithful(load(), ["The cat sat on the mat and"])
    blind = Faithful(2, -1.0, -1.01, result.rows, {}, {})
    assert "explains nothing" in blind.sentence
