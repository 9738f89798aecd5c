"""Sum, ByHead and LowRank: what they add up to, what they refuse by name, and what prepares cannot go with."""

from __future__ import annotations

import pytest
import torch

import regard
from regard import text
from regard.composite import ByHead, LowRank, Sum
from regard.core import ranges
from regard.evaluate import weight_kind
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.parts.sparse import Entmax
from regard.protocol import NotObservable
from regard.run import compose, reference
from regard.zoo import CATALOGUE, Sizes, card

SIZES = Sizes(2, 4, 2, 7, 7, 6, 5)
NEAR = mechanism_with("near", "test", mask=masks.window(2))
FAR = mechanism_with("far", "test", mask=masks.causal(), normaliser=Entmax())


def test_heads_that_differ_are_each_their_own_attention() -> None:
    x = SIZES.inputs()
    mixed = ByHead("mixed", "test", ((slice(0, 2), NEAR), (slice(2, 4), FAR)))
    out, weights = compose.attend(mixed, x), compose.weights(mixed, x)
    for part, mechanism in mixed.parts:
        wanted_out, wanted = reference.attend(mechanism, x)
        assert torch.allclose(out[:, part], wanted_out[:, part]) and torch.allclose(weights[:, part], wanted[:, part])
    inside = ByHead("inside", "test", ((slice(0, 1), NEAR), (slice(1, 4), FAR)))
    with pytest.raises(ValueError, match="heads 1 to 4 do not match the groups of 2 query heads that share keys"):
        compose.attend(inside, x)
    one_group = ByHead("one", "test", ((slice(0, 1), NEAR), (slice(1, 2), FAR), (slice(2, 4), FAR)))
    assert torch.allclose(compose.attend(one_group, x)[:, 1], reference.attend(FAR, x)[0][:, 1])


@pytest.mark.parametrize("parts", [((slice(0, 2), NEAR),), ((slice(0, 2), NEAR), (slice(0, 4), FAR)), ()])
def test_every_head_has_one_mechanism(parts: tuple) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match="mixed must give each of 4 heads one mechanism, in order"):
        compose.attend(ByHead("mixed", "test", parts), SIZES.inputs())


def test_a_sum_is_gated_and_its_weights_add_where_the_keys_are_the_same() -> None:
    x = SIZES.inputs()
    share = torch.rand(2, 4, 7, 2, dtype=torch.float64)
    both = Sum("both", "test", (NEAR, FAR), lambda _: share)
    (near, near_weights), (far, far_weights) = (reference.attend(m, x) for m in (NEAR, FAR))
    assert torch.allclose(compose.attend(both, x), share[..., :1] * near + share[..., 1:] * far)
    wanted = share[..., :1] * near_weights + share[..., 1:] * far_weights
    assert torch.allclose(compose.weights(both, x, slice(2, 5), slice(0, 4)), wanted[:, :, 2:5, :4])
    assert torch.allclose(compose.attend(Sum("plain", "test", (NEAR, FAR)), x), near + far)
    memory, gated = card("linear_recurrent").make(), Sum("gated", "test", (NEAR, card("linear_recurrent").make()))
    assert torch.allclose(compose.attend(gated, x), near + compose.attend(memory, x))
    with pytest.raises(ValueError, match="both has 2 branches, and its gates"):
        compose.attend(Sum("both", "test", (NEAR, FAR), lambda _: share[..., :1]), x)
    with pytest.raises(ValueError, match="empty has no branches"):
        Sum("empty", "test", ())


def test_branches_with_other_keys_have_no_single_matrix() -> None:
    nsa = card("nsa")
    x = nsa.arrange(SIZES.inputs(), SIZES)
    with pytest.raises(NotObservable, match="nsa has no single matrix of weights: its branch compressed attends to"):
        compose.weights(nsa.made(SIZES), x)
    made = nsa.make(**nsa.example(SIZES))
    assert isinstance(made, Sum)
    assert compose.weights(made.branches[1], x).shape == (2, 4, 7, 7)
    with pytest.raises(ValueError, match="nsa needs a gate per branch"):
        compose.attend(made, SIZES.inputs())


def test_low_rank_refuses_masks_and_too_many_landmarks() -> None:
    with pytest.raises(ValueError, match="nystrom cannot take the mask causal: its landmarks average over the whole"):
        LowRank("nystrom", "test", mechanism_with("a", "test", mask=masks.causal()), 3)
    with pytest.raises(ValueError, match="at least 1 landmark, got 0"):
        card("nystrom").make(landmarks=0)
    x = SIZES.inputs()
    with pytest.raises(ValueError, match="9 landmarks need at least as many tokens, got 7"):
        compose.attend(card("nystrom").make(landmarks=9), x)
    with pytest.raises(ValueError, match="nystrom cannot take the mask that came with the inputs"):
        compose.attend(card("nystrom").make(landmarks=2), x.replace(allowed=ranges.full(7, 7)))


def test_slots_have_no_positions() -> None:
    """Linformer and a memory: what reads positions is refused, by name."""
    x = SIZES.inputs()
    for name in ("linformer", "external_memory"):
        made = card(name).made(SIZES)
        for part in (made.replace(mask=masks.causal()), made.replace(score=text.mechanism("alibi").score)):  # type: ignore[union-attr]
            for run in (reference.attend, compose.attend):
                with pytest.raises(ValueError, match="reads positions, and the keys here are slots, not tokens"):
                    run(part, x)  # type: ignore[operator]
    with pytest.raises(ValueError, match="these keys are slots"):
        compose.attend(card("linformer").made(SIZES), x.replace(allowed=ranges.full(7, 7)))
    with pytest.raises(ValueError, match="E projects 7 keys to slots, but there are 9"):
        compose.attend(card("linformer").made(SIZES), Sizes(2, 4, 2, 7, 9, 6, 5).inputs())


def test_a_pointer_has_weights_and_no_output() -> None:
    pointer, x = card("pointer").made(SIZES), SIZES.inputs()
    with pytest.raises(ValueError, match=r"pointer has no output: its weights are the result; ask for regard\.weights"):
        compose.attend(pointer, x)
    assert torch.allclose(compose.weights(pointer, x).sum(-1), torch.ones(2, 4, 7, dtype=torch.float64))


def test_kinds_of_weights_are_known() -> None:
    kinds = {
        "scaled_dot": "distribution",
        "off_by_one": "subunit",
        "sigmoid": "nonnegative",
        "talking_heads": "signed",
        "differential": "signed",
        "local_p": "subunit",
    }
    for name, kind in kinds.items():
        assert weight_kind(card(name).made(SIZES)) == kind, name  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_are_one_sentence() -> None:
    q, k = torch.randn(1, 4, 5, 8), torch.randn(1, 3, 5, 8)
    for call, said in (
        (lambda: regard.attention(q, k, k), "4 query heads do not divide over 3 key-value heads"),
        (lambda: regard.attention(q[0], k, k), "q must be"),
        (lambda: regard.attention(q, q, q, CATALOGUE["multi_query"].make()), "1 key-value heads were asked for"),
        (lambda: regard.attention(q, q, q, CATALOGUE["multi_head"].make(heads=3)), "3 key-value heads were asked for"),
        (lambda: regard.attention(q, q, q, card("general").make(w=torch.ones(3, 8))), "w_q of shape"),
        (
            lambda: regard.attention(q[:, :3], k, k, card("differential").make(share=0.1), backend="gpu"),
            "no backend 'gpu'",
        ),
        (
            lambda: regard.attention(q[..., :7], q[..., :7], q, card("differential").make(share=0.1)),
            "does not divide into 2",
        ),
        (lambda: card("scaled"), "no mechanism 'scaled'; did you mean 'scaled_dot'"),
        (lambda: card("glimpse").make(), "glimpse is not a mechanism: a context weights features"),
        (lambda: card("reinforce").make(), "a mechanism returns no log-probability; it belongs to nn"),
        (lambda: card("adaptive_span").make(z=torch.ones(2), ramp=0.0), "the ramp is above 0"),
        (lambda: card("moba").make(size=0, count=1), "both must be at least 1"),
        (lambda: card("local_p").make(w=torch.ones(4, 2), v=torch.ones(2), reach=0), "at least 1 token to either side"),
        (lambda: card("bigbird").make(size=2, length=8, window=2), "an odd number of blocks"),
        (lambda: card("softcap").make(cap=0.0), "a cap is above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_a_learned_table_of_positions_ends() -> None:
    q = torch.randn(1, 1, 5, 4)
    with pytest.raises(ValueError, match="position 4 lies beyond the table's 3 positions"):
        regard.attention(q, q, q, card("learned_positions").make(table=torch.randn(3, 4)))


def test_expanded_scores_that_shift_rows_do_not_lower_under_a_sink() -> None:
    from regard import core
    from regard.lower import lower
    from regard.parts.normalisers import Softmax

    made = card("gaussian").make(gamma=0.5)
    refused = lower(made.replace(normaliser=Softmax(0.0)), SIZES.inputs())  # type: ignore[union-attr]
    assert isinstance(refused, core.Refusal) and "a softmax with a sink would notice" in refused.reason
