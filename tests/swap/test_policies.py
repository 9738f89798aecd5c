"""Policies keep exactly what their published formula keeps, and a cache computes with exactly that."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

import regard
from regard.errors import UserError
from regard.hf.seam import AttentionCall, Handler, handling
from regard.swap import retrieval
from regard.swap.cache.cache import PolicyCache
from regard.swap.cache.pages import PAGE_SIZE
from regard.swap.policies import every, policy_of
from tests.hf.models import BY_NAME, GQA, Case, feed, lm
from tests.swap.dense import dense, softmax
from tests.swap.oracles import ORACLES, Layer

FOUR = {**GQA, "num_hidden_layers": 4}
GROUPED = [
    Case("llama", lm(tf.LlamaConfig, tf.LlamaForCausalLM, **FOUR)),
    Case("qwen3", lm(tf.Qwen3Config, tf.Qwen3ForCausalLM, **FOUR, head_dim=8)),
    Case("phi3", lm(tf.Phi3Config, tf.Phi3ForCausalLM, **FOUR)),
]
LENGTH, NEW = 90, 6
TEXTS = {
    "sinks": "sinks({})",
    "h2o": "h2o({})",
    "tova": "tova({})",
    "snapkv": "snapkv({}, window=8)",
    "pyramid": "pyramid({}, window=8)",
    "ada": "ada({}, window=8)",
    "expected": "expected({})",
    "duo": "duo({}, sinks=2, recent=8)",
    "quest": "quest({}, skip=0)",
}


def built(case: Case) -> tuple[Any, Tensor]:
    return case.build(std=0.15), feed(case, length=LENGTH, batch=1)["input_ids"]


def made(model: Any, name: str, budget: float | int, ids: Tensor) -> PolicyCache:
    measured = retrieval(model, ids, sinks=2, recent=8) if name == "duo" else None
    return regard.cache(model, TEXTS[name].format(budget), measured=measured)


def layers_of(model: Any, ids: Tensor) -> list[Layer]:
    """Every layer of a prompt, from eager weights and the model's own cache and modules."""
    before = model.config._attn_implementation
    queries: dict[int, Tensor] = {}

    class Noting(Handler):
        def attend(self, call: AttentionCall) -> None:
            queries[call.module.layer_idx] = call.query[0]  # type: ignore[index]

    model.set_attn_implementation("eager")
    with torch.no_grad(), handling(model, Noting()):
        out = model(ids, output_attentions=True, use_cache=True)
    model.set_attn_implementation(before)
    rotary = model.model.rotary_emb
    cos, sin = rotary(torch.zeros(1, 1, 1), torch.arange(ids.shape[1] + 600)[None])
    width = cos.shape[-1]

    def turn(position: int) -> Tensor:
        half = torch.zeros(width, width)
        half[: width // 2, width // 2 :], half[width // 2 :, : width // 2] = (
            -torch.eye(width // 2),
            torch.eye(width // 2),
        )
        return (torch.eye(width) * cos[0, position] + half * sin[0, position][:, None]).double()

    back = torch.stack([turn(position).inverse() for position in range(ids.shape[1])])
    plain = {n: torch.einsum("nij,hnj->hni", back, q.double()) for n, q in queries.items()}
    cached = out.past_key_values.layers
    return [
        Layer(a[0], cached[n].keys[0], cached[n].values[0], plain[n], turn, n, len(cached))
        for n, a in enumerate(out.attentions)
    ]


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("case", GROUPED, ids=lambda case: case.name)
def test_a_policy_keeps_what_its_formula_keeps(case: Case, share: float) -> None:
    model, ids = built(case)
    layers = layers_of(model, ids)
    for name, oracle in ORACLES.items():
        cache = made(model, name, share, ids)
        with torch.no_grad():
            model(ids, past_key_values=cache, use_cache=True)
        for number, layer in enumerate(layers):
            kept = [set(cache.managed[number].kept(0, group)) for group in range(layer.groups)]
            assert kept == oracle(layer, share), f"{name}, layer {number}"
        del cache


def test_every_policy_is_tested() -> None:
    assert set(every()) == set(TEXTS) and set(TEXTS) - {"duo", "quest"} == set(ORACLES)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("case", GROUPED, ids=lambda case: case.name)
def test_with_the_whole_budget_a_model_writes_what_it_writes(case: Case, name: str) -> None:
    model, ids = built(case)
    with torch.no_grad():
        plain, cached = model(ids, use_cache=True), model(ids, past_key_values=made(model, name, 1.0, ids))
        assert torch.equal(plain.logits, cached.logits)
        for token in range(5, 5 + NEW):
            step = torch.tensor([[token]])
            plain = model(step, past_key_values=plain.past_key_values)
            cached = model(step, past_key_values=cached.past_key_values)
            assert (plain.logits - cached.logits).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["sinks", "h2o", "tova", "snapkv", "ada", "duo"])
def test_a_cache_computes_what_a_dense_mask_computes(name: str) -> None:
    """Each row over exactly the tokens that its key-value head kept before it, by full matrices; H2O and TOVA choose
    among them by weights computed densely, too."""
    model, ids = built(GROUPED[0])
    cache = made(model, name, 0.4, ids)
    steps = torch.arange(5, 5 + 12)[None]
    with torch.no_grad():
        model(ids, past_key_values=cache)
        shown: list[list[list[int]]] = []
        logits = []
        for at in range(steps.shape[1]):
            shown.append([[*layer.kept(0, g), LENGTH + at] for layer in cache.managed for g in range(2)])
            logits.append(model(steps[:, at : at + 1], past_key_values=cache).logits)
        weights_seen: dict[int, Tensor] = {}

        def masked(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
            allowed = allowed.clone()
            for at in range(scores.shape[2] - LENGTH):
                for group in range(2):
                    keep = torch.zeros(scores.shape[3], dtype=torch.bool)
                    keep[shown[at][2 * module.layer_idx + group]] = True
                    allowed[:, 2 * group : 2 * group + 2, LENGTH + at] &= keep
            weights_seen[module.layer_idx] = softmax(scores, allowed)
            return weights_seen[module.layer_idx]

        with dense(model, masked):
            expected = model(torch.cat([ids, steps], 1)).logits[:, LENGTH:]
    assert (torch.cat(logits, 1) - expected).abs().max() <= 1e-5
    if name in ("h2o", "tova"):
        for layer, a in weights_seen.items():
            check_choices(name, a[0], [[step[2 * layer + g] for step in shown] for g in range(2)])


def check_choices(name: str, a: Tensor, shown: list[list[list[int]]]) -> None:
    """Every token that was given up while writing was the one with the least worth among those that were there."""
    for group, steps in enumerate(shown):
        heads = a[2 * group : 2 * group + 2]
        for at, (there, then) in enumerate(pairwise(steps)):
            row = LENGTH + at
            if name == "tova":
                worth = a[:, row].mean(0)
                worth[row] = 9.0
            else:
                worth = heads[:, : row + 1].sum(1).mean(0) / (row + 1 - torch.arange(a.shape[-1])).clamp(min=1)
            gone = set(there) - set(then)
            assert gone == {min(there, key=lambda j: float(worth[j]))}


def test_quest_reads_the_pages_with_the_largest_bounds() -> None:
    model, _ = built(GROUPED[0])
    ids = feed(BY_NAME["llama"], length=5 * PAGE_SIZE - 7, batch=1)["input_ids"][:, :120]
    ids = torch.cat([ids, ids.flip(1)], 1)[:, : 4 * PAGE_SIZE - 8]
    cache = regard.cache(model, "quest(0.5, skip=1)")
    step = torch.tensor([[7]])
    with torch.no_grad():
        model(ids, past_key_values=cache)
        found = model(step, past_key_values=cache).logits

        def selected(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
            if module.layer_idx < 1:
                return softmax(scores, allowed)
            allowed = allowed.clone()
            for group in range(2):
                bound = bounds[module.layer_idx][group]
                keep = torch.zeros(scores.shape[3], dtype=torch.bool)
                for page in [*bound.topk(1).indices.tolist(), 3]:
                    keep[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = True
                allowed[:, 2 * group : 2 * group + 2, -1] &= keep
            return softmax(scores, allowed)

        bounds: dict[int, Tensor] = {}
        queries: dict[int, Tensor] = {}

        def note(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
            return softmax(scores, allowed)

        whole = torch.cat([ids, step], 1)
        for layer in range(4):  # a layer's queries follow from what the layers before it selected
            bounds.update(dict.fromkeys(range(layer, 4), torch.zeros(2, 3)))
            with dense(model, selected), regard_queries(model, layer, queries):
                keys = model(whole, use_cache=True).past_key_values.layers[layer].keys[0]
            pages = keys[:, : 3 * PAGE_SIZE].unflatten(1, (3, PAGE_SIZE))
            q = queries[layer].unflatten(0, (2, 2))
            upper = torch.maximum(q[:, :, None] * pages.amin(2)[:, None], q[:, :, None] * pages.amax(2)[:, None])
            bounds[layer] = upper.sum(-1).sum(1)
        with dense(model, selected):
            expected = model(whole).logits[:, -1:]
    assert (found - expected).abs().max() <= 1e-5
    assert cache.managed[0].kept(0, 0) == list(range(whole.shape[1]))


class regard_queries:
    """The rotated query of the last token of one layer, read off the projections."""

    def __init__(self, model: Any, layer: int, into: dict[int, Tensor]) -> None:
        self.module, self.model, self.layer, self.into = model.model.layers[layer].self_attn, model, layer, into

    def __enter__(self) -> None:
        def hook(module: Any, args: Any, output: Tensor) -> None:
            from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

            q = output.unflatten(-1, (4, 8)).transpose(1, 2)
            cos, sin = self.model.model.rotary_emb(output, torch.arange(output.shape[1])[None])
            self.into[self.layer] = apply_rotary_pos_emb(q, q, cos, sin)[0][0, :, -1]

        self.handle = self.module.q_proj.register_forward_hook(hook)

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


@pytest.mark.parametrize("name", ["snapkv", "h2o", "ada"])
def test_padding_is_not_kept_and_changes_nothing(name: str) -> None:
    model, ids = built(GROUPED[0])
    short = ids[:, 20:]
    both = torch.cat([ids, torch.cat([torch.zeros(1, 20, dtype=torch.int64), short], 1)])
    mask = (torch.arange(LENGTH) >= torch.tensor([[0], [20]])).long()
    settings = {"max_new_tokens": 5, "do_sample": False}
    together, alone = made(model, name, 0.5, ids), made(model, name, 0.5, ids)
    wrote = model.generate(both, attention_mask=mask, past_key_values=together, **settings)
    single = model.generate(short, past_key_values=alone, **settings)
    assert torch.equal(wrote[1, LENGTH:], single[0, short.shape[1] :])
    for one, other in zip(together.managed, alone.managed, strict=True):
        assert all(one.kept(1, g) == [p + 20 for p in other.kept(0, g)] for g in range(2))


def test_memory_follows_what_is_kept_head_by_head() -> None:
    model, ids = built(GROUPED[0])
    part, whole = made(model, "duo", 0.25, ids), made(model, "snapkv", 1.0, ids)
    with torch.no_grad():
        model(ids, past_key_values=whole)
        model(ids, past_key_values=part)
    rows = sum(layer.pages.rows for layer in part.managed if layer.pages is not None)
    pages = sum(layer.pages.num_pages for layer in part.managed if layer.pages is not None)
    assert pages == round(rows * 0.25) * -(-LENGTH // PAGE_SIZE) + round(rows * 0.75)
    assert part.nbytes < 0.55 * whole.nbytes


def test_what_is_given_up_while_writing_is_used_again() -> None:
    model, ids = built(GROUPED[0])
    cache = regard.cache(model, "tova(40)")
    with torch.no_grad():
        model(ids, past_key_values=cache)
        before = cache.nbytes
        for token in range(60):
            model(torch.tensor([[5 + token % 40]]), past_key_values=cache)
    assert cache.nbytes <= 2 * before and cache.get_seq_length() == LENGTH + 60
    assert all(len(layer.kept(0, 0)) == 40 for layer in cache.managed)


def test_a_prompt_in_pieces_and_sliding_layers() -> None:
    gemma = BY_NAME["gemma3"].build(std=0.15)
    ids = feed(BY_NAME["gemma3"], length=40, batch=1)["input_ids"]
    with torch.no_grad():
        expected = gemma(ids).logits
        cache = regard.cache(gemma, "sinks(1.0)")
        first = gemma(ids[:, :15], past_key_values=cache).logits
        rest = gemma(ids[:, 15:], past_key_values=cache).logits
    assert len(cache.managed) == 1
    assert (torch.cat([first, rest], 1) - expected).abs().max() <= 1e-5


def test_with_its_cache_gone_a_model_is_as_it_was() -> None:
    model, ids = built(GROUPED[0])
    cache = regard.cache(model, "h2o(0.5)")
    with pytest.raises(UserError, match="delete that cache first"), regard.attach(model):
        pass
    with torch.no_grad():
        plain = model(ids).logits  # a forward without the cache
        other = regard.cache(model, "tova(0.5)")
        model(ids, past_key_values=other)
        model(ids, past_key_values=cache)
        assert cache.managed[0].kept(0, 0) != other.managed[0].kept(0, 0)
    del cache, other
    gc.collect()
    with torch.no_grad(), regard.attach(model, watch=()):
        assert torch.equal(model(ids).logits, plain)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h2o(0)", "a budget"),
        ("h2o(1.5)", "a share above 0 and up to 1"),
        ("h2o(-3)", "a budget"),
        ("h2o", "needs a budget"),
        ("nosuch(0.5)", "no policy is called 'nosuch'; there are: ada"),
        ("h2o(0.5, window=3)", "h2o is written h2o(budget)"),
        ("snapkv(0.5, kernel=4)", "odd kernel"),
        ("snapkv(0.5", "expected"),
        ("h2o(0.5) & tova(0.5)", "a policy is written"),
        ("duo(64)", "share of heads"),
        ("ada(0.5, safe=2)", "safe is a share"),
    ],
)
def test_a_policy_that_does_not_parse_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(")", r"\)")):
        policy_of(text)


def test_a_model_that_no_cache_fits_is_refused_in_one_sentence() -> None:
    for name, said in (("bert", "keeps no cache"), ("t5", "has an encoder"), ("vit", "keeps no cache")):
        with pytest.raises(UserError, match=said):
            regard.cache(BY_NAME[name].build(), "h2o(0.5)")
    oss = BY_NAME["gpt_oss"]
    model, ids = oss.build(), feed(oss)["input_ids"]
    cache = regard.cache(model, "h2o(0.5)")
    with torch.no_grad(), pytest.raises(UserError, match="a learned sink"):
        model(ids, past_key_values=cache)
    del cache
    model, ids = built(GROUPED[0])
    cache = regard.cache(model, "snapkv(0.5)")
    with torch.no_grad(), pytest.raises(UserError, match="last 64 tokens of a prompt"):
        model(ids[:, :40], past_key_values=cache)
    cache = regard.cache(model, "duo(0.5)")
    with torch.no_grad(), pytest.raises(UserError, match="give measured="):
        model(ids, past_key_values=cache)
    cache = regard.cache(model, "h2o(0.5)")
    with torch.no_grad(), pytest.raises(UserError, match="cannot be re"):
        model.generate(ids, past_key_values=cache, num_beams=2, max_new_tokens=4)
