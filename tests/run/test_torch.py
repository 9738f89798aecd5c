"""Attention inside torch: changes in place, devices, types, tracing: torch's own behaviour, or one sentence."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

import regard
from regard.errors import UserError
from regard.parts.defaults import mechanism_with
from regard.parts.normalisers import Softmax
from regard.parts.scores import Dot, KeyBias, Slope, Table
from regard.run import native

FAST = ["native", "sdpa", "strips"]
ALL = [*FAST, "reference"]
needs_native = pytest.mark.skipif(not native.available(), reason=str(native.why_unavailable()))


@pytest.fixture(autouse=True)
def _needs_its_backend(request: pytest.FixtureRequest) -> None:
    values = getattr(request.node, "callspec", None)
    if values is not None and values.params.get("backend") == "native" and not native.available():
        pytest.skip(str(native.why_unavailable()))


def qkv(tokens: int = 9, heads: int = 4, groups: int = 2, batch: int = 2, **more: Any) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(batch, n, tokens, 8, **more) for n in (heads, groups, groups))


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention in float64, written out."""
    q, k, v = (t.double() for t in (q, k, v))
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scores = q @ k.mT * q.shape[-1] ** -0.5
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ALL)
def test_a_gradient_after_a_change_in_place_is_refused(backend: str) -> None:
    w = torch.randn(1, 2, 6, 4, requires_grad=True)
    x = w * 1.0
    out = regard.attention(x, x, x, "causal", backend=backend)
    x += out.detach()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (out.square().sum() + x.sum()).backward()


@pytest.mark.parametrize("backend", ["native", "strips"])
@pytest.mark.parametrize("part", ["bias", "slope", "table", "sink"])
def test_so_is_one_after_a_change_of_a_table(backend: str, part: str) -> None:
    q, k, v = (t.requires_grad_() for t in qkv())
    tensors = {
        "bias": torch.zeros(1, 1, 9),
        "slope": torch.ones(4),
        "table": torch.zeros(1, 1, 9, 9),
        "sink": torch.zeros(4),
    }
    mechanism = mechanism_with(
        "all", "", score=(Dot(), KeyBias(tensors["bias"]), Slope(tensors["slope"]), Table(tensors["table"])),
        normaliser=Softmax(tensors["sink"]),
    )  # fmt: skip
    out = regard.attention(q, k, v, mechanism, backend=backend)
    tensors[part] += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@needs_native
def test_an_output_changed_in_place_still_has_its_gradient_checked() -> None:
    q, k, v = (t.requires_grad_() for t in qkv())
    out = regard.attention(q, k, v, "causal", backend="native")
    out += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("backend", ["native", "strips"])
def test_a_gradient_of_a_gradient_is_refused_in_a_sentence(backend: str) -> None:
    q, k, v = (t.requires_grad_() for t in qkv())
    out = regard.attention(q, k, v, "causal & window(4)", backend=backend)
    (slope,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    wanted = torch.autograd.grad(regard.attention(q, k, v, "causal & window(4)", backend="reference").sum(), q)[0]
    assert torch.allclose(slope, wanted, atol=1e-5)
    for ask in (
        lambda: slope.square().sum().backward(retain_graph=True),
        lambda: torch.autograd.grad(slope.square().sum(), [q, k, v], retain_graph=True, allow_unused=True),
    ):
        with pytest.raises(UserError, match=f"{backend} has first derivatives only.*use backend='reference'"):
            ask()


def test_the_reference_has_second_derivatives() -> None:
    q, k, v = (t.double().requires_grad_() for t in qkv(5, 2, 1, 1))
    assert torch.autograd.gradgradcheck(lambda *t: regard.attention(*t, "causal", backend="reference"), (q, k, v))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_forward_mode_is_refused_in_a_sentence() -> None:
    q, k, v = qkv()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(q, torch.ones_like(q))
        with pytest.raises(UserError, match=r"q carries a forward-mode tangent.*use reverse mode"):
            regard.attention(dual, k, v, "causal")


@pytest.mark.parametrize("how", ["vmap", "grad"])
def test_transforms_of_torch_func_are_refused_in_a_sentence(how: str) -> None:
    q, k, v = qkv()
    with pytest.raises(UserError, match=r"q is traced by torch\.func"):
        if how == "vmap":
            torch.func.vmap(lambda one: regard.attention(one[None], k[:1], v[:1], "causal"))(q)
        else:
            torch.func.grad(lambda one: regard.attention(one, k, v, "causal").sum())(q)


@settings(max_examples=30, deadline=None)
@given(
    backend=st.sampled_from(FAST),
    tokens=st.sampled_from([0, 1, 5, 70]),
    batch=st.sampled_from([0, 1, 2]),
    groups=st.sampled_from([1, 2, 4]),
    kind=st.sampled_from(["plain", "view", "negated", "overlapping", "expanded", "transposed"]),
)
def test_gradients_equal_float64_whatever_the_tensors_are(
    backend: str, tokens: int, batch: int, groups: int, kind: str
) -> None:
    if backend == "native" and not native.available():
        return
    torch.manual_seed(1)
    leaf = torch.randn(batch, 4, tokens + 3, 10, requires_grad=True)
    other = torch.randn(batch, groups, tokens, 8, requires_grad=True)

    def made() -> tuple[Tensor, Tensor, Tensor]:
        q = leaf[:, :, :tokens, :8]
        if kind == "view":
            q = leaf[:, :, 3:, 2:]
        if kind == "negated":
            q = torch._neg_view(leaf)[:, :, :tokens, :8]
        if kind == "overlapping":
            q = leaf[:, :1, :tokens, :8].expand(-1, 4, -1, -1)
        if kind == "transposed":
            q = leaf[..., :tokens, :8].transpose(1, 2).contiguous().transpose(1, 2)
        k = other.expand(batch, groups, tokens, 8) if kind == "expanded" else other
        return q, k, k * 0.5

    out = regard.attention(*made(), "causal", backend=backend)
    wanted = dense(*made())
    assert out.shape == wanted.shape and torch.allclose(out.double(), wanted, atol=1e-5)
    seed = torch.randn(wanted.shape)
    found = torch.autograd.grad((out * seed).sum(), (leaf, other))
    exact = torch.autograd.grad((wanted * seed).sum(), (leaf, other))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, exact))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(backend: str, reentrant: bool) -> None:
    q, k, v = (t.requires_grad_() for t in qkv(33))
    plain = torch.autograd.grad(regard.attention(q, k, v, "causal", backend=backend).sum(), (q, k, v))
    run = torch.utils.checkpoint.checkpoint
    out = run(lambda *t: regard.attention(*t, "causal", backend=backend), q, k, v, use_reentrant=reentrant)
    out.sum().backward()
    assert all(torch.allclose(a, b.grad) for a, b in zip(plain, (q, k, v)))


@needs_native
def test_threads_share_a_plan_that_was_checked_once() -> None:
    q, k, v = qkv(50)
    wanted, wrong = regard.attention(q, k, v, "causal"), []

    def run(factor: float) -> None:
        for _ in range(20):
            out = regard.attention(q, k, v * factor, "causal")
            if not torch.allclose(out, wanted * factor, atol=1e-5):
                wrong.append(factor)

    threads = [threading.Thread(target=run, args=(float(n),)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- devices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("text", ["causal", "causal & window(3) | sinks(1)", "alibi & causal", "full"])
def test_allocation_follows_the_inputs_not_the_default_device(backend: str, text: str) -> None:
    q, k, v = (t.requires_grad_() for t in qkv(groups=4))
    if backend == "sdpa" and text not in ("causal", "full"):
        backend = "auto"
    wanted = regard.attention(q, k, v, text, backend=backend)
    exact = torch.autograd.grad(wanted.sum(), (q, k, v))
    seen = regard.weights(q, k, text)
    with torch.device("meta"):
        out = regard.attention(q, k, v, text, backend=backend)
        found = torch.autograd.grad(out.sum(), (q, k, v))
        assert torch.equal(regard.weights(q, k, text), seen)
    assert torch.equal(out, wanted) and all(torch.equal(a, b) for a, b in zip(found, exact))


def test_tensors_without_storage_have_shapes_and_no_more() -> None:
    out = regard.attention(*(t.to("meta") for t in qkv()), "causal")
    assert out.device.type == "meta" and out.shape == (2, 4, 9, 8)
    with torch._subclasses.FakeTensorMode():
        out = regard.attention(*qkv(), "causal")
        assert out.shape == (2, 4, 9, 8) and type(out).__name__ == "FakeTensor"


# ---- extremes and types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "strips", "reference"])
def test_a_row_of_the_lowest_number_is_uniform_as_in_torch(backend: str) -> None:
    q, k, v = qkv(groups=4)
    mask = torch.zeros(9, 9)
    mask[3] = torch.finfo(torch.float32).min
    mask[4, 2:] = -torch.inf
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    q.requires_grad_()
    out = regard.attention(q, k, v, mask=mask, backend=backend)
    assert torch.allclose(out, wanted, atol=1e-5)
    assert torch.autograd.grad(out.sum(), q)[0].isfinite().all()


@pytest.mark.parametrize("backend", ALL)
def test_integers_and_complex_numbers_are_refused(backend: str) -> None:
    q, k, v = qkv()
    with pytest.raises(UserError, match=r"k is integer \(int64\).*use k.float\(\)"):
        regard.attention(q, k.long(), v, "causal", backend=backend)
    with pytest.raises(UserError, match=r"q is complex \(complex64\)"):
        regard.attention(torch.complex(q, q), k, v, "causal", backend=backend)


@pytest.mark.parametrize("backend", ALL)
def test_lazily_negated_tensors_are_read_with_their_sign(backend: str) -> None:
    q, k, v = qkv(groups=4)
    wanted = regard.attention(-q, -k, -v, "causal", backend=backend)
    lazily = (torch._neg_view(t) for t in (q, k, v))
    assert torch.allclose(regard.attention(*lazily, "causal", backend=backend), wanted, atol=1e-6)


@pytest.mark.parametrize("backend", ALL)
def test_autocast_takes_the_type_that_torch_takes(backend: str) -> None:
    q, k, v = qkv(groups=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out = regard.attention(q, k, v, "causal", backend=backend)
    assert out.dtype == wanted.dtype == torch.bfloat16 and torch.allclose(out, wanted, atol=0.02)


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda q, k, v: regard.attention(q.numpy(), k, v), "q must be a torch tensor, got ndarray; use torch.as_t"),
        (lambda q, k, v: regard.attention(q, k, v, None), "a mechanism is a record"),
        (lambda q, k, v: regard.attention(q, k, v, "nosuch"), "nosuch"),
        (lambda q, k, v: regard.attention(q[0], k, v), r"q must be \[batch, heads, tokens, width\], got 3 dim"),
        (lambda q, k, v: regard.weights(q, k, rows=9), "rows=9 asks for one of 9; give -9 to 8"),
        (lambda q, k, v: regard.scores(q, k, terms=2), "has 1 score terms; terms=2 asks for others"),
        (lambda q, k, v: regard.attention(q, k, v, mask=torch.ones(9)), "mask must be"),
        (lambda q, k, v: regard.attention(q, k, v, mask=torch.ones(9, 9).int()), "mask is bool"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(call: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        call(*qkv())


# ---- tracing --------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A block of Llama's shape: RMS norms, rotated queries and keys, grouped heads, a gated hidden layer."""

    def __init__(self, width: int = 32, heads: int = 4, groups: int = 2) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)
        self.first, self.second = nn.RMSNorm(width), nn.RMSNorm(width)

    def rotated(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[2])[:, None] * 0.1 ** torch.arange(self.size // 2)
        left, right = x.chunk(2, -1)
        return torch.cat([left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], -1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        q, k, v = (
            layer(y).unflatten(-1, (heads, self.size)).transpose(1, 2)
            for layer, heads in ((self.q, self.heads), (self.k, self.groups), (self.v, self.groups))
        )
        out = regard.attention(self.rotated(q), self.rotated(k), v, "causal & window(64) | sinks(2)")
        x = x + self.o(out.transpose(1, 2).flatten(2))
        y = self.second(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


@pytest.fixture
def fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_a_block_compiles_into_one_graph_with_its_gradient() -> None:
    torch.manual_seed(0)
    block, x = Block(), torch.randn(2, 12, 32)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
    for tokens in (12, 7, 9):
        here = x[:, :tokens].clone().requires_grad_()
        out, wanted = compiled(here), block(here)
        assert torch.allclose(out, wanted, atol=1e-5)
        (found,), (exact,) = (torch.autograd.grad(y.square().sum(), here) for y in (out, wanted))
        assert torch.allclose(found, exact, atol=1e-4)


def test_a_block_is_exported() -> None:
    block, x = Block(), torch.randn(2, 12, 32)
    tokens = torch.export.Dim("tokens", min=2, max=64)
    program = torch.export.export(block, (x,), dynamic_shapes=({1: tokens},))
    assert any("regard.attend" in str(node.target) for node in program.graph.nodes)
    for other in (x, torch.randn(2, 30, 32)):
        assert torch.allclose(program.module()(other), block(other), atol=1e-5)


def test_the_operators_keep_torchs_rules() -> None:
    from regard.run import operator

    q, k, v = (t.requires_grad_() for t in qkv())
    tensors: list[Tensor] = []
    call = repr(operator.written(("causal", {"q": q, "k": k, "v": v}), tensors))
    torch.library.opcheck(torch.ops.regard.attend, (tensors, call, "auto"))
    grad = torch.randn(2, 4, 9, 8)
    leaves = [t.detach() for t in tensors]
    torch.library.opcheck(torch.ops.regard.attend_backward, (grad, leaves, [0, 1, 2], call, "auto"))


@pytest.mark.usefixtures("fresh_compiler")
def test_a_mechanism_that_holds_tensors_is_compiled_with_their_gradients() -> None:
    q, k, v = qkv()
    sink = torch.zeros(4, requires_grad=True)

    def run(q: Tensor, sink: Tensor) -> Tensor:
        return regard.attention(q, k, v, mechanism_with("sink", "", normaliser=Softmax(sink)))

    out = torch.compile(run, backend="aot_eager")(q, sink)
    assert torch.allclose(out, run(q, sink), atol=1e-6)
    found, exact = (torch.autograd.grad(y.square().sum(), sink)[0] for y in (out, run(q, sink)))
    assert torch.allclose(found, exact, atol=1e-5)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["multi-head", "encoder layer"])
def test_modules_compile_into_one_graph(name: str) -> None:
    torch.manual_seed(0)
    multi_head, layer = regard.nn.MultiHeadAttention(16, 4, batch_first=True), None
    if name == "encoder layer":
        layer = regard.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    x = torch.randn(2, 9, 16)

    def run(x: Tensor) -> Tensor:
        return multi_head(x, x, x, need_weights=False)[0] if layer is None else layer(x)

    out = torch.compile(run, backend="aot_eager", fullgraph=True)(x)
    assert torch.allclose(out, run(x), atol=1e-5)
    parameters = list((layer or multi_head).parameters())
    found, exact = (torch.autograd.grad(y.square().sum(), parameters) for y in (out, run(x)))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, exact))


# ---- masks, scores, single rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "strips", "reference"])
def test_a_dense_mask_is_one_more_mask(backend: str) -> None:
    q, k, v = qkv(17, groups=4)
    mask = torch.rand(2, 1, 17, 17) < 0.5
    both = mask & torch.ones(17, 17, dtype=torch.bool).tril()
    both[:, :, 0] = False
    mask[:, :, 0] = False
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=both).nan_to_num(0.0)
    out = regard.attention(q, k, v, "causal", mask=mask, backend=backend)
    assert torch.allclose(out, wanted, atol=1e-5) and (out[:, :, 0] == 0).all()
    weights = regard.weights(q, k, "causal", rows=3, keys=-1, mask=mask)
    assert weights.shape == (2, 4, 1, 1)
    assert torch.allclose(regard.weights(q, k, "causal", mask=mask) @ v, wanted, atol=1e-5)


def test_a_mask_of_many_intervals_is_still_exact() -> None:
    q, k, v = qkv(300, groups=4)
    mask = torch.arange(300)[None] % 2 == torch.arange(300)[:, None] % 2
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.allclose(regard.attention(q, k, v, mask=mask), wanted, atol=1e-5)


def test_scores_before_and_after_cap_and_mask() -> None:
    q, k, _ = qkv(groups=4)
    raw = q @ k.mT * 8**-0.5
    assert torch.allclose(regard.scores(q, k, "causal & softcap(2)", terms=1, hide=False), raw, atol=1e-6)
    capped = regard.scores(q, k, "causal & softcap(2)")
    assert torch.allclose(capped.softmax(-1), regard.weights(q, k, "causal & softcap(2)"), atol=1e-6)
    assert capped[0, 0, 0, 1] == -torch.inf
    one = regard.scores(q, k, "causal & softcap(2)", rows=4, keys=slice(0, 3))
    assert torch.allclose(one, capped[:, :, 4:5, :3])


def test_numpy_is_not_guessed() -> None:
    with pytest.raises(UserError, match="must be a torch tensor"):
        regard.weights(np.zeros((1, 1, 2, 2)), torch.zeros(1, 1, 2, 2))  # type: ignore[arg-type]
