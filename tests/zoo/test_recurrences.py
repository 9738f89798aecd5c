"""Recurrences: a chunk equals its steps, states carry on, effective weights are the recurrence, refusals say why."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regard.inputs import Inputs, inputs
from regard.parts.masks import causal
from regard.recurrent import ready, tokens
from regard.run import compose, reference
from regard.zoo import CATALOGUE, Sizes, card

NAMES = ("linear_recurrent", "performer_recurrent", "retention", "gla", "delta", "gated_delta", "kda", "neural_memory")
LINEAR = NAMES[:-1]


def example(name: str, length: int, groups: int = 2) -> tuple[Any, Inputs]:
    sizes = Sizes(2, 4, groups, length, length, 6, 5, seed=length)
    return card(name).made(sizes), card(name).arrange(sizes.inputs(), sizes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 63, 65])
def test_a_chunk_equals_its_steps(name: str, length: int) -> None:
    recurrence, x = example(name, length)
    wanted, last = recurrence.recur(x, size=1)
    for size in (2, 7, 64):
        found, state = recurrence.recur(x, size=size)
        assert torch.allclose(found, wanted, atol=1e-10), f"{name} in chunks of {size}"
        for a, b in zip(flat(state), flat(last), strict=True):
            assert torch.allclose(a, b, atol=1e-10), f"{name}'s state in chunks of {size}"


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_equals_its_steps_in_float32(name: str) -> None:
    recurrence, x = example(name, 40)
    single = x.replace(**{part: getattr(x, part).float() for part in "qkv"})
    single = single.replace(per_key={n: e.float() for n, e in x.per_key.items()})
    wanted, _ = recurrence.recur(single, size=1)
    found, _ = recurrence.recur(single, size=13)
    assert wanted.dtype == torch.float32 and torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_carries_on(name: str) -> None:
    recurrence, x = example(name, 21)
    wanted, _ = recurrence.recur(x)
    first, state = recurrence.recur(tokens(x, slice(0, 9)))
    rest, _ = recurrence.recur(tokens(x, slice(9, 21)), state)
    assert torch.allclose(torch.cat([first, rest], 2), wanted, atol=1e-10)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("length", [5, 130])
def test_effective_weights_are_the_recurrence(name: str, length: int) -> None:
    """o = W V exactly, W causal; any rectangle is a part of the whole; values do not enter W."""
    recurrence, x = example(name, length)
    whole = compose.weights(recurrence, x)
    assert whole.shape == (2, 4, length, length)
    out, _ = recurrence.recur(x, size=1)
    assert torch.allclose(whole @ x.v.repeat_interleave(2, 1), out, atol=1e-8)
    assert bool((whole.triu(1) == 0).all())
    for rows, keys in (
        (slice(2, 4), slice(1, 5)),
        (slice(length - 2, length), slice(0, 3)),
        (slice(0, 1), slice(0, 0)),
    ):
        assert torch.allclose(compose.weights(recurrence, x, rows, keys), whole[:, :, rows, keys], atol=1e-10)
    other = x.replace(v=torch.randn_like(x.v))
    assert torch.allclose(compose.weights(recurrence, other), whole, atol=1e-12)


def test_a_linear_recurrence_is_its_mechanism_under_a_causal_mask() -> None:
    for name, given in (("linear", {}), ("performer", {"features": 12})):
        _, x = example("linear_recurrent", 30)
        wanted, weights = reference.attend(card(name).make(**given, mask=causal()), x)  # type: ignore[arg-type]
        recurrent = card(f"{name}_recurrent").make(**given)
        assert torch.allclose(compose.attend(recurrent, x), wanted, atol=1e-9)
        assert torch.allclose(compose.weights(recurrent, x), weights, atol=1e-9)


def test_without_gates_the_gated_are_the_plain() -> None:
    delta, x = example("delta", 12)
    gated = card("gated_delta").make()
    open_gate = x.replace(per_key={**x.per_key, "log_decay": torch.zeros(2, 4, 12, 1, dtype=torch.float64)})
    assert torch.allclose(compose.attend(gated, open_gate), compose.attend(delta, x), atol=1e-12)
    gla, y = example("gla", 12)
    fixed = torch.tensor([0.9, 0.8, 0.7, 0.6], dtype=torch.float64)
    gates = fixed.log().view(1, 4, 1, 1).expand(2, 4, 12, 6)
    retained = compose.attend(card("retention").make(gamma=fixed), y)
    assert torch.allclose(compose.attend(gla, y.replace(per_key={"log_decay": gates})), retained, atol=1e-12)


def test_the_delta_rule_replaces_what_a_key_held() -> None:
    """With β = 1, writing twice to one key leaves the second value; plain linear attention adds them."""
    key = torch.tensor([1.0, 0.0]).double().expand(1, 1, 3, 2)
    values = torch.tensor([[1.0], [5.0], [7.0]]).double()[None, None]
    x = inputs(key, key, values, per_key={"beta": torch.ones(1, 1, 3, dtype=torch.float64)})
    assert torch.allclose(compose.attend(card("delta").make(), x), values)


def test_long_gated_chunks_do_not_overflow() -> None:
    """Strong forgetting over a long chunk: e^{age} alone would underflow, differences do not."""
    recurrence, x = example("gla", 200)
    x = x.replace(per_key={"log_decay": torch.full((2, 4, 200, 6), -30.0, dtype=torch.float64)})
    wanted, _ = recurrence.recur(x, size=1)
    found, _ = recurrence.recur(x, size=200)
    assert bool(found.isfinite().all()) and torch.allclose(found, wanted, atol=1e-12)


def test_half_precision_inputs_come_back_in_their_type() -> None:
    for name in NAMES:
        recurrence, x = example(name, 9)
        half = x.replace(**{part: getattr(x, part).bfloat16() for part in "qkv"})
        out = compose.attend(recurrence, half.replace(per_key={n: e.float() for n, e in x.per_key.items()}))
        assert out.dtype == torch.bfloat16 and bool(out.isfinite().all()), name


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recurrence_cannot_take_is_refused_by_name(name: str) -> None:
    from regard.core import ranges

    recurrence, x = example(name, 4)
    with pytest.raises(ValueError, match=f"{name} is a recurrence over one sequence, and 2 queries on 4 keys are two"):
        ready(recurrence, x.replace(q=x.q[:, :, :2]))
    with pytest.raises(ValueError, match=f"{name} is a recurrence: its state sees the whole past, no mask"):
        compose.attend(recurrence, x.replace(allowed=ranges.full(4, 4)))
    with pytest.raises(ValueError, match=f"{name} needs values"):
        compose.attend(recurrence, x.replace(v=None))
    with pytest.raises(ValueError, match=f"backend 'native' cannot run {name}, a recurrence"):
        compose.attend(recurrence, x, "native")
    if x.per_key:
        with pytest.raises(ValueError, match=f"{name} needs the gate"):
            compose.attend(recurrence, x.replace(per_key={}))


def test_bad_arguments_are_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"retention forgets by a factor in \(0, 1\] per token"):
        CATALOGUE["retention"].make(gamma=torch.tensor([1.5]))
    memory = CATALOGUE["neural_memory"].make(w_1=torch.zeros(2, 3, 4))
    x = inputs(*(torch.randn(1, 2, 3, 5) for _ in range(3)))
    x = x.replace(per_key=dict.fromkeys(("forget", "momentum", "rate"), torch.rand(1, 2, 3)))
    with pytest.raises(ValueError, match=r"w_1 \[2, 3, 4\] does not fit queries \[1, 2, 3, 5\]"):
        compose.attend(memory, x)


def flat(state: Any) -> list[torch.Tensor]:
    return [state] if isinstance(state, torch.Tensor) else [t for part in state for t in flat(part)]
