"""Encoder–decoders: their attention is the core's, watching changes nothing, and generation has one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MarianMTModel

import regard
from regard.seq2seq.beam import Search
from regard.seq2seq.config import RecurrentConfig
from regard.seq2seq.decode import decoded, outputs
from regard.seq2seq.directory import opened
from tests.seq2seq.toys import ATTENTIVE, KINDS, batch, model

WRITTEN = ["rnn", "bahdanau", "luong general", "luong local_p", "transformer"]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def dense_weights(decoder: Any, queries: torch.Tensor, states: torch.Tensor, length: int) -> torch.Tensor:
    """The scores as the papers write them, for one sentence: queries [T,H], states [S,2H] -> [T,S]."""
    attention, kind = decoder.attention, decoder.config.attention
    if kind in ("additive", "concat"):
        joined = torch.cat([attention.query.weight, attention.key.weight], 1)
        pairs = torch.cat([queries[:, None].expand(-1, len(states), -1), states.expand(len(queries), -1, -1)], -1)
        return torch.softmax(torch.tanh(pairs @ joined.T) @ attention.score, 1)
    if kind == "dot":
        return torch.softmax(queries @ (states[:, :32] + states[:, 32:]).T, 1)
    scores = queries @ attention.key.weight @ states.T
    steps, places = torch.arange(len(queries))[:, None], torch.arange(len(states))[None]
    reach = decoder.config.reach
    if kind == "local_m":
        return torch.softmax(scores.masked_fill((steps - places).abs() > reach, float("-inf")), 1)
    if kind == "local_p":
        centre = torch.tanh(queries @ attention.centre.weight.T) @ attention.centre_score
        away = places - length * torch.sigmoid(centre)[:, None]
        within = torch.softmax(scores.masked_fill(away.abs() > reach, float("-inf")), 1)
        return within * torch.exp(-(away**2) / (2 * (reach / 2) ** 2))
    return torch.softmax(scores, 1)


@pytest.mark.parametrize(
    "kind", ["bahdanau", "luong general", "luong dot", "luong concat", "luong local_m", "luong local_p"]
)
def test_watched_weights_are_the_papers(kind: str) -> None:
    made, (source, mask) = model(kind), batch(3)
    target = torch.randint(4, 40, (3, 7))
    seen: list[Any] = []
    own = made.decoder.attention.show
    made.decoder.attention.show = lambda queries, memory, first: (seen.append(queries), own(queries, memory, first))
    with regard.attach(made, watch=(), keep="qk") as trace:
        made(input_ids=source, attention_mask=mask, decoder_input_ids=target)
    states = made.encoder(input_ids=source, attention_mask=mask).last_hidden_state
    for row in range(3):
        length = int(mask[row].sum())
        wanted = dense_weights(made.decoder, seen[0][row], states[row, :length], length)
        found = trace.weights(trace.layers[0], 0, batch=row)
        assert float((found[:, :length] - wanted).abs().max()) < 1e-6
        assert not found[:, length:].any()


def test_the_context_is_the_weights_times_the_states() -> None:
    made, (source, mask) = model("bahdanau"), batch(1)
    states = made.encoder(input_ids=source, attention_mask=mask).last_hidden_state
    memory = made.decoder.attention.memory(states, None)
    query = torch.randn(1, 4, 32)
    found = made.decoder.attention(query, memory, torch.arange(4))
    wanted = dense_weights(made.decoder, query[0], states[0], states.shape[1]) @ states[0]
    assert float((found[0] - wanted).abs().max()) < 1e-6


@pytest.mark.parametrize("kind", ATTENTIVE)
def test_generation_is_the_same_watched_and_not(kind: str) -> None:
    made, (source, mask) = model(kind), batch()
    asked = {"input_ids": source, "attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
    plain = made.generate(**asked)
    with regard.attach(made) as trace:
        watched = made.generate(**asked)
    assert torch.equal(plain, watched)
    assert any(layer.kind == "cross" for layer in trace.layers)


@pytest.mark.parametrize("kind", ATTENTIVE)
def test_a_step_at_a_time_is_all_steps_at_once(kind: str) -> None:
    """The last token's logits of a growing prefix with a cache, and of the whole sequence without one."""
    made, (source, mask) = model(kind), batch()
    target = torch.randint(4, 40, (5, 6))
    whole = made(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
    past, steps = None, []
    for step in range(6):
        out = made(
            input_ids=source, attention_mask=mask, decoder_input_ids=target[:, step : step + 1], past_key_values=past,
            use_cache=True,
        )  # fmt: skip
        past = out.past_key_values
        steps.append(out.logits)
    assert torch.allclose(torch.cat(steps, 1), whole, atol=2e-5)


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("beams", [1, 4])
def test_own_search_writes_what_transformers_generate_does(kind: str, beams: int) -> None:
    made, (source, mask) = model(kind), batch()
    found = outputs(made, source, mask, Search(beams, longest=12))
    asked = {"num_beams": beams, "do_sample": False, "max_new_tokens": 12, "suppress_tokens": [0, 2]}
    wanted = made.generate(input_ids=source, attention_mask=mask, **asked)[:, 1:].tolist()
    assert found == [row[: row.index(3)] if 3 in row else row for row in wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_sentences_one_by_one(kind: str) -> None:
    made, (source, mask) = model(kind), batch()
    sentences = [row[:size].tolist() for row, size in zip(source, mask.sum(1).tolist(), strict=True)]
    together = dict(decoded(made, sentences, Search(3, longest=10)))
    alone = [dict(decoded(made, [sentence], Search(3, longest=10)))[0] for sentence in sentences]
    assert [together[row] for row in range(5)] == alone


def test_one_beam_is_greedy() -> None:
    from regard.seq2seq.beam import _Beams
    from regard.seq2seq.writers import writer

    made, (source, mask) = model("bahdanau"), batch()
    greedy = outputs(made, source, mask, Search(1, longest=12))
    beams = _Beams(writer(made, source, mask, 1), 5, Search(1, longest=12), 2, 3, torch.tensor([0, 2])).run()
    assert greedy == beams


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_the_same_model(kind: str, tmp_path: Path) -> None:
    made, (source, mask) = model(kind), batch()
    made.save_pretrained(tmp_path)
    again = opened(tmp_path).model
    assert type(again) is type(made)
    asked = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": source}
    assert torch.equal(again(**asked).logits, made(**asked).logits)


def test_a_transformer_is_transformers_own_marian(tmp_path: Path) -> None:
    """The preset's directory needs nothing of regard; with a mechanism that is the plain one, logits stay."""
    from transformers import AutoModelForSeq2SeqLM

    from regard.seq2seq.config import TransformerConfig
    from regard.seq2seq.transformer import Transformer

    made, (source, mask) = model("transformer"), batch()
    made.save_pretrained(tmp_path)
    twin = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(twin) is MarianMTModel
    asked = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": source.clamp(min=4)}
    wanted = made(**asked).logits
    assert float((twin(**asked).logits - wanted).abs().max()) < 1e-5
    shape = {
        name: value for name, value in made.config.to_dict().items() if name not in ("model_type", "architectures")
    }
    full = {f"{which}_mechanism": "full" for which in ("self", "causal", "cross")}
    swapped = Transformer(TransformerConfig(**shape | full)).eval()
    swapped.load_state_dict(made.state_dict())
    assert torch.allclose(swapped(**asked).logits[mask.bool()], wanted[mask.bool()], rtol=1e-5, atol=1e-4)


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(regard.Unsupported.__mro__[1], match="attention is one of none, additive"):
        RecurrentConfig(attention="nosuch")
    with pytest.raises(ValueError, match="input feeding belongs to order='luong'"):
        RecurrentConfig(input_feeding=True)


def test_a_recurrent_model_can_be_watched_but_not_exchanged() -> None:
    made, (source, mask) = model("bahdanau"), batch()
    with (
        pytest.raises(regard.Unsupported, match="inside its own code, so it can be watched"),
        regard.attach(made, mechanism="full"),
    ):
        made(input_ids=source, attention_mask=mask, decoder_input_ids=source)
