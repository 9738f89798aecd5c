"""Normalisers: properties of the papers, gradients against a library where there is one, ties, chance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regard.inputs import Where, inputs
from regard.parts.adjusts import Dropout
from regard.parts.defaults import mechanism_with
from regard.parts.noise import uniform
from regard.parts.normalisers import Gumbel, Hard, Relu, Sigmoid, Softmax, TopK
from regard.parts.scores import Dot
from regard.parts.sparse import Entmax, Normmax
from regard.run import reference, strips
from regard.zoo import CATALOGUE


def where(scores: Tensor, key: Tensor | None = None) -> Where:
    b, h, tq, tk = scores.shape
    at = torch.arange(tk)[None, None, None] if key is None else key
    return Where(
        torch.arange(b)[:, None, None, None],
        torch.arange(h)[None, :, None, None],
        torch.arange(tq)[:, None][None, None],
        at,
    )


def scores(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [1.05, 1.3, 1.5, 2.0, 2.5, 4.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("keys", [40, 700])
def test_entmax_rows_satisfy_their_own_equation(alpha: float, scale: float, keys: int) -> None:
    """Σ a = 1, and (a^(α-1) - (α-1) s) is one number, τ, over the support, above it elsewhere.

    Rows as different as a peak and a plateau stand side by side: the search leaves each when it has arrived.
    """
    s = scores(1, 2, 3, keys, scale=scale)
    s[0, 0, 1] *= 1e-3
    a = Entmax(alpha)(s, None, where(s))
    assert torch.allclose(a.sum(-1), torch.ones(1, 2, 3, dtype=torch.float64), atol=1e-11)
    gap = (alpha - 1) * s - a ** (alpha - 1)
    for row, seen in zip(gap.flatten(0, 2), (a > 0).flatten(0, 2), strict=True):
        threshold = row[seen].mean()
        assert torch.allclose(row[seen], threshold.expand(int(seen.sum())), atol=1e-8)
        assert bool((row[~seen] <= threshold + 1e-8).all())


@pytest.mark.parametrize(("alpha", "name"), [(1.5, "entmax15"), (2.0, "sparsemax"), (1.7, "entmax_bisect")])
def test_entmax_and_its_gradient_equal_the_entmax_package(alpha: float, name: str) -> None:
    package = pytest.importorskip("entmax")
    s = scores(1, 2, 5, 30, scale=2.0).requires_grad_()
    a = Entmax(alpha)(s, None, where(s))
    theirs = getattr(package, name)(s, alpha, dim=-1) if name == "entmax_bisect" else getattr(package, name)(s, dim=-1)
    assert torch.allclose(a, theirs, atol=1e-7)
    upstream = torch.randn_like(a)
    (mine,) = torch.autograd.grad(a, s, upstream, retain_graph=True)
    (other,) = torch.autograd.grad(theirs, s, upstream)
    assert torch.allclose(mine, other, atol=1e-6)


def test_gradient_of_a_learned_alpha_equals_the_entmax_package() -> None:
    package = pytest.importorskip("entmax")
    s = scores(1, 2, 5, 30, scale=2.0)
    alpha = torch.tensor([1.3, 1.8], dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(s)
    (mine,) = torch.autograd.grad((Entmax(alpha)(s, None, where(s)) * upstream).sum(), alpha)
    theirs = package.entmax_bisect(s, alpha.view(1, 2, 1, 1).expand(1, 2, 5, 1), dim=-1, n_iter=80)
    (other,) = torch.autograd.grad((theirs * upstream).sum(), alpha)
    assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's forward mode uses it
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0, 2.5, 5.0])
@pytest.mark.parametrize("kind", [Entmax, Normmax])
def test_sparse_rows_have_derivatives_to_the_second_order_and_forwards(kind: type, alpha: float) -> None:
    """A penalty on a gradient counts; a tangent is carried."""
    s = scores(1, 2, 3, 6).requires_grad_()
    learned = torch.tensor([alpha, alpha + 0.2], dtype=torch.float64, requires_grad=True)

    def rows(s: Tensor, alpha: Tensor) -> Tensor:
        return kind(alpha)(s, None, where(s))

    assert torch.autograd.gradgradcheck(rows, (s, learned))
    assert torch.autograd.gradcheck(rows, (s, learned), check_forward_ad=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [3.0, 5.0, 8.0, 30.0])
@pytest.mark.parametrize("kind", [Entmax, Normmax])
def test_no_mass_is_lost_at_large_alpha(kind: type, alpha: float, dtype: torch.dtype) -> None:
    """Equal keys share alike however near to them the threshold lies; other rows sum to 1, with a finite gradient."""
    equal = torch.zeros(1, 1, 1, 64, dtype=dtype)
    assert torch.allclose(kind(alpha)(equal, None, where(equal)), torch.full_like(equal, 1 / 64), rtol=1e-5)
    s = scores(1, 2, 20, 300, scale=3.0).to(dtype).requires_grad_()
    a = kind(alpha)(s, None, where(s))
    assert a.dtype == dtype and torch.allclose(a.sum(-1), torch.ones(1, 2, 20, dtype=dtype), atol=1e-5)
    assert bool(torch.autograd.grad(a.square().sum(), s)[0].isfinite().all())


@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0, 3.0])
def test_normmax_equals_the_entmax_package(alpha: float) -> None:
    package = pytest.importorskip("entmax")
    s = scores(1, 2, 5, 30, scale=2.0)
    theirs = package.normmax_bisect(s, alpha, dim=-1, n_iter=100)
    assert torch.allclose(Normmax(alpha)(s, None, where(s)), theirs, atol=1e-9)


def test_entmax_tends_to_softmax_and_hardmax() -> None:
    s = scores(1, 1, 4, 9)
    assert torch.allclose(Entmax(1.0001)(s, None, where(s)), s.softmax(-1), atol=1e-3)
    assert torch.allclose(Entmax(2.0)(s * 1e3, None, where(s)), Hard()(s, None, where(s)))


@pytest.mark.parametrize(
    "normaliser",
    [Softmax(), Softmax(0.3), Sigmoid(), Relu(), Entmax(), Entmax(2.0), Entmax(3.0), Normmax(), TopK(3), Hard()],
)
def test_rows_without_keys_are_zero_and_excluded_cells_too(normaliser: object) -> None:
    s = scores(1, 2, 4, 6)
    allowed = torch.rand(1, 2, 4, 6) > 0.4
    allowed[:, :, 2] = False
    a = normaliser(s, allowed, where(s))  # type: ignore[operator]
    assert bool((a[:, :, 2] == 0).all()) and bool((a.masked_select(~allowed) == 0).all())
    assert not bool(a.isnan().any())
    nothing = s[..., :0]
    assert normaliser(nothing, None, where(nothing)).shape == (1, 2, 4, 0)  # type: ignore[operator]


def test_ties_go_to_the_lowest_position_in_any_memory_order() -> None:
    s = torch.zeros(1, 1, 2, 6)
    s[..., 4] = 1.0
    kept = TopK(3)(s, None, where(s)) > 0
    assert kept[0, 0, 0].tolist() == [True, True, False, False, True, False]
    shuffled = torch.tensor([3, 5, 0, 1, 4, 2])[None, None, None]
    kept = TopK(3)(s, None, where(s, shuffled)) > 0
    assert kept[0, 0, 0].tolist() == [False, False, True, True, True, False]
    assert Hard()(s * 0, None, where(s, shuffled))[0, 0, 0].argmax() == 2


def test_noise_is_a_function_of_where_and_looks_uniform() -> None:
    s = scores(2, 3, 50, 60)
    u = uniform(7, where(s), torch.float64)
    assert u.shape == s.shape and torch.equal(u, uniform(7, where(s), torch.float64))
    at = where(s)
    part = Where(at.batch, at.head, at.query[:, :, 10:20], at.key[..., 5:9])
    assert torch.equal(uniform(7, part, torch.float64), u[:, :, 10:20, 5:9])
    assert abs(float(u.mean()) - 0.5) < 0.01 and abs(float(u.var()) - 1 / 12) < 0.005
    counts = torch.histc(u, 20, 0, 1)
    assert float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) < 50  # chi-square, 19 degrees of freedom
    for axis in (0, 1, 2, 3):
        a, b = u.transpose(0, axis)[0], u.transpose(0, axis)[1]
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.1
    assert not torch.equal(u, uniform(8, where(s), torch.float64))
    assert not torch.equal(u, uniform(7, Where(at.batch, at.head, at.query, at.key, layer=0), torch.float64))


def test_gumbel_samples_follow_the_softmax() -> None:
    s = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64).expand(1, 1, 20_000, 4)
    drawn = Gumbel(seed=3)(s, None, where(s)).mean(2)[0, 0]
    assert torch.allclose(drawn, s[0, 0, 0].softmax(-1), atol=0.01)


def test_gumbel_passes_the_gradient_of_its_soft_form() -> None:
    s = scores(1, 2, 5, 7).requires_grad_()
    at, upstream = where(s), torch.randn(1, 2, 5, 7, dtype=torch.float64)
    hard = Gumbel(0.7, seed=2)(s, None, at)
    assert torch.equal(hard.detach().round(), hard.detach()) and bool((hard.detach().sum(-1) == 1).all())
    noise = -(-uniform(2, at, torch.float64).log()).log()
    (mine,) = torch.autograd.grad(hard, s, upstream)
    (wanted,) = torch.autograd.grad(((s + noise) / 0.7).softmax(-1), s, upstream)
    assert torch.allclose(mine, wanted, atol=1e-12)


def test_dropout_is_right_on_average_and_not_watched() -> None:
    q = torch.zeros(1, 4, 60, 8, dtype=torch.float64)
    x = inputs(q, q, torch.ones(1, 4, 60, 1, dtype=torch.float64))
    plain = mechanism_with("plain", "test")
    dropped = plain.replace(adjust=(Dropout(0.3, seed=5),))
    out, weights = reference.attend(dropped, x)
    assert torch.equal(weights, reference.attend(plain, x)[1])
    assert float(out.mean()) == pytest.approx(1.0, abs=0.02) and float(out.std()) > 0.05
    assert torch.allclose(strips.attend(dropped, x, strip_bytes=5000), out)


def test_normalisers_refuse_what_means_nothing() -> None:
    for make, said in (
        (lambda: Entmax(1.0), "alpha above 1"),
        (lambda: Entmax(torch.tensor([1.5, 0.9])), "alpha above 1"),
        (lambda: TopK(0), "at least 1 key"),
        (lambda: Gumbel(0.0), "a temperature is above 0"),
        (lambda: Dropout(1.0), "at least 0 and below 1"),
        (lambda: CATALOGUE["temperature"].make(value=0.0), "a temperature is above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_a_term_cannot_begin_a_mechanism() -> None:
    from regard.parts.scores import Softcap

    x = inputs(torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4))
    with pytest.raises(ValueError, match="cannot come first"):
        reference.attend(mechanism_with("wrong", "test", score=(Softcap(3.0), Dot())), x)
