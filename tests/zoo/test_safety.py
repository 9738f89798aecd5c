"""Every mechanism inside torch: nothing at all as input, a default device, tensors changed after the forward."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

import regard
import regard.errors
from regard.inputs import Inputs
from regard.protocol import NotObservable
from regard.run import compose
from regard.zoo import Sizes, card
from tests.matrix import ROWS, Row

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
BACKENDS = ("strips", "reference")


def called(row: Row, sizes: Sizes) -> tuple[Inputs, dict[str, Any]]:
    return row.card.arrange(sizes.inputs(), sizes), row.card.example(sizes)


@every_row
@pytest.mark.parametrize("batch, tokens", [(0, 5), (2, 0)])
def test_nothing_gives_nothing(row: Row, batch: int, tokens: int) -> None:
    """No sequences, or no tokens: an output without numbers, and gradients without numbers."""
    sizes = Sizes(batch, 4, 4, tokens, tokens, 6, 5)
    arguments = row.card.example(sizes if row.name == "linformer" else Sizes(2, 4, 4, 5, 5, 6, 5))
    x = row.card.arrange(sizes.inputs(), sizes)
    x = x.replace(q=x.q.detach().requires_grad_())
    attention = row.card.make(**arguments)
    if row.name == "nystrom" and not tokens:
        pytest.skip("landmarks need tokens, and say so")
    for backend in BACKENDS:
        if row.name != "pointer":
            out = compose.attend(attention, x, backend)
            assert (out.shape[0], out.shape[2]) == (batch, tokens)
            if out.requires_grad:
                (gradient,) = torch.autograd.grad(out.sum(), x.q)
                assert gradient.shape == x.q.shape
    with suppress(NotObservable):
        assert compose.weights(attention, x).shape[::2] == (batch, tokens)


@every_row
def test_a_default_device_does_not_move_what_is_computed(row: Row) -> None:
    """Tensors made on the way follow the inputs, not `torch.device`."""
    x, arguments = called(row, Sizes(2, 4, 4, 7, 7, 6, 5))
    run = compose.weights if row.name == "pointer" else compose.attend
    wanted = run(row.card.make(**arguments), x)
    with torch.device("meta"):
        found = run(row.card.make(**arguments), x, *([] if row.name == "pointer" else ["strips"]))
    assert found.device.type == "cpu" and torch.allclose(found, wanted, atol=1e-10)


@every_row
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_change_in_place_is_refused_or_harmless(row: Row, backend: str) -> None:
    """A tensor changed between forward and backward never gives another gradient without a word."""
    if row.name == "pointer":
        pytest.skip("a pointer has no output")
    x, arguments = called(row, Sizes(1, 2, 2, 5, 5, 4, 4))
    floating = {name: a for name, a in arguments.items() if isinstance(a, Tensor) and a.is_floating_point()}
    leaves = {"x.q": x.q, "x.k": x.k, "x.v": x.v, **x.per_query, **x.per_key, **floating}
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in leaves.items()}

    def run() -> tuple[dict[str, Tensor], Tensor]:
        now = {name: leaf * 1.0 for name, leaf in leaves.items()}
        gates = {side: {n: now[n] for n in getattr(x, side)} for side in ("per_query", "per_key")}
        given = x.replace(q=now["x.q"], k=now["x.k"], v=now["x.v"], **gates)
        attention = row.card.make(**{**arguments, **{name: now[name] for name in floating}})
        return now, compose.attend(attention, given, backend)

    def gradients(out: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(out.square().sum(), list(leaves.values()), allow_unused=True)

    wanted = gradients(run()[1])
    for name in leaves:
        now, out = run()
        with torch.no_grad():
            now[name].mul_(0.5)
        try:
            found = gradients(out)
        except RuntimeError as error:
            assert "inplace operation" in str(error), error
            continue
        for a, b in zip(found, wanted, strict=True):
            assert (a is None) == (b is None) and (a is None or torch.allclose(a, b)), f"{name} of {row.name}"


@pytest.mark.parametrize("name", ["gla", "gated_delta", "kda"])
def test_a_gate_that_forgets_everything_leaves_earlier_and_later_tokens_right(name: str) -> None:
    """log α = -inf, or so low that e to it is 0: chunks equal steps, in outputs, weights and gradients."""
    sizes = Sizes(2, 4, 2, 70, 70, 6, 5)
    x = card(name).arrange(sizes.inputs(), sizes)
    gate = x.per_key["log_decay"].clone()
    gate[:, :, 3], gate[:, 1, 66], gate[:, 2, 20:30], gate[:, 3, 40, :1] = -torch.inf, -torch.inf, -1e9, -torch.inf
    gate.requires_grad_()
    x = x.replace(per_key={**x.per_key, "log_decay": gate})
    recurrence = card(name).make()
    wanted, _ = recurrence.recur(x, size=1)  # type: ignore[attr-defined]
    (wanted_gradient,) = torch.autograd.grad(wanted.square().sum(), gate)
    for size in (7, 64):
        found, _ = recurrence.recur(x, size=size)  # type: ignore[attr-defined]
        assert torch.allclose(found, wanted, atol=1e-11)
        assert torch.allclose(torch.autograd.grad(found.square().sum(), gate)[0], wanted_gradient, atol=1e-10)
    weights = compose.weights(recurrence, x)
    assert torch.allclose(weights @ x.v.repeat_interleave(2, 1), wanted, atol=1e-11)


def test_strong_decay_does_not_cost_digits_in_float32() -> None:
    """Sums of log decays grow; what is computed from their differences stays near the steps."""
    sizes = Sizes(1, 2, 2, 64, 64, 4, 4, dtype=torch.float32)
    x = sizes.inputs()
    gate = torch.full((1, 2, 64, 1), -0.01)
    gate[:, :, ::3] = -90.0
    x = x.replace(per_key={"log_decay": gate})
    recurrence = card("gla").make()
    wanted, found = (recurrence.recur(x, size=size)[0] for size in (1, 64))  # type: ignore[attr-defined]
    assert torch.allclose(found, wanted, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name, gates, said",
    [
        ("gla", {}, r"gla needs the gate 'log_decay' per token: give per_key=\{'log_decay': \[2, 4, 7, 1 or 6\]\}"),
        ("gla", {"log_decay": (2, 4, 7, 5)}, r"gla's gate 'log_decay' is \[2, 4, 7, 1 or 6\] .* got \[2, 4, 7, 5\]"),
        ("gla", {"log_decay": (2, 4, 8, 6)}, r"got \[2, 4, 8, 6\]"),
        ("gla", {"log_decay": (2, 3, 7, 6)}, r"got \[2, 3, 7, 6\]"),
        ("delta", {"beta": (2, 4, 7, 1)}, r"delta's gate 'beta' is \[2, 4, 7\] .* got \[2, 4, 7, 1\]"),
        ("gated_delta", {"beta": (2, 4, 7), "log_decay": (2, 4, 7, 6)}, r"is \[2, 4, 7, 1\] .* got \[2, 4, 7, 6\]"),
        ("kda", {"beta": (2, 4, 7), "log_decay": (2, 4, 7, 1)}, r"is \[2, 4, 7, 6\] .* got \[2, 4, 7, 1\]"),
    ],
)
def test_a_gate_that_does_not_fit_is_one_sentence(name: str, gates: dict[str, tuple[int, ...]], said: str) -> None:
    x = Sizes(2, 4, 2, 7, 7, 6, 5).inputs()
    with pytest.raises(regard.errors.UserError, match=said):
        compose.attend(card(name).make(), x.replace(per_key={n: torch.zeros(shape) for n, shape in gates.items()}))


def test_what_is_no_mechanism_is_one_sentence() -> None:
    q = torch.randn(1, 2, 3, 4)
    for given, said in ((None, "got None"), (3, "got int"), (torch.ones(3), "got Tensor")):
        for call in (lambda g: regard.attention(q, q, q, g), lambda g: regard.weights(q, q, g)):
            with pytest.raises(regard.errors.UserError, match=f"a mechanism is a record .* {said}"):
                call(given)


def test_documents_end_where_their_ids_end() -> None:
    """Positions below 0 or beyond the ids belong to no document, in outputs and in what is seen."""
    q = torch.randn(1, 1, 6, 4, dtype=torch.float64)
    made = card("document").make(ids=torch.tensor([[0, 0, 1]]), causal=False)
    weights = regard.weights(q, q, made, query_positions=torch.arange(-2, 4), key_positions=torch.arange(-2, 4))
    seen = (weights[0, 0] > 0).int().tolist()
    assert seen == [[0] * 6, [0] * 6, [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0] * 6]
    with pytest.raises(ValueError, match=r"document ids are integers \[batch or 1, positions\], got torch.float32"):
        card("document").make(ids=torch.zeros(1, 3))


def test_a_state_is_given_back_and_taken_up() -> None:
    """regard.recur: a sequence in two pieces is the sequence, and gradients reach the first state."""
    sizes = Sizes(1, 2, 2, 9, 9, 4, 4)
    x = sizes.inputs()
    assert x.v is not None
    whole, last = regard.recur(x.q, x.k, x.v, "linear_recurrent")
    assert torch.allclose(whole, regard.attention(x.q, x.k, x.v, "linear_recurrent"))
    first, state = regard.recur(*(t[:, :, :4] for t in (x.q, x.k, x.v)), "linear_recurrent")
    state = state.detach().requires_grad_()
    rest, end = regard.recur(*(t[:, :, 4:] for t in (x.q, x.k, x.v)), "linear_recurrent", state)
    assert torch.allclose(torch.cat([first, rest], 2), whole) and torch.allclose(end, last)
    assert bool(torch.autograd.grad(rest.sum(), state)[0].abs().sum() > 0)
    with pytest.raises(regard.errors.UserError, match="scaled_dot carries no state from token to token"):
        regard.recur(x.q, x.k, x.v, "scaled_dot")
