"""`regard see --faithful`: evidence over several inputs, heads beside the damage of switching them off, a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from regard.errors import UserError
from regard.hf.attach import attach
from regard.hf.load import Loaded
from regard.swap.edits import off
from regard.swap.evidence import SHARES, Evidence, evidence

TOKENS = ("#15807a", "#7a3fa0")  # colours of what ranks tokens alone: the answer's row, what is received
LONGEST = 256  # tokens of an input: every edge of every head is ranked


@dataclass(frozen=True)
class Ranked:
    """One ranking over all inputs: means, and the spread between inputs (standard deviation)."""

    ranking: str
    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    comprehensiveness: float
    comprehensiveness_spread: float
    sufficiency: float
    sufficiency_spread: float


@dataclass(frozen=True)
class Faithful:
    """inputs: how many. whole, nothing: mean log p of the answers with all edges and with none. rows: the rankings.
    damage: by "layer.head", how much log p of the answer its absence costs. agreement: by statistic, the rank
    correlation of a head's number with that damage."""

    inputs: int
    whole: float
    nothing: float
    rows: tuple[Ranked, ...]
    damage: dict[str, float]
    agreement: dict[str, float]

    @property
    def sentence(self) -> str:
        """What it says, plainly."""
        by = {row.ranking: row for row in self.rows}
        if self.whole - self.nothing < 0.05:
            return f"Hiding every edge costs {self.whole - self.nothing:.2f} nats: attention explains nothing here."
        shown = by["attention"]
        beaten = {name: self._exceeds(shown, by[name]) for name in ("random", "recency")}
        costs = f"{shown.comprehensiveness:.2f} of all there is to lose"
        others = ", ".join(f"{by[name].comprehensiveness:.2f} for {name} order" for name in beaten)
        if not any(beaten.values()):
            return (
                f"The strongest links matter no more than others ({costs}; {others}): attention explains nothing here."
            )
        if not beaten["recency"]:
            return f"The strongest links matter, but no more than the nearest ones ({costs}; {others})."
        if not beaten["random"]:
            return f"The strongest links matter no more than random ones ({costs}; {others})."
        return f"The strongest links matter more than others: hiding them costs {costs} ({others})."

    def _exceeds(self, one: Ranked, other: Ranked) -> bool:
        """Whether a ranking finds more than another, by more than the standard error of their difference."""
        spread = (one.comprehensiveness_spread**2 + other.comprehensiveness_spread**2) ** 0.5
        return one.comprehensiveness - other.comprehensiveness > spread / max(self.inputs, 1) ** 0.5

    def json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            **{name: value for name, value in vars(self).items() if name != "rows"},
            "shares": SHARES,
            "rows": [vars(row) for row in self.rows],
            "sentence": self.sentence,
        }

    def lines(self) -> list[str]:
        """A table for the terminal."""
        lines = [
            f"{self.inputs} inputs; log p of the answer: {self.whole:.3f} with all edges, {self.nothing:.3f} with none"
        ]
        lines.append(
            "ranked by                     comprehensiveness     sufficiency      log p without the first 1 % … 75 %"
        )
        for row in self.rows:
            curve = " ".join(f"{value:.2f}" for value in row.deletion)
            lines.append(
                f"{row.ranking:<29} {row.comprehensiveness:6.2f} ± {row.comprehensiveness_spread:.2f}       "
                f"{row.sufficiency:6.2f} ± {row.sufficiency_spread:.2f}    {curve}"
            )
        worst = sorted(self.damage.items(), key=lambda item: -item[1])[:8]
        lines.append("heads whose absence costs most: " + ", ".join(f"{head} {lost:+.2f}" for head, lost in worst))
        lines.append(
            "a head's number and that cost, rank correlation: "
            + ", ".join(f"{name} {value:+.2f}" for name, value in self.agreement.items())
        )
        return [*lines, self.sentence]


def faithful(
    loaded: Loaded, texts: Sequence[str], *, seed: int = 0, report: Callable[[str], None] = lambda line: None
) -> Faithful:
    """Evidence over texts, the answer of each the model's own next token. Raises UserError for texts that do not
    fit."""
    if loaded.tokenizer is None or not texts:
        raise UserError("evidence needs a language model with its tokenizer, and a text")
    model, found, damages, numbers = loaded.model, [], [], []
    for place, text in enumerate(texts):
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"].to(model.device)
        if not 3 <= ids.shape[1] <= LONGEST:
            raise UserError(
                f"evidence ranks every edge of 3 to {LONGEST} tokens, and input {place + 1} has {ids.shape[1]}"
            )
        report(f"input {place + 1} of {len(texts)}: {ids.shape[1]} tokens")
        found.append(evidence(model, ids, seed=seed + place))
        lost, by_name = _heads(model, ids)
        damages.append(lost)
        numbers.append(by_name)
    damage = {name: mean(each[name] for each in damages) for name in damages[0]}
    return Faithful(
        inputs=len(texts),
        whole=mean(each.whole for each in found),
        nothing=mean(each.nothing for each in found),
        rows=tuple(_ranked(found, at) for at in range(len(found[0].curves))),
        damage=damage,
        agreement=_agreement(damage, numbers),
    )


def _ranked(found: Sequence[Evidence], at: int) -> Ranked:
    curves = [each.curves[at] for each in found]
    whole, alone = ([getattr(c, name) for c in curves] for name in ("comprehensiveness", "sufficiency"))
    return Ranked(
        curves[0].ranking,
        tuple(mean(values) for values in zip(*(c.deletion for c in curves), strict=True)),
        tuple(mean(values) for values in zip(*(c.insertion for c in curves), strict=True)),
        mean(whole),
        stdev(whole) if len(whole) > 1 else 0.0,
        mean(alone),
        stdev(alone) if len(alone) > 1 else 0.0,
    )


@torch.no_grad()
def _heads(model: nn.Module, ids: Tensor) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """(what each head's absence costs, each statistic's number of each head), by "layer.head"."""
    with attach(model) as trace:
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1)
    answer = int(logits.argmax())
    layers = [layer for layer in trace.layers if layer.kind == "self"]
    heads = [(layer, place, head) for layer in layers for place, head in enumerate(layer.heads)]
    numbers: dict[str, dict[str, float]] = {}
    lost = {}
    for layer, place, head in heads:
        name = f"{layer.index}.{head}"
        with attach(model, watch=(), edit=[off([(layer.index, head)])]):
            without = model(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1)
        lost[name] = float(logits[answer] - without[answer])
        for label, values in layer.summaries.items():
            if values.ndim == 2:
                numbers.setdefault(label, {})[name] = float(values[0, place])
    return lost, numbers


def _agreement(damage: dict[str, float], numbers: Sequence[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Spearman's correlation of each statistic's numbers, averaged over inputs, with the damage."""
    lost = torch.tensor(list(damage.values()), dtype=torch.float64)
    found = {}
    for label in numbers[0]:
        shared = [mean(each[label][name] for each in numbers) for name in damage]
        found[label] = _rank_correlation(torch.tensor(shared, dtype=torch.float64), lost)
    return found


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    both = torch.corrcoef(ranks)[0, 1]
    return 0.0 if bool(both.isnan()) else float(both)


def picture(result: Faithful, kind: str = "png") -> bytes:
    """The curves, and each head's damage, as the bytes of a file."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.0), layout="constrained")
    panels = figure.subplots(1, 3)
    colors = {"attention": "#0b5cad", "gradient × attention": "#b3541e", "recency": "#777777", "random": "#b9b9b9"}
    percent = [100 * share for share in SHARES]
    for axes, name in zip(panels, ("deletion", "insertion"), strict=False):
        for row in result.rows:
            line = "--" if row.ranking.startswith("tokens") else "-"
            color = colors.get(row.ranking.removeprefix("tokens: "), TOKENS[row.ranking == "tokens: received"])
            axes.plot(percent, getattr(row, name), line, color=color, marker="o", markersize=3, label=row.ranking)
        axes.axhline(result.whole, color="#999999", linewidth=0.8, linestyle=":")
        axes.axhline(result.nothing, color="#999999", linewidth=0.8, linestyle="--")
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.set_xlabel("edges hidden, %" if name == "deletion" else "edges shown alone, %", fontsize=8)
        axes.set_ylabel("log p of the answer", fontsize=8)
        axes.tick_params(labelsize=7)
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=7, frameon=False, handlelength=3.5)
    names = sorted(result.damage, key=lambda name: -result.damage[name])[:16]
    panels[2].barh(names[::-1], [result.damage[name] for name in names[::-1]], color="#0b5cad")
    panels[2].set_xlabel("log p lost without the head", fontsize=8)
    panels[2].tick_params(labelsize=7)
    figure.suptitle(result.sentence, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130)
    return buffer.getvalue()
