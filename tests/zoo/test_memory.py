"""Titans' neural memory: mini-batches, a chunk against its steps and against the paper, its gradients, no weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regard.inputs import Inputs
from regard.protocol import NotObservable
from regard.recurrent import Recurrence, tokens
from regard.recurrent.memory import NeuralMemory
from regard.run import compose
from regard.zoo import Sizes, card
from tests.zoo import oracles
from tests.zoo.test_recurrences import example, flat

CASES = [(deep, size) for deep in (False, True) for size in (1, 2, 5, 64)]
every_case = pytest.mark.parametrize("deep, mini_batch", CASES, ids=lambda value: str(value))


def memory_of(deep: bool, mini_batch: int, length: int, seed: int = 3) -> tuple[Any, Inputs, dict[str, Any]]:
    sizes = Sizes(2, 2, 1, length, length, 6, 5, seed=seed)
    w_1, w_2 = 0.5 * sizes.normal(2, 6, 4 if deep else 5, seed=1), 0.5 * sizes.normal(2, 4, 5, seed=2)
    arguments = {"w_1": w_1, "w_2": w_2 if deep else None, "mini_batch": mini_batch}
    return card("neural_memory").make(**arguments), card("neural_memory").arrange(sizes.inputs(), sizes), arguments


def ragged(length: int) -> torch.Tensor:
    """Padding that differs by sequence: mini-batches begin at different slots."""
    valid = torch.ones(2, length, dtype=torch.bool)
    valid[0, [0, 1, 5]] = False
    valid[1, length - 4 :] = False
    return valid


@every_case
@pytest.mark.parametrize("padded", [False, True])
def test_memory_equals_the_paper_with_gradients_at_the_start_of_a_mini_batch(
    deep: bool, mini_batch: int, padded: bool
) -> None:
    memory, x, arguments = memory_of(deep, mini_batch, 13)
    x = x.replace(key_valid=ragged(13)) if padded else x
    wanted, _ = oracles.neural_memory(x, **arguments)
    for size in (1, 3, 64):
        assert torch.allclose(memory.recur(x, size=size)[0], wanted, atol=1e-10), size


@every_case
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_chunk_of_any_size_equals_its_steps(
    deep: bool, mini_batch: int, dtype: torch.dtype, tolerance: float
) -> None:
    memory, x, _ = memory_of(deep, mini_batch, 70)
    x = x.replace(**{part: getattr(x, part).to(dtype) for part in "qkv"}, key_valid=ragged(70))
    x = x.replace(per_key={name: gate.to(dtype) for name, gate in x.per_key.items()})
    wanted, last = memory.recur(x, size=1)
    for size in (2, 7, 64, 70):
        found, state = memory.recur(x, size=size)
        assert torch.allclose(found, wanted, atol=tolerance), f"in chunks of {size}"
        for a, b in zip(flat(state), flat(last), strict=True):
            assert torch.allclose(a, b, atol=tolerance), f"the state in chunks of {size}"


@every_case
def test_a_state_in_the_middle_of_a_mini_batch_carries_on(deep: bool, mini_batch: int) -> None:
    memory, x, _ = memory_of(deep, mini_batch, 21)
    wanted, _ = memory.recur(x)
    first, state = memory.recur(tokens(x, slice(0, 9)))
    rest, _ = memory.recur(tokens(x, slice(9, 21)), state)
    assert torch.allclose(torch.cat([first, rest], 2), wanted, atol=1e-10)


@every_case
def test_gradients_through_a_chunk_equal_finite_differences(deep: bool, mini_batch: int) -> None:
    _, x, arguments = memory_of(deep, mini_batch, 7)
    names = ("forget", "momentum", "rate")
    leaves = [x.q, x.k, x.v, *(x.per_key[name] for name in names), arguments["w_1"], arguments["w_2"]]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves if leaf is not None]

    def f(q: Any, k: Any, v: Any, alpha: Any, eta: Any, theta: Any, *layers: Any) -> Any:
        made = card("neural_memory").make(**dict(zip(("w_1", "w_2"), layers)), mini_batch=mini_batch)
        return made.recur(x.replace(q=q, k=k, v=v, per_key=dict(zip(names, (alpha, eta, theta)))))[0]

    assert torch.autograd.gradcheck(f, leaves, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("deep, mini_batch, most", [(False, 1, 1), (True, 16, 4), (False, 16, 4)])
def test_a_chunk_does_not_loop_over_tokens(
    deep: bool, mini_batch: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, x, _ = memory_of(deep, mini_batch, 64)
    runs, together = [], NeuralMemory._together
    monkeypatch.setattr(NeuralMemory, "step", lambda *given: pytest.fail("a step"))
    monkeypatch.setattr(NeuralMemory, "_together", lambda *given: runs.append(1) or together(*given))
    memory.recur(x, size=64)
    assert len(runs) == most


def test_closed_gates_change_nothing() -> None:
    """Gates of exactly 0, by which a memory is read without learning, are no special case."""
    memory, x, arguments = memory_of(True, 8, 12)
    closed = x.replace(per_key={name: torch.zeros_like(gate) for name, gate in x.per_key.items()})
    found, state = memory.recur(closed)
    q = torch.nn.functional.normalize(x.q, dim=-1)
    assert torch.allclose(found, torch.nn.functional.silu(q @ arguments["w_1"]) @ arguments["w_2"], atol=1e-12)
    assert torch.equal(state[0][0], arguments["w_1"].expand(2, -1, -1, -1))


def test_a_linear_neural_memory_without_momentum_is_the_delta_rule() -> None:
    """M(k) = k W, η = α = 0 and θ = β / 2: ∇‖kW - v‖² = 2 kᵀ(kW - v), the delta rule's update."""
    delta, x = example("delta", 10)
    beta = x.per_key["beta"]
    memory = NeuralMemory("memory", "test", torch.zeros(4, 6, 5, dtype=torch.float64), prepare=delta.prepare)
    gates = {"forget": 0 * beta, "momentum": 0 * beta, "rate": beta / 2}
    assert torch.allclose(compose.attend(memory, x.replace(per_key=gates)), compose.attend(delta, x), atol=1e-12)


def test_a_non_linear_memory_says_that_it_has_no_weights() -> None:
    memory, x = example("neural_memory", 4)
    assert isinstance(memory, Recurrence)
    with pytest.raises(NotObservable, match="no attention weights, not even effective ones"):
        compose.weights(memory, x)
    double, _ = memory.recur(x.replace(v=2 * x.v))
    single, _ = memory.recur(x)
    assert not torch.allclose(double, 2 * single, atol=1e-3)


def test_a_mini_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a mini-batch holds at least 1 token, got 0"):
        memory_of(False, 0, 3)
