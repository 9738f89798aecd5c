"""compare_healed: each mechanism in a copy of the model, before its healing and after."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import transformers as tf
from torch import Tensor

from regard.errors import UserError
from regard.hf.load import Loaded
from regard.hf.plan import NOTHING, plan_of
from regard.swap.compare import NEW_TOKENS, described, loaded_of
from regard.swap.cost import OWN, costs
from regard.swap.healing.recipe import Recipe
from regard.swap.healing.run import heal
from regard.swap.parameters import read
from regard.swap.quality import qualities, qualities_beside
from regard.swap.records import Comparison, Row
from regard.swap.speed import speed
from regard.swap.staying import plan_held, swap
from regard.swap.texts import blocks_of, check_window


def compare_healed(
    model: tf.PreTrainedModel | Loaded | str | Path | None,
    mechanisms: Sequence[str],
    text: str,
    heal_text: str,
    recipe: Recipe,
    *,
    tokenizer: Any = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    context: int | None = None,
    blocks: int | None = None,
    folder: Path | None = None,
    time: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """The model's own attention, and each mechanism swapped for good, before and after healing on `heal_text`.

    text: what is predicted, held out from the healing. folder: takes a directory for each mechanism, which holds the
    healed model and where its healing stands; the same call goes on. The other arguments are those of `compare`.

    Raises UserError for a text that is healed on and predicted as well, and for what neither part can do.
    """
    loaded = loaded_of(model, tokenizer)
    plans = [plan_of(each, layers, heads, read) for each in mechanisms]
    ids = blocks_of(loaded, text, context, blocks)
    for plan in plans:
        check_window(plan, ids.shape[1])
    if not plans or text.strip()[:2000] in heal_text:
        raise UserError("healing takes a mechanism, and a text of its own: the one that is predicted must be held out")
    source = loaded.model.eval()
    own = Row("own", qualities(source, [NOTHING], ids)[0], costs(source, [OWN], ids[0])[0], _speed(source, ids, time))
    rows = [own]
    for plan in plans:
        changed = swap(copy.deepcopy(source), plan)
        rows.append(_row(str(plan), source, changed, ids, time))
        report(f"{plan}: {rows[-1].quality.bits_per_token:.3f} bits per token; healing")
        path = None if folder is None else folder / re.sub(r"[^\w.-]+", "_", str(plan)).strip("_")
        heal(changed, heal_text, tokenizer=loaded.tokenizer, recipe=recipe, folder=path, report=report)
        rows.append(_row(f"{plan}, healed", source, changed, ids, time))
        if path is not None:
            changed.save_pretrained(path)
            loaded.tokenizer.save_pretrained(path)
            report(f"wrote {path}")
    return described(loaded, ids, tuple(rows))


def _row(name: str, source: tf.PreTrainedModel, changed: tf.PreTrainedModel, ids: Tensor, time: bool) -> Row:
    """A swapped model beside the one that it was."""
    plan = plan_held(changed)
    quality = qualities_beside(source, changed, ids)
    cost = costs(changed, [OWN, plan], ids[0])[1]
    return Row(name, quality, cost, _speed(changed, ids, time))


def _speed(model: tf.PreTrainedModel, ids: Tensor, time: bool) -> Any:
    return speed(model, NOTHING, ids[0], min(NEW_TOKENS, ids.shape[1] - 1)) if time else None
