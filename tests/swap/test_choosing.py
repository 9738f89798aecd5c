"""Choosing: the plan loses no more than its budget, by the measure of compare, and reads as swap reads it."""

from __future__ import annotations

import pytest

import regard
from regard.errors import UserError
from regard.hf.plan import plan_of
from regard.swap.choosing import choose_plan
from regard.swap.compare import compare
from tests.swap.test_compare import TEXT

BUDGET = 0.3  # bits per token


def test_a_plan_keeps_to_its_budget_and_takes_the_least_damaging_first() -> None:
    loaded = regard.load()
    options = {"context": 64, "blocks": 1}
    chosen = choose_plan(loaded, "linear & causal", TEXT, BUDGET, **options)
    compared = compare(loaded, [chosen.plan, "linear & causal"], TEXT, time=False, **options)
    own, plan, everywhere = (row.quality.bits_per_token for row in compared.rows)
    assert chosen.own == pytest.approx(own, abs=1e-4) and chosen.bits == pytest.approx(plan, abs=1e-4)
    assert plan - own <= BUDGET + 1e-4 < everywhere - own
    assert 0 < chosen.taken < 1
    layers = {name: lost for name, lost in chosen.damage.items() if name.startswith("layer")}
    assert len(layers) == loaded.model.config.num_hidden_layers
    least = min(layers, key=lambda name: layers[name])
    if layers[least] <= BUDGET:
        taken = plan_of(chosen.plan)
        number = int(least.split()[1])
        assert all(taken.of_head(number, head) is not None for head in range(loaded.model.config.num_attention_heads))


@pytest.mark.parametrize(
    ("mechanism", "budget", "said"),
    [("window(8)", 0.0, "above 0"), ("0: window(8)", 0.1, "is a plan already"), ("window(99)", 0.1, "hides nothing")],
)
def test_a_mistake_is_one_sentence(mechanism: str, budget: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        choose_plan(None, mechanism, TEXT, budget, context=64, blocks=1)
