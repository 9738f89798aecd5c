"""Choosing tokens: every option against its definition, and seeds that do not know their neighbours."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.serve.request import Sampling
from regard.serve.sampler import Row, chances, choose, choose_plainly, draw, key_of, uniform

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 3.0])


def row(output: tuple[int, ...] = (), prompt: tuple[int, ...] = (), key: int = 5, **options: object) -> Row:
    return Row(Sampling(**options), prompt, output, key)  # type: ignore[arg-type]


def chosen(one: Row, logits: torch.Tensor = LOGITS) -> int:
    return choose(logits.clone()[None], [one])[0]


def shares(sampling: Sampling, count: int = 1000) -> dict[int, float]:
    """How often each token is drawn, over numbers spread evenly."""
    found = Counter(draw(LOGITS, sampling, (i + 0.5) / count) for i in range(count))
    return {token: times / count for token, times in found.items()}


def test_temperature_zero_takes_the_best_and_the_first_of_equals() -> None:
    assert chosen(row(temperature=0.0)) == 4
    assert chosen(row(temperature=0.0), torch.tensor([1.0, 7.0, 7.0])) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_plain_sampling_follows_the_softmax(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, 0)
    found = shares(Sampling(temperature=temperature))
    for token, share in enumerate(expected.tolist()):
        assert found.get(token, 0.0) == pytest.approx(share, abs=2e-3)


def test_filters_apply_in_order() -> None:
    assert set(shares(Sampling(top_k=2))) == {4, 0}
    # Of 3, 2, 1, 0, -1 the probabilities are 0.64, 0.23, 0.09, 0.03, 0.01.
    assert set(shares(Sampling(top_p=0.6))) == {4}
    assert set(shares(Sampling(top_p=0.65))) == {4, 0}
    assert set(shares(Sampling(top_p=0.9))) == {4, 0, 1}
    assert set(shares(Sampling(min_p=0.2))) == {4, 0}
    # Among the two that top_k keeps the best has 0.73: it alone reaches 0.7.
    assert set(shares(Sampling(top_k=2, top_p=0.7))) == {4}
    two = shares(Sampling(top_k=2))
    assert two[4] == pytest.approx(math.e / (1 + math.e), abs=2e-3)


def test_a_filter_that_keeps_everything_changes_no_share() -> None:
    assert shares(Sampling(top_k=5)) == pytest.approx(shares(Sampling()), abs=2e-3)


def test_penalties_bias_bans_and_grammar() -> None:
    greedy = {"temperature": 0.0}
    assert chosen(row(output=(4, 4), frequency_penalty=0.4, **greedy)) == 4
    assert chosen(row(output=(4, 4), frequency_penalty=0.6, **greedy)) == 0
    assert chosen(row(output=(4, 4), presence_penalty=1.1, **greedy)) == 0
    assert chosen(row(output=(), prompt=(4,), presence_penalty=1.1, **greedy)) == 4  # the prompt is not the output
    assert chosen(row(prompt=(4,), repetition_penalty=2.0, **greedy)) == 0  # 3 / 2 is below 2
    assert chosen(row(logit_bias=((3, 5.0),), **greedy)) == 3
    assert choose(LOGITS.clone()[None], [Row(Sampling(temperature=0.0), (), (), 1, banned=(4, 0))]) == [1]
    allowed = torch.tensor([False, False, True, True, False])
    assert choose(LOGITS.clone()[None], [Row(Sampling(temperature=0.0), (), (), 1, allowed=allowed)]) == [2]


def test_a_negative_logit_is_penalised_downwards() -> None:
    logits = torch.tensor([-1.0, -1.5])
    assert chosen(row(prompt=(0,), repetition_penalty=2.0, temperature=0.0), logits) == 1


def test_the_draw_depends_on_seed_and_index_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 50)
    rows = [row(key=key_of(9, i), output=(1,) * i) for i in range(6)]
    together = choose(logits.clone(), rows)
    assert together == [choose(logits[i : i + 1].clone(), [rows[i]])[0] for i in range(6)]
    assert len({key_of(9, i) for i in range(100)} | {key_of(10, i) for i in range(100)}) == 200


def test_uniform_numbers_are_uniform() -> None:
    numbers = [uniform(key_of(seed, 0), step) for seed in range(40) for step in range(50)]
    assert all(0 <= x < 1 for x in numbers)
    tenths = Counter(int(10 * x) for x in numbers)
    assert all(150 < tenths[i] < 250 for i in range(10))


def test_chances_are_the_log_softmax_with_ranks() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 20)
    expected = logits.log_softmax(-1)
    found = chances(logits, [1, 2, 3], [0, 2, 5])
    for i, c in enumerate(found):
        assert c.logprob == pytest.approx(float(expected[i, c.token]), abs=1e-5)
        assert c.rank == 1 + int((logits[i] > logits[i, c.token]).sum())
    assert [len(c.top) for c in found] == [0, 2, 5]
    assert found[2].top[0] == (int(logits[2].argmax()), pytest.approx(float(expected[2].max()), abs=1e-5))


OPTIONS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 5, 50, 2000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.4]),
    logit_bias=st.sampled_from([(), ((3, 2.0), (7, -100.0))]),
)


@given(
    options=st.lists(OPTIONS, min_size=1, max_size=4),
    vocabulary=st.sampled_from([9, 100, 1031, 5000]),
    flat=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_native_kernel_chooses_what_torch_chooses(
    options: list[Sampling], vocabulary: int, flat: bool, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(options), vocabulary, generator=draw) * (0.01 if flat else 3.0)
    words = torch.randint(0, vocabulary, (2, 40), generator=draw).tolist()
    rows = [Row(s, words[0], words[1], key_of(seed, i)) for i, s in enumerate(options)]
    assert choose(logits.clone(), rows) == choose_plainly(logits.clone(), rows)


def test_equal_logits_go_to_the_first() -> None:
    logits = torch.zeros(3, 700)
    logits[1, [300, 650]] = 1.0
    logits[2] = -torch.inf
    greedy = Row(Sampling(temperature=0.0), [], [], 0)
    assert choose(logits, [greedy] * 3) == [0, 300, 0]
