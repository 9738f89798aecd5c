"""True heads: a two-layer GPT-2 whose weights are set by hand, so that every head's attention is known in closed form.

Its residual stream holds one-hot vectors: the token, the position, and, written by layer 0, the token before. Every
token has as many ones, so LayerNorm is the same affine map everywhere, and a head's score is s where its key matches
and 0 elsewhere (up to what is the same for a whole row).
"""

from __future__ import annotations

import math

import pytest
import torch
import transformers as tf
from torch import Tensor

from regard.hf import watcher
from regard.hf.attach import attach
from regard.seeing.statistics import standard
from regard.seeing.trace import Trace

VOCAB, POSITIONS, HEADS, WIDTH = 24, 48, 5, 48
SIZE = HEADS * WIDTH
TOKEN, POSITION, BEFORE = (
    slice(0, VOCAB),
    slice(VOCAB, VOCAB + POSITIONS),
    slice(VOCAB + POSITIONS, 2 * VOCAB + POSITIONS),
)
BOS, LENGTH = 0, 19
HARD, SOFT = 60.0, 3.0
KINDS = (
    ("copies previous", "previous", "duplicate", "sink", "uniform"),
    ("induction", "uniform", "sink", "duplicate", "previous"),
)


def scale_of(ones: int) -> tuple[float, float]:
    """What LayerNorm subtracts from a vector of so many ones, and what it multiplies the rest by."""
    mean = ones / SIZE
    return mean, (mean - mean**2 + 1e-5) ** -0.5


def set_head(attention: torch.nn.Module, head: int, kind: str, ones: int) -> None:
    """Queries, keys and, for the head that copies, values of one head."""
    weight, bias = attention.c_attn.weight, attention.c_attn.bias  # type: ignore[union-attr]
    mean, factor = scale_of(ones)
    q, k, v = (slice(part * SIZE + head * WIDTH, part * SIZE + (head + 1) * WIDTH) for part in range(3))
    strength = (HARD if kind == "copies previous" else SOFT) * math.sqrt(WIDTH)
    if kind in ("copies previous", "previous"):
        weight[POSITION, q] = torch.eye(POSITIONS).roll(-1, 1) * strength / factor**2
        weight[POSITION, k] = torch.eye(POSITIONS)
    elif kind in ("duplicate", "induction"):
        weight[TOKEN, q] = torch.eye(VOCAB, WIDTH) * strength / factor**2
        weight[TOKEN if kind == "duplicate" else BEFORE, k] = torch.eye(VOCAB, WIDTH)
    elif kind == "sink":
        bias[q.start] = strength / factor
        weight[POSITION.start, k.start] = 1.0
    if kind == "copies previous":
        weight[TOKEN, v] = torch.eye(VOCAB, WIDTH)
        rows = slice(head * WIDTH, head * WIDTH + VOCAB)
        attention.c_proj.weight[rows, BEFORE] = torch.eye(VOCAB) / factor  # type: ignore[union-attr,index]
        attention.c_proj.bias[BEFORE] = mean  # type: ignore[union-attr,index]


@pytest.fixture(scope="module")
def model() -> tf.GPT2LMHeadModel:
    config = tf.GPT2Config(
        vocab_size=VOCAB,
        n_positions=POSITIONS,
        n_embd=SIZE,
        n_layer=2,
        n_head=HEADS,
        bos_token_id=BOS,
        eos_token_id=BOS,
    )
    made = tf.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.transformer.wte.weight[:, TOKEN] = torch.eye(VOCAB)
        made.transformer.wpe.weight[:, POSITION] = torch.eye(POSITIONS)
        for number, (block, kinds) in enumerate(zip(made.transformer.h, KINDS, strict=True)):
            block.ln_1.weight.fill_(1.0)
            for head, kind in enumerate(kinds):
                set_head(block.attn, head, kind, ones=2 + number)
    return made


def repeated() -> Tensor:
    """[BOS] X X of distinct tokens."""
    x = torch.randperm(VOCAB - 1, generator=torch.Generator().manual_seed(0))[:LENGTH] + 1
    return torch.cat([torch.tensor([BOS]), x, x])[None]


def weights_of(kind: str, ids: Tensor) -> Tensor:
    """The closed form: e^s where the key matches, 1 on other visible keys, divided by their sum."""
    n = len(ids)
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    before = torch.cat([ids[:1], ids[:-1]])
    match = {
        "copies previous": j == i - 1,
        "previous": j == i - 1,
        "duplicate": ids[:, None] == ids[None, :],
        "induction": ids[:, None] == before[None, :],
        "sink": (j == 0).expand(n, n),
        "uniform": torch.zeros(n, n, dtype=torch.bool),
    }[kind]
    scores = torch.where(match, HARD if kind == "copies previous" else SOFT, 0.0).double()
    return scores.masked_fill(j > i, -torch.inf).softmax(-1)


def detected(kind: str, ids: Tensor) -> dict[str, float]:
    """The number that each detector must give for a head of this kind: means over the rows it counts."""
    a, n = weights_of(kind, ids), len(ids)
    again = torch.tensor([bool((ids[:i] == ids[i]).any()) for i in range(n)])
    same = (ids[:, None] == ids[None, :]) & ~torch.eye(n, dtype=torch.bool)
    follows = torch.zeros(n, n, dtype=torch.bool)
    follows[:, 1:] = ids[:, None] == ids[None, :-1]
    rows = -(a * a.clamp(min=1e-300).log()).sum(-1)
    return {
        "previous": float(a.diagonal(-1).mean()),
        "duplicate": float((a * same).sum(-1)[again].mean()),
        "induction": float((a * follows).sum(-1)[again].mean()),
        "sink": float(a[:, :4].sum(-1).mean()),
        "entropy": float(rows.mean()),
        "span": float(rows.exp().mean()),
        "max": float(a.amax(-1).mean()),
        "received": float(a.sum(0).max() / n),
        "distance": float((a * (torch.arange(n)[:, None] - torch.arange(n)).abs()).sum(-1).mean()),
    }


def assert_true(trace: Trace, ids: Tensor, batch: int = 0) -> None:
    for layer, kinds in zip(trace.layers, KINDS, strict=True):
        for head, kind in enumerate(kinds):
            for label, value in detected(kind, ids).items():
                found = float(layer.summaries[label][batch, head])
                assert abs(found - value) <= 1e-4 * max(1.0, value), f"{label} of the {kind} head {layer.index}.{head}"


@pytest.mark.parametrize("path", ["fused", "strips"])
def test_each_detector_gives_the_known_value(
    path: str, model: tf.GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "strips":
        monkeypatch.setattr(watcher, "observers", lambda *names: ())
    ids = repeated()
    with torch.no_grad(), attach(model) as trace:
        model(input_ids=ids)
    for layer, kinds in zip(trace.layers, KINDS, strict=True):
        for head, kind in enumerate(kinds):
            expected = weights_of(kind, ids[0])
            assert (trace.weights(layer, head) - expected).abs().max() <= 1e-5, kind
    assert_true(trace, ids[0])


def test_a_uniform_head_has_the_entropy_of_its_row_length(model: tf.GPT2LMHeadModel) -> None:
    ids = repeated()
    with torch.no_grad(), attach(model) as trace:
        model(input_ids=ids)
    rows = trace.layers[0].results["entropy"]["rows"][0, KINDS[0].index("uniform")]
    assert torch.allclose(rows, torch.arange(1, ids.shape[1] + 1).float().log(), atol=1e-4)


def test_the_strongest_head_of_each_detector_is_the_one_that_was_set(model: tf.GPT2LMHeadModel) -> None:
    with torch.no_grad(), attach(model) as trace:
        model(input_ids=repeated())
    for label, kind in (
        ("previous", "copies previous"),
        ("duplicate", "duplicate"),
        ("induction", "induction"),
        ("entropy", "uniform"),
    ):
        layer, head, _ = max(trace.heads(label), key=lambda found: found[2])
        assert KINDS[layer.index][head] == kind, label


def test_detectors_do_not_see_padding(model: tf.GPT2LMHeadModel) -> None:
    """The same sequence alone, and left-padded beside a longer one."""
    long, short = repeated()[0], repeated()[0, 3:30]
    pad = len(long) - len(short)
    ids = torch.stack([long, torch.cat([torch.full((pad,), 7), short])])
    mask = torch.ones_like(ids)
    mask[1, :pad] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), attach(model, standard(resolution=4)) as trace:
        model(input_ids=ids, attention_mask=mask, position_ids=positions)
    for batch, each in enumerate((long, short)):
        assert_true(trace, each, batch)


def test_detectors_give_the_same_for_a_sequence_fed_in_parts(model: tf.GPT2LMHeadModel) -> None:
    ids = repeated()
    with torch.no_grad(), attach(model) as trace:
        cache = model(input_ids=ids[:, :11], use_cache=True).past_key_values
        for at in (slice(11, 12), slice(12, 30), slice(30, ids.shape[1])):
            cache = model(input_ids=ids[:, at], past_key_values=cache, use_cache=True).past_key_values
    assert_true(trace, ids[0])
