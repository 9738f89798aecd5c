"""Positions against the libraries that people compare with, and the identities that define them."""

from __future__ import annotations

import pytest
import torch

from regard.inputs import inputs
from regard.parts import positions
from regard.parts.positions import Dynamic, Linear, Llama3, Yarn, rotary_frequencies, rotate, t5_buckets
from regard.parts.rotary import Rotary
from regard.run import reference
from regard.zoo.rotary import rotary


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 20])
def test_alibi_slopes_equal_bloom_and_mpt(heads: int) -> None:
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    theirs = bloom.build_alibi_tensor(torch.ones(1, 5, dtype=torch.long), heads, torch.float32)
    ours = positions.alibi_slopes(heads)[:, None] * torch.arange(5)
    assert torch.allclose(theirs[:, 0].double(), ours, atol=1e-6)


@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20), (16, 33)])
@pytest.mark.parametrize("both", [True, False])
def test_t5_buckets_equal_transformers(buckets: int, farthest: int, both: bool) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = torch.arange(-300, 301)
    theirs = t5.T5Attention._relative_position_bucket(distance, both, buckets, farthest)
    assert torch.equal(t5_buckets(distance, buckets, farthest, both), theirs)


SCALINGS = {
    "linear": (Linear(4.0), {"factor": 4.0}),
    "dynamic": (Dynamic(2.0, 64), {"factor": 2.0}),
    "llama3": (
        Llama3(8.0, 64, 1.0, 4.0),
        {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    ),
    "yarn": (Yarn(4.0, 64), {"factor": 4.0, "original_max_position_embeddings": 64}),
}


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("length", [32, 200])
@pytest.mark.parametrize("width", [8, 64])
def test_rotary_scalings_equal_transformers(kind: str, length: int, width: int) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling, given = SCALINGS[kind]
    trained = 256 if kind == "yarn" else 64
    config = transformers.LlamaConfig(
        hidden_size=2 * width,
        num_attention_heads=2,
        head_dim=width,
        max_position_embeddings=trained,
        rope_parameters={"rope_type": kind, "rope_theta": 10_000.0, **given},
    )
    theirs, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
    ours, ours_factor = scaling.frequencies(rotary_frequencies(width), 10_000.0, length)
    assert torch.allclose(ours, theirs.double(), rtol=2e-6)
    assert ours_factor == pytest.approx(factor)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("scaling", [None, Linear(3.0), Yarn(4.0, 8), Llama3(8.0, 8)])
def test_rotary_scores_see_only_the_distance(interleaved: bool, scaling: positions.Scaling | None) -> None:
    x = inputs(*(torch.randn(1, 2, 5, 8, dtype=torch.float64) for _ in range(3)))
    mechanism = rotary(scaling=scaling, interleaved=interleaved)
    _, here = reference.attend(mechanism, x)
    later = x.replace(query_positions=x.query_positions + 1000, key_positions=x.key_positions + 1000)
    _, there = reference.attend(mechanism, later)
    assert torch.allclose(here, there, atol=1e-9)


def test_rotary_turns_like_llama_and_leaves_the_rest() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = torch.randn(1, 2, 7, 8), torch.randn(1, 2, 7, 8)
    at = torch.arange(7)[None]
    angle = at[..., None] * rotary_frequencies(8).float()
    cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
    theirs, _ = llama.apply_rotary_pos_emb(q, k, cos, sin)
    assert torch.allclose(rotate(q, at, rotary_frequencies(8)), theirs, atol=1e-6)
    partly = rotate(q, at, rotary_frequencies(4))
    assert torch.equal(partly[..., 4:], q[..., 4:])
    assert torch.allclose(partly.norm(dim=-1), q.norm(dim=-1), atol=1e-5)


def test_sinusoids_equal_the_paper_and_marian() -> None:
    marian = pytest.importorskip("transformers.models.marian.modeling_marian")
    theirs = marian.MarianSinusoidalPositionalEmbedding(9, 8)
    weights = theirs.create_weight() if hasattr(theirs, "create_weight") else theirs.weight
    found = positions.sinusoidal(torch.arange(9), 8)
    halves = torch.cat([found[:, 0::2], found[:, 1::2]], -1)  # Marian keeps sines and cosines apart
    assert torch.allclose(halves, torch.as_tensor(weights).double(), atol=1e-6)
    assert positions.sinusoidal(torch.arange(3), 5).shape == (3, 5)


def test_positions_say_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a width of 7 is not even"):
        rotary_frequencies(7)
    x = inputs(*(torch.randn(1, 1, 3, 4) for _ in range(3)))
    with pytest.raises(ValueError, match=r"rotary\(width=6\) turns more dimensions than queries have, 4"):
        Rotary(width=6)(x)
    with pytest.raises(ValueError, match="max_distance above the exact ones"):
        t5_buckets(torch.arange(3), 32, 4, True)
