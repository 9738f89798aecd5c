"""Every mechanism of the catalogue: against its paper, in strips, lowered, with padding, peaked, and its gradients."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from regard import core
from regard.core import ranges
from regard.evaluate import prepared
from regard.inputs import Inputs
from regard.lower import lower
from regard.mechanism import Mechanism
from regard.protocol import NotObservable
from regard.recurrent import Recurrence
from regard.run import compose, reference, strips
from regard.zoo import CATALOGUE, Sizes
from tests.matrix import ROWS, Row
from tests.zoo import interpreter

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def dense(attention: Any, x: Inputs) -> tuple[Tensor | None, Tensor | None]:
    """What the reference gives: a mechanism's parts in order, a composite's parts, a recurrence's single steps."""
    if isinstance(attention, Mechanism):
        return reference.attend(attention, x)
    try:
        weights = compose.weights(attention, x)
    except NotObservable:
        weights = None
    return compose.attend(attention, x, "reference"), weights


def close(found: Tensor | None, wanted: Tensor | None, tolerance: float, what: str) -> None:
    """Equal within a tolerance relative to the largest wanted number, or 1."""
    if wanted is None or found is None:
        return
    assert found.shape == wanted.shape, f"{what}: {list(found.shape)} is not {list(wanted.shape)}"
    if found.numel():
        error = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
        assert error <= tolerance, f"{what} is off by {error:.1e}, allowed {tolerance:.0e}"


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Every floating tensor in a record, dict or tuple in another type."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: cast(item, dtype) for key, item in value.items()}
    if isinstance(value, Inputs):
        fields = ("q", "k", "v", "per_query", "per_key")
        return value.replace(**{name: cast(getattr(value, name), dtype) for name in fields})
    return value


@every_row
def test_mechanism_equals_its_paper(row: Row) -> None:
    for sizes in row.sizes():
        x, arguments = row.example(sizes)
        out, weights = dense(row.card.make(**arguments), x)
        wanted_out, wanted_weights = row.oracle(x, **arguments)
        close(out, wanted_out, 1e-10, f"{row.name} output at {sizes}")
        close(weights, wanted_weights, 1e-10, f"{row.name} weights at {sizes}")
        if weights is not None and out is not None and x.v is not None and row.name in RECURRENT:
            v = x.v.repeat_interleave(x.q.shape[1] // x.v.shape[1], 1)
            v = v if x.key_valid is None else v * x.key_valid[:, None, :, None]
            close(weights @ v, out, 1e-5, f"{row.name} effective weights at {sizes}")


RECURRENT = {"linear_recurrent", "performer_recurrent", "retention", "gla", "delta", "gated_delta", "kda"}


@every_row
def test_mechanism_equals_its_paper_in_float32(row: Row) -> None:
    sizes = row.sizes()[0]
    x, arguments = row.example(sizes)
    x, arguments = cast(x, torch.float32), cast(arguments, torch.float32)
    out, weights = dense(row.card.make(**arguments), x)
    wanted_out, wanted_weights = row.oracle(x, **arguments)
    close(out, wanted_out, row.tolerance32, f"{row.name} output")
    close(weights, wanted_weights, row.tolerance32, f"{row.name} weights")
    assert out is None or out.dtype == torch.float32


@every_row
def test_half_precision_is_computed_in_float32(row: Row) -> None:
    """Inputs and learned tensors in bfloat16 give what their values give in float32, rounded once."""
    x, arguments = row.example(row.sizes()[0])
    half, given = cast(x, torch.bfloat16), cast(arguments, torch.bfloat16)
    wide, same = cast(half, torch.float32), cast(given, torch.float32)
    if isinstance(row.card.make(**given), Mechanism) and row.card.make(**given).mix is None:  # type: ignore[union-attr]
        close(
            compose.weights(row.card.make(**given), half), compose.weights(row.card.make(**same), wide), 1e-5, row.name
        )
        return
    for backend in ("auto", "reference"):
        out = compose.attend(row.card.make(**given), half, backend)
        assert out.dtype == torch.bfloat16
        close(out.float(), compose.attend(row.card.make(**same), wide, backend), 1e-2, f"{row.name} on {backend}")


@every_row
@pytest.mark.parametrize("peak", [(0.0, 1.0), (50.0, 1.0), (7.0, 7.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mechanism_equals_its_paper_for_flat_and_peaked_scores(
    row: Row, peak: tuple[float, float], dtype: torch.dtype
) -> None:
    """Queries and keys so many times as large, for scores of 50 and more; in float32 those are rounded to 1e-5, which
    an exponential makes relative."""
    (of_query, of_key), tolerance = peak, 1e-9 if dtype == torch.float64 else 3e-4
    x, arguments = row.example(row.sizes()[0], of_query)
    x, arguments = cast(x.replace(k=x.k * of_key), dtype), cast(arguments, dtype)
    out, weights = dense(row.card.make(**arguments), x)
    wanted_out, wanted_weights = row.oracle(x, **arguments)
    close(out, wanted_out, tolerance, f"{row.name} output")
    close(weights, wanted_weights, tolerance, f"{row.name} weights")


@every_row
@pytest.mark.parametrize("strip_bytes", [1, 700, 3000])
def test_strips_equal_the_reference(row: Row, strip_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes in row.sizes():
        x, arguments = row.example(sizes)
        attention = row.card.make(**arguments)
        wanted, weights = dense(attention, x)
        if isinstance(attention, Mechanism):
            found = torch.zeros_like(weights)

            def absorb(rows: slice, keys: slice, cells: Tensor, _: Tensor | None, into: Tensor = found) -> None:
                into[:, :, rows, keys] += cells

            has_mix = attention.mix is not None
            out = strips.attend(attention, x, output=has_mix, absorb=absorb, strip_bytes=strip_bytes)
            close(found, weights, 1e-12, f"{row.name} weights")
            close(strips.rectangle(attention, x, slice(1, 4), slice(0, 3)), weights[:, :, 1:4, :3], 1e-12, row.name)
        elif isinstance(attention, Recurrence):
            out = attention.recur(x, size=1 + strip_bytes % 7)[0]
        else:
            monkeypatch.setitem(strips.attend.__kwdefaults__, "strip_bytes", strip_bytes)
            out = compose.attend(attention, x, "strips")
        close(out, wanted, 1e-10, f"{row.name} output")


@every_row
def test_padding_and_rows_that_see_nothing(row: Row) -> None:
    """NaN in invalid slots never leaks; a row with no key is zero, in output and weights."""
    if not row.padding:
        pytest.skip(f"{row.name} does not read the tokens' keys")
    sizes = row.sizes()[0]
    x, arguments = row.example(sizes)
    valid = torch.ones(sizes.batch, x.k.shape[2], dtype=torch.bool)
    valid[0, [0, 2]] = False
    valid[1, 4:] = False
    x = x.replace(key_valid=valid)
    if row.allowed:
        nothing = torch.ones(sizes.batch, 1, sizes.queries, x.k.shape[2], dtype=torch.bool)
        nothing[:, :, 3] = False
        x = x.replace(allowed=ranges.from_dense(nothing))
    attention = row.card.make(**arguments)
    wanted_out, wanted_weights = row.oracle(x, **arguments)
    hole = ~valid[:, None, :, None]
    poisoned = x.replace(
        k=x.k.masked_fill(hole, torch.nan),
        v=None if x.v is None else x.v.masked_fill(hole, torch.nan),
        per_key={
            name: e.masked_fill(hole if e.ndim == 4 else hole[..., 0], torch.nan) for name, e in x.per_key.items()
        },
    )
    out, weights = dense(attention, poisoned)
    close(out, wanted_out, 1e-10, f"{row.name} output")
    close(weights, wanted_weights, 1e-10, f"{row.name} weights")
    if row.allowed and out is not None:
        assert bool((out[:, :, 3] == 0).all()), f"{row.name}: a row that sees nothing is not zero"
    if out is not None:
        close(compose.attend(attention, poisoned, "strips"), wanted_out, 1e-10, f"{row.name} in strips")


@every_row
def test_gradients_equal_finite_differences(row: Row) -> None:
    """Through strips and their recomputation, for queries, keys, values, gates and every learned tensor."""
    if not row.smooth:
        pytest.skip(f"{row.name} passes a gradient that is not its own, by design; tested apart")
    sizes = Sizes(1, 2, 2, 4, 4, 4, 2, seed=3)
    x, arguments = row.example(sizes)
    names = [n for n, a in arguments.items() if isinstance(a, Tensor) and a.is_floating_point()]
    gates = [*((True, n) for n in x.per_query), *((False, n) for n in x.per_key)]
    leaves = [x.q, x.k, *([] if x.v is None else [x.v]), *(arguments[n] for n in names)]
    leaves += [(x.per_query if query else x.per_key)[n] for query, n in gates]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]

    def f(*given: Tensor) -> Tensor:
        rest = list(given)
        y = x.replace(q=rest.pop(0), k=rest.pop(0), **({} if x.v is None else {"v": rest.pop(0)}))
        made = row.card.make(**{**arguments, **{n: rest.pop(0) for n in names}})
        extras = {n: rest.pop(0) for _, n in gates}
        y = y.replace(
            per_query={n: extras[n] for query, n in gates if query},
            per_key={n: extras[n] for query, n in gates if not query},
        )
        if isinstance(made, Mechanism) and made.mix is None:
            return reference.attend(made, y)[1]
        return compose.attend(made, y)

    assert torch.autograd.gradcheck(f, leaves, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


@every_row
def test_core_form_means_the_same(row: Row) -> None:
    for sizes in row.sizes():
        x, arguments = row.example(sizes)
        attention = row.card.make(**arguments)
        if not isinstance(attention, Mechanism):
            return
        ready = prepared(attention, x)
        plan = lower(attention, ready)
        if not row.lowers:
            assert isinstance(plan, core.Refusal), f"{row.name} lowers, and its row says it does not"
            assert plan.part and plan.reason
            return
        assert isinstance(plan, core.Plan), f"{row.name} is refused: {plan}"
        out, weights = reference.attend(attention, x)
        core_out, core_weights = interpreter.run(plan)
        close(core_weights, weights, 1e-10, f"{row.name} weights")
        close(core_out, out, 1e-10, f"{row.name} output")


def test_every_card_has_a_row_or_a_reason() -> None:
    enrolled = {row.name for row in ROWS}
    for card in CATALOGUE.values():
        assert (card.name in enrolled) != (card.refused is not None), card.name
        assert (card.factory is None) == (card.refused is not None), card.name
        for text in (card.line, card.equation, card.source, card.time, card.memory, card.attends):
            assert text, card.name


@every_row
def test_example_fits_whatever_the_explainer_shows(row: Row) -> None:
    """A sentence of any length, one head or several."""
    for sizes in (
        Sizes(),
        Sizes(heads=1, groups=1, queries=11, keys=11, key_width=8, value_width=8, dtype=torch.float32),
    ):
        x = row.card.arrange(sizes.inputs(), sizes)
        out, weights = dense(row.card.made(sizes), x)
        for found in (out, weights):
            assert found is None or bool(found.isfinite().all())


class LargestTensor(TorchDispatchMode):
    """The most numbers in any tensor that an operation makes while this is on."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, list | tuple) else (result,):
            if isinstance(made, Tensor) and made.untyped_storage().nbytes() >= made.numel():
                self.numbers = max(self.numbers, made.numel())
        return result


@every_row
def test_nothing_grows_with_the_square_of_the_tokens(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the tokens, at most twice (and a little) the largest tensor: n × n never exists."""
    if not row.linear:
        pytest.skip(f"{row.name}'s buckets grow with the tokens here")
    largest = []
    monkeypatch.setattr(ranges, "STRIP_BYTES", 1 << 16)
    monkeypatch.setitem(strips.attend.__kwdefaults__, "strip_bytes", 1 << 16)
    for length in row.lengths:
        sizes = Sizes(1, 1, 1, length, length, 4, 4, dtype=torch.float32)
        x, arguments = row.example(sizes)
        attention = row.card.make(**arguments)
        with LargestTensor() as mode, torch.no_grad():
            if isinstance(attention, Mechanism):
                strips.attend(attention, x, output=attention.mix is not None, absorb=ignored)
            else:
                compose.attend(attention, x, "strips")
        largest.append(mode.numbers)
    assert largest[1] <= 2.2 * largest[0], f"{row.name}: {largest}"


def ignored(*_: Any) -> None:
    """A watcher that keeps nothing."""


@every_row
def test_card_names_its_mechanism_and_every_tensor_that_it_takes(row: Row) -> None:
    arguments = row.card.example(Sizes())
    assert {name for name, value in arguments.items() if isinstance(value, Tensor)} <= set(row.card.parameters)
    made = row.card.make(**arguments)
    assert is_dataclass(made) and replace(made).name
    if row.name != "padding":
        assert made.name == row.name
