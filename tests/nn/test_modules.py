"""The other modules: equations written out, gradients, and the estimator's expectation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import regard
from regard import nn as ours
from regard.composite import ByHead
from regard.errors import UserError
from regard.text import parse
from tests.nn.test_multi_head import normal


def heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_self_and_causal_attention_equal_torch(groups: int) -> None:
    x = normal(2, 5, 8)
    for kind, causal in ((ours.SelfAttention, False), (ours.CausalSelfAttention, True)):
        module = kind(8, 4, groups=groups, bias=True).double()
        q, k, v = heads(module.query(x), 4), heads(module.key(x), groups), heads(module.value(x), groups)
        wanted = scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        wanted = module.out(wanted.transpose(1, 2).flatten(2))
        out, weights = module(x, need_weights=True)
        torch.testing.assert_close(out, wanted, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(module(x)[0], wanted, atol=1e-12, rtol=1e-12)
        wanted_gradients = torch.autograd.grad(wanted.square().sum(), list(module.parameters()), retain_graph=True)
        gradients = torch.autograd.grad(module(x)[0].square().sum(), list(module.parameters()))
        torch.testing.assert_close(gradients, wanted_gradients, atol=1e-10, rtol=1e-10)
        assert weights is not None and weights.shape == (2, 4, 5, 5)


@pytest.mark.parametrize("text", ["entmax(1.5)", "alibi & window(3)", "sigmoid & softcap(3.0)", "rotary & causal"])
def test_self_attention_takes_any_text_form(text: str) -> None:
    module, x = ours.SelfAttention(8, 2, text).double(), normal(1, 6, 8)
    wanted = regard.attention(*(heads(part(x), 2) for part in (module.query, module.key, module.value)), text)
    torch.testing.assert_close(module(x)[0], module.out(wanted.transpose(1, 2).flatten(2)), atol=1e-12, rtol=1e-12)


def test_self_attention_takes_a_recurrence_with_gates() -> None:
    module, x = ours.CausalSelfAttention(8, 2, regard.zoo.card("delta").make()).double(), normal(1, 6, 8)
    out, weights = module(x, per_key={"beta": normal(1, 2, 6).sigmoid()}, need_weights=True)
    assert out.shape == x.shape and weights is not None and bool((weights.triu(1) == 0).all())


def test_composites_are_made_causal_part_by_part_and_landmarks_cannot_be() -> None:
    module = ours.CausalSelfAttention(8, 2, "nystrom(2)")
    with pytest.raises(UserError, match="nystrom cannot take the mask causal: its landmarks average over the whole"):
        module(torch.zeros(1, 4, 8))
    parts = ((slice(0, 1), parse("full")), (slice(1, 2), parse("window(2)")))
    weights = ours.CausalSelfAttention(8, 2, ByHead("halves", "", parts))(normal(1, 4, 8).float(), need_weights=True)[1]
    assert bool((weights.triu(1) == 0).all()) and bool((weights[:, 1, 3, :2] == 0).all())


def test_cross_attention_leaves_padding_out() -> None:
    module = ours.CrossAttention(8, 6, 2).double()
    x, context = normal(2, 3, 8), normal(2, 5, 6, seed=1)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3:] = False
    out, weights = module(x, context, valid=valid, need_weights=True)
    torch.testing.assert_close(out[1:], module(x[1:], context[1:, :3])[0], atol=1e-12, rtol=1e-12)
    assert weights is not None and bool((weights[1, ..., 3:] == 0).all())


def test_additive_attention_is_bahdanau() -> None:
    module = ours.AdditiveAttention(4, 6, 5).double()
    state, keys = normal(2, 4), normal(2, 7, 6, seed=1)
    energy = torch.tanh(state @ module.query.weight.T + (keys @ module.key.weight.T).transpose(0, 1)).transpose(0, 1)
    wanted = (energy @ module.score.weight[0]).softmax(-1)
    context, weights = module(state, keys)
    torch.testing.assert_close(weights, wanted, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(context, (wanted[:, None] @ keys)[:, 0], atol=1e-12, rtol=1e-12)
    many, none = module(torch.stack([state, state], 1), keys, need_weights=False)
    torch.testing.assert_close(many[:, 1], context, atol=1e-12, rtol=1e-12)
    assert none is None
    sparse = ours.AdditiveAttention(4, 6, 5, "sparsemax").double()
    assert bool((sparse(50 * state, 50 * keys)[1] == 0).any())
    inputs = [normal(1, 2, 4).requires_grad_(), normal(1, 3, 6).requires_grad_()]
    assert torch.autograd.gradcheck(lambda q, k: module(q, k)[0], inputs)


def test_glimpse_weights_features_by_context() -> None:
    module = ours.GlimpseNetwork(5, 3, 2).double()
    x, context = normal(4, 7, 5), normal(4, 1, 3, seed=1)
    gate = torch.sigmoid(context @ module.context.weight.T + module.context.bias)
    wanted = (gate * x) @ module.out.weight.T + module.out.bias
    torch.testing.assert_close(module(x, context), wanted, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(module.gates(context), gate, atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(module, [x[:1, :2].requires_grad_(), context[:1].requires_grad_()])


# ---- images ----------------------------------------------------------------------------------------------------------


def test_soft_spatial_attention_looks_at_every_cell() -> None:
    module = ours.SpatialAttention(6, 4, 5).double()
    image, state = normal(2, 6, 3, 2), normal(2, 4, seed=1)
    glance = module(image, state)
    assert glance.weights.shape == (2, 3, 2)
    torch.testing.assert_close(glance.weights.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    gate = torch.sigmoid(module.gate(state))
    wanted = gate * (glance.weights[:, None] * image).sum((2, 3))
    torch.testing.assert_close(glance.context, wanted, atol=1e-12, rtol=1e-12)


def test_hard_spatial_attention_draws_in_proportion_and_its_mode_in_evaluation() -> None:
    soft, hard = ours.SpatialAttention(6, 4, 5).double(), ours.HardSpatialAttention(6, 4, 5).double()
    hard.load_state_dict(soft.state_dict())
    image, state = normal(1, 6, 2, 2).expand(4000, -1, -1, -1), normal(1, 4, seed=1).expand(4000, -1)
    torch.manual_seed(0)
    glance = hard(image, state)
    chance = soft(image[:1], state[:1]).weights[0]
    assert bool((glance.weights.sum((1, 2)) == 1).all())
    assert float((glance.weights.mean(0) - chance).abs().max().detach()) < 0.03
    drawn = (glance.weights * chance).sum((1, 2))
    torch.testing.assert_close(glance.log_prob, drawn.log(), atol=1e-12, rtol=1e-12)
    best = hard.eval()(image[:1], state[:1])
    assert int(best.weights.flatten().argmax()) == int(chance.flatten().argmax())
    cell = image[0].flatten(1)[:, int(chance.flatten().argmax())]
    torch.testing.assert_close(best.context[0], torch.sigmoid(hard.gate(state[0])) * cell, atol=1e-12, rtol=1e-12)


def test_reinforce_has_the_gradient_of_the_expected_reward() -> None:
    """Σ_j p_j ∇ℓ_j over every choice equals -∇ Σ_j p_j R_j, for any baseline."""
    logits, reward = normal(5).requires_grad_(), normal(5, seed=1)
    wanted = torch.autograd.grad(-(logits.softmax(-1) * reward).sum(), logits)[0]
    for baseline in (0.0, 0.7):
        estimator = ours.Reinforce().double().eval()
        estimator.baseline.fill_(baseline)
        total = torch.zeros(5, dtype=torch.float64)
        for choice in range(5):
            loss = estimator(logits.log_softmax(-1)[choice], reward[choice])
            total += logits.detach().softmax(-1)[choice] * torch.autograd.grad(loss, logits)[0]
        torch.testing.assert_close(total, wanted, atol=1e-12, rtol=1e-12)


def test_reinforce_baseline_follows_rewards_and_entropy_keeps_choices_open() -> None:
    estimator = ours.Reinforce(decay=0.5, entropy=0.1)
    for _ in range(12):
        estimator(torch.zeros(3), torch.full((3,), 2.0))
    assert float(estimator.baseline) == pytest.approx(2.0, abs=1e-3)
    logits = torch.zeros(4, requires_grad=True)
    even = -(logits.softmax(-1) * logits.log_softmax(-1)).sum()
    loss = estimator.eval()(logits.log_softmax(-1)[0], torch.tensor(2.0), even)
    assert float(loss.detach()) == pytest.approx(-0.1 * math.log(4), abs=2e-3)


def test_hard_attention_learns_where_to_look() -> None:
    torch.manual_seed(0)
    module, estimator = ours.HardSpatialAttention(2, 1, 8, gated=False), ours.Reinforce()
    optimiser = torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(60):
        place = torch.randint(4, (64,))
        image = torch.zeros(64, 2, 4)
        image[torch.arange(64), 0, place] = 1.0
        glance = module(image.unflatten(-1, (2, 2)), torch.ones(64, 1))
        loss = estimator(glance.log_prob, glance.context[:, 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(glance.context[:, 0].mean().detach()) > 0.9


# ---- Titans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hidden", "mini_batch"), [(None, 1), (6, 1), (None, 4), (6, 4)])
def test_memory_reads_without_learning_and_continues_where_it_stopped(hidden: int | None, mini_batch: int) -> None:
    torch.manual_seed(0)
    memory, x = ours.NeuralMemory(8, 2, hidden, mini_batch=mini_batch).double(), normal(2, 7, 8)
    whole, _ = memory(x)
    first, state = memory(x[:, :3])
    rest, _ = memory(x[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-10, rtol=1e-10)
    before = [w.clone() for w in state[0]]
    memory.read(x, state)
    torch.testing.assert_close([*state[0]], before, atol=0, rtol=0)
    torch.testing.assert_close(memory.read(x[:, 2:3], state)[:, 0], first[:, 2], atol=1e-10, rtol=1e-10)


def test_memory_learns_what_it_is_shown() -> None:
    """After many looks at the same pair, M(k) is nearer to v than the untrained memory."""
    torch.manual_seed(0)
    memory = ours.NeuralMemory(4, 1, rate=0.4)
    with torch.no_grad():
        memory.query.weight.copy_(memory.key.weight)
        memory.out.weight.copy_(torch.eye(4))
        memory.gates.weight.zero_()
        memory.gates.bias.copy_(torch.tensor([-20.0, -20.0, 0.0]))
        x = torch.randn(1, 1, 4)
        out, _ = memory(x.expand(1, 30, 4))
        value = torch.nn.functional.silu(memory.value(x))[0, 0]
    assert float((out[0, -1] - value).norm().detach()) < 0.05 * float((out[0, 0] - value).norm()) + 1e-4


@pytest.mark.parametrize("kind", [ours.MemoryAsContext, ours.MemoryAsGate, ours.MemoryAsLayer])
@pytest.mark.parametrize("mini_batch", [1, 3])
def test_titans_forms_are_causal_and_differentiable(kind: type[torch.nn.Module], mini_batch: int) -> None:
    torch.manual_seed(0)
    more = {"segment": 3} if kind is ours.MemoryAsContext else {"mechanism": "window(3)"}
    module = kind(8, 2, persistent=2, hidden=4, mini_batch=mini_batch, **more).double()
    x = normal(2, 7, 8)
    out = module(x)
    assert out.shape == x.shape
    changed = x.clone()
    changed[:, 5:] = 9.0
    torch.testing.assert_close(module(changed)[:, :5], out[:, :5], atol=1e-12, rtol=1e-12)
    out.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
    far = x.clone()
    far[:, 0] += 1.0
    assert not torch.allclose(module(far)[:, 6], out[:, 6])


def test_memory_as_context_equals_its_equations() -> None:
    torch.manual_seed(0)
    module = ours.MemoryAsContext(4, 1, segment=2, persistent=1).double()
    x, state, wanted = normal(1, 4, 4), None, []
    for part in (x[:, :2], x[:, 2:]):
        recalled = module.memory.read(part, state)
        pairs = [token for i in range(2) for token in (recalled[:, i], part[:, i])]
        row = torch.cat([module.persistent[None], torch.stack(pairs, 1)], 1)
        a = module.attend
        q, k, v = (heads(layer(row), 1) for layer in (a.query, a.key, a.value))
        y = a.out(scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0])[:, [2, 4]]
        for i in (0, 1):
            _, state = module.memory(y[:, i : i + 1], state)
            wanted.append(y[:, i : i + 1] * module.memory.read(y[:, i : i + 1], state))
    torch.testing.assert_close(module(x), torch.cat(wanted, 1), atol=1e-12, rtol=1e-12)
