"""What enrols a mechanism in every shared test: a row per card of the catalogue.

A row stands here, or as ROW in a file of tests/zoo/rows/, where it is found by its file: with its oracle beside it.
oracle: an independent dense statement of the paper's equation, (Inputs, **arguments) -> (output, weights).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from regard.inputs import Inputs
from regard.zoo import Card, Sizes, card
from tests.zoo import oracles


@dataclass(frozen=True)
class Row:
    """One mechanism. What it does not take: grouped heads, other queries than keys, padding, a mask as data.

    smooth: gradients exist everywhere and equal finite differences. lowers: it runs on the fast backends. linear: its
    memory grows as the number of tokens, seen at `lengths`, where a row's intervals no longer grow in number.
    """

    name: str
    oracle: Callable[..., oracles.Found]
    grouped: bool = True
    cross: bool = True
    padding: bool = True
    allowed: bool = True
    smooth: bool = True
    lowers: bool = False
    linear: bool = True
    lengths: tuple[int, int] = (200, 400)
    tolerance32: float = 1e-5

    @property
    def card(self) -> Card:
        return card(self.name)

    def sizes(self) -> list[Sizes]:
        """Awkward sizes that this mechanism takes: odd ones, grouped heads, other keys than queries, a single token."""
        groups = 2 if self.grouped else 4
        found = [Sizes(2, 4, groups, 7, 7, 6, 5), Sizes(1, 3, 3, 1, 1, 4, 3), Sizes(2, 3, 3, 13, 13, 4, 4)]
        return [*found, Sizes(2, 4, groups, 5, 9, 4, 3)] if self.cross else found

    def example(self, sizes: Sizes, peak: float = 1.0) -> tuple[Inputs, dict[str, Any]]:
        """Inputs, with queries `peak` times as large, and arguments."""
        x = sizes.inputs()
        x = x.replace(q=x.q * peak)
        return self.card.arrange(x, sizes), self.card.example(sizes)


LISTED = (
    Row("scaled_dot", oracles.scaled_dot, lowers=True),
    Row("dot", oracles.dot, lowers=True),
    Row("general", oracles.general, lowers=True),
    Row("additive", oracles.additive),
    Row("concat", oracles.concat),
    Row("cosine", oracles.cosine, lowers=True),
    Row("qk_norm", oracles.qk_norm, lowers=True),
    Row("gaussian", oracles.gaussian, lowers=True),
    Row("softcap", oracles.softcap, lowers=True),
    Row("shaw", oracles.shaw),
    Row("transformer_xl", oracles.transformer_xl),
    Row("simplified", oracles.simplified, grouped=False, cross=False, lowers=True),
    Row("trainable", oracles.trainable, lowers=True),
    Row("causal", oracles.causal, lowers=True),
    Row("multi_head", oracles.scaled_dot, grouped=False, lowers=True),
    Row("cross", oracles.scaled_dot, lowers=True),
    Row("multi_query", oracles.scaled_dot, lowers=True),
    Row("grouped_query", oracles.scaled_dot, lowers=True),
    Row("latent", oracles.latent, lowers=True),
    Row("external_memory", oracles.external_memory, padding=False, allowed=False, lowers=True),
    Row("pointer", oracles.pointer),
    Row("full", oracles.scaled_dot, lowers=True),
    Row("padding", oracles.scaled_dot, lowers=True),
    Row("prefix", oracles.prefix, lowers=True),
    Row("document", oracles.document, lowers=True),
    Row("block_sparse", oracles.block_sparse, lowers=True),
    Row("window", oracles.window, lowers=True),
    Row("dilated", oracles.dilated, lowers=True),
    Row("sinks", oracles.sinks, lowers=True),
    Row("streaming", oracles.streaming, lowers=True),
    Row("longformer", oracles.longformer, lowers=True),
    Row("bigbird", oracles.bigbird, lowers=True),
    Row("strided", oracles.strided, lowers=True),
    Row("fixed", oracles.fixed, lowers=True),
    Row("moba", oracles.moba, lowers=True),
    Row("quest", oracles.quest, lowers=True),
    Row("nsa", oracles.nsa, allowed=False),
    Row("reformer", oracles.reformer, grouped=False, cross=False, lowers=True, linear=False),
    Row("off_by_one", oracles.off_by_one, lowers=True),
    Row("learned_sink", oracles.learned_sink, lowers=True),
    Row("topk", oracles.topk),
    Row("temperature", oracles.temperature, lowers=True),
    Row("sigmoid", oracles.sigmoid),
    Row("relu", oracles.relu),
    Row("sparsemax", oracles.sparsemax),
    Row("entmax", oracles.entmax),
    Row("adaptively_sparse", oracles.adaptively_sparse),
    Row("hard", oracles.hard),
    Row("gumbel", oracles.gumbel, smooth=False),
    Row("adaptive_span", oracles.adaptive_span, lowers=True),
    Row("local_m", oracles.local_m, lowers=True),
    Row("local_p", oracles.local_p),
    Row("spatial_soft", oracles.additive),
    Row("spatial_hard", oracles.spatial_hard),
    Row("linformer", oracles.linformer, allowed=False, lowers=True),
    Row("nystrom", oracles.nystrom, allowed=False),
    Row("linear", oracles.linear),
    Row("linear_recurrent", oracles.linear_recurrent, cross=False, allowed=False),
    Row("performer", oracles.performer),
    Row("performer_recurrent", oracles.performer_recurrent, cross=False, allowed=False),
    Row("retention", oracles.retention, cross=False, allowed=False),
    Row("gla", oracles.gla, cross=False, allowed=False),
    Row("delta", oracles.gated_delta, cross=False, allowed=False),
    Row("gated_delta", oracles.gated_delta, cross=False, allowed=False),
    Row("kda", oracles.kda, cross=False, allowed=False),
    Row("neural_memory", oracles.neural_memory, cross=False, allowed=False),
    Row("differential", oracles.differential),
    Row("talking_heads", oracles.talking_heads),
    Row("masked", oracles.joined_masks, lowers=True),
    Row("per_head", oracles.per_head),
    Row("sinusoidal", oracles.sinusoidal, lowers=True),
    Row("learned_positions", oracles.learned_positions, lowers=True),
    Row("rotary", oracles.rotary, lowers=True),
    Row("alibi", oracles.alibi, lowers=True),
    Row("t5", oracles.t5, lowers=True),
    Row("rotary_tables", oracles.rotary_tables, lowers=True),
    Row("forgetting", oracles.forgetting),
    Row("trilinear", oracles.trilinear, lowers=True),
    Row("normmax", oracles.normmax),
)


def discovered(folder: Path = Path(__file__).parent / "zoo" / "rows") -> tuple[Row, ...]:
    """The rows of files of their own."""
    modules = [import_module(f"tests.zoo.rows.{path.stem}") for path in sorted(folder.glob("[a-z]*.py"))]
    return tuple(module.ROW for module in modules)


ROWS = (*LISTED, *discovered())
