"""Known oracles: whole modules of torch and transformers, on their own weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import regard
from regard.inputs import inputs
from regard.parts import masks
from regard.parts.features import log_features
from regard.run import compose, reference
from regard.zoo import card


def heads(x: Tensor, count: int) -> Tensor:
    """[B,T,H·D] -> [B,H,T,D]."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """[B,H,T,D] -> [B,T,H·D]."""
    return x.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize("cross", [False, True])
def test_multi_head_equals_torch(mask: str, cross: bool) -> None:
    if cross and mask == "causal":
        return
    module = torch.nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    memory = torch.randn(2, 7, 12, dtype=torch.float64) if cross else x
    hidden = torch.ones(5, 5).triu(1).bool() if mask == "causal" else None
    theirs, weights = module(x, memory, memory, attn_mask=hidden, average_attn_weights=False)
    w_q, w_k, w_v = module.in_proj_weight.chunk(3)
    b_q, b_k, b_v = module.in_proj_bias.chunk(3)
    q, k, v = (
        heads(torch.nn.functional.linear(t, w, b), 3)
        for t, w, b in ((x, w_q, b_q), (memory, w_k, b_k), (memory, w_v, b_v))
    )
    assert torch.allclose(module.out_proj(joined(regard.attention(q, k, v, mask))), theirs, atol=1e-12)
    assert torch.allclose(regard.weights(q, k, mask), weights, atol=1e-12)


def test_scaled_dot_equals_torch_with_grouped_heads() -> None:
    q, k, v = torch.randn(2, 6, 9, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 5)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    assert torch.allclose(regard.attention(q, k, v, "causal", backend="strips"), theirs, atol=1e-5)


@pytest.mark.parametrize("global_tokens", [1, 3])
def test_longformer_equals_transformers(global_tokens: int) -> None:
    longformer = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    config = longformer.LongformerConfig(
        hidden_size=12, num_attention_heads=3, attention_window=[4], attention_probs_dropout_prob=0.0
    )
    module = longformer.LongformerSelfAttention(config, 0).double().eval()
    for name in ("query", "key", "value"):  # the model keeps two sets of weights; one for this comparison
        getattr(module, f"{name}_global").load_state_dict(getattr(module, name).state_dict())
    x = torch.randn(2, 16, 12, dtype=torch.float64)
    is_global = torch.zeros(2, 16, dtype=torch.bool)
    is_global[:, :global_tokens] = True
    with torch.no_grad():
        theirs = module(
            x,
            attention_mask=torch.zeros(2, 16, dtype=torch.float64).masked_fill(is_global, 10_000.0),
            is_index_masked=torch.zeros(2, 16, dtype=torch.bool),
            is_index_global_attn=is_global,
            is_global_attn=True,
        )[0]
        given = inputs(*(heads(f(x), 3) for f in (module.query, module.key, module.value)))
        ours = compose.attend(card("longformer").make(reach=2, global_tokens=global_tokens), given)
    assert torch.allclose(joined(ours), theirs, atol=1e-6)  # their softmax is float32


def test_bigbird_equals_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' last block is global too, and its random blocks come from numpy: both go into a block list."""
    bird = pytest.importorskip("transformers.models.big_bird.modeling_big_bird")
    numpy = pytest.importorskip("numpy")
    blocks, size, drawn = 8, 4, {}
    config = bird.BigBirdConfig(
        hidden_size=12, num_attention_heads=3, block_size=size, num_random_blocks=1, max_position_embeddings=64
    )
    module = bird.BigBirdBlockSparseAttention(config, seed=0).double().train()

    def random(*_: object, num_heads: int = 3, **__: object) -> list[object]:
        generator = numpy.random.default_rng(1)
        far = [[b for b in range(1, blocks - 1) if abs(b - row) > 1] for row in range(1, blocks - 1)]
        found = [numpy.array([[generator.choice(row)] for row in far]) for _ in range(num_heads)]
        drawn["blocks"] = found
        return found

    monkeypatch.setattr(module, "_bigbird_block_rand_mask_with_head", random)
    x = torch.randn(2, blocks * size, 12, dtype=torch.float64)
    everything = torch.ones(2, blocks * size, dtype=torch.float64)
    made = bird.BigBirdModel.create_masks_for_block_sparse_attn(everything, size)
    blocked, band, from_mask, to_mask = made
    with torch.no_grad():
        theirs = module(x, band, from_mask, to_mask, blocked, blocked)[0]
        layout = torch.zeros(3, blocks, blocks, dtype=torch.bool)
        for row in range(blocks):
            layout[:, row, max(row - 1, 0) : row + 2] = True
        layout[:, :, [0, -1]] = True
        layout[:, [0, -1]] = True
        for head, picks in enumerate(drawn["blocks"]):
            for row, pick in enumerate(picks):
                layout[head, row + 1, int(pick[0])] = True
        given = inputs(*(heads(f(x), 3) for f in (module.query, module.key, module.value)))
        ours = compose.attend(card("block_sparse").make(layout=layout, size=size), given)
    assert torch.allclose(joined(ours).view_as(theirs), theirs, atol=1e-9)


def test_t5_equals_transformers() -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = t5.T5Config(d_model=12, d_kv=4, num_heads=3, dropout_rate=0.0, relative_attention_max_distance=12)
    config.is_decoder = False
    module = t5.T5Attention(config, has_relative_attention_bias=True).double().eval()
    x = torch.randn(2, 30, 12, dtype=torch.float64)
    with torch.no_grad():
        theirs = module(x)[0]
        given = inputs(*(heads(f(x), 3) for f in (module.q, module.k, module.v)))
        made = card("t5").make(table=module.relative_attention_bias.weight.double(), max_distance=12)
        ours = module.o(joined(compose.attend(made, given)))
    assert torch.allclose(ours, theirs, atol=1e-9)


def test_nystrom_with_every_token_a_landmark_is_softmax() -> None:
    x = inputs(*(torch.randn(1, 2, 6, 4, dtype=torch.float64) for _ in range(3)))
    wanted, weights = reference.attend(card("scaled_dot").make(), x)  # type: ignore[arg-type]
    made = card("nystrom").make(landmarks=6, iterations=None)
    assert torch.allclose(compose.attend(made, x), wanted, atol=1e-8)
    assert torch.allclose(compose.weights(made, x), weights, atol=1e-8)


def test_performer_tends_to_softmax() -> None:
    """FAVOR+'s relative error is √((e^{‖q̂ + k̂‖²} - 1) / m): small for small vectors and many features."""
    x = inputs(*(0.3 * torch.randn(1, 4, 8, 4, dtype=torch.float64) for _ in range(3)))
    wanted, _ = reference.attend(card("scaled_dot").make(), x)  # type: ignore[arg-type]
    errors = [float((compose.attend(card("performer").make(features=m), x) - wanted).abs().max()) for m in (16, 8192)]
    assert errors[1] < 0.02 and errors[1] < errors[0] / 4


def test_performers_features_have_the_exponential_as_their_mean() -> None:
    """Over many draws, within five standard errors; features that prefer a direction would not."""
    q, k = (0.5 * torch.randn(1, 1, 6, 4, dtype=torch.float64) for _ in range(2))
    draws = []
    for seed in range(400):
        left, right = (log_features(t, 16, seed).exp() for t in (q, k))
        draws.append(left @ right.mT / 16)
    found, wanted = torch.stack(draws), (q @ k.mT / 2).exp()
    error = found.std(0) / 400**0.5
    assert bool(((found.mean(0) - wanted).abs() < 5 * error).all())


def test_latent_absorbed_equals_expanded() -> None:
    from regard.zoo import Sizes

    latent, sizes = card("latent"), Sizes(2, 3, 3, 7, 7, 6, 5)
    x, arguments = latent.arrange(sizes.inputs(), sizes), latent.example(sizes)
    x = x.replace(key_valid=torch.tensor([[True] * 5 + [False] * 2, [True] * 7]))
    for mask in (masks.full(), masks.causal()):
        expanded, absorbed = (latent.make(**arguments, absorbed=a, mask=mask) for a in (False, True))
        assert torch.allclose(compose.attend(expanded, x), compose.attend(absorbed, x), atol=1e-12)
        assert torch.allclose(compose.weights(expanded, x), compose.weights(absorbed, x), atol=1e-12)


def test_differential_is_a_sum_of_two_softmaxes() -> None:
    from regard.composite import Sum
    from regard.parts.defaults import mechanism_with

    q, k, v = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 3)
    whole = regard.attention(q, k, v, card("differential").make(share=0.4))
    first, second = (regard.attention(q[..., s], k[..., s], v) for s in (slice(0, 4), slice(4, 8)))
    assert torch.allclose(whole, first - 0.4 * second, atol=1e-6)
    weights = regard.weights(q, k, card("differential").make(share=0.4))
    assert torch.allclose(weights.sum(-1), torch.full((1, 2, 5), 0.6), atol=1e-6) and bool((weights < 0).any())
    twice = Sum(
        "twice",
        "test",
        (mechanism_with("a", "test"), mechanism_with("b", "test")),
        lambda x: x.q.new_tensor([1.0, -0.4]).expand(1, 2, 5, 2),
    )
    assert torch.allclose(compose.weights(twice, inputs(q, k)), 0.6 * regard.weights(q, k), atol=1e-6)
