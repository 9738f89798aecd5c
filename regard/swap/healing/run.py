"""heal: attention transfer layer by layer, then the whole by matrices of low rank; stopped and gone on with at will."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from regard.errors import UserError
from regard.hf.load import Loaded
from regard.hf.plan import Plan
from regard.swap.healing import checkpoint
from regard.swap.healing.recipe import Recipe
from regard.swap.healing.starts import start_near
from regard.swap.healing.transfer import errors
from regard.swap.staying import NAME, plan_held
from regard.swap.texts import blocks_of

Report = Callable[[str], None]
SAVE_SECONDS = 60.0
TOLD_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of steps with its own loss. names: what is trained; last: the step that ends it, counted from the
    healing's first; begin: where it begins."""

    title: str
    names: dict[str, nn.Parameter]
    loss: Callable[[Tensor], Tensor]
    rate: float
    begin: int
    last: int


def heal(
    model: PreTrainedModel,
    text: str,
    *,
    tokenizer: Any,
    recipe: Recipe | None = None,
    folder: Path | None = None,
    until: int | None = None,
    report: Report = lambda line: None,
) -> PreTrainedModel:
    """Train a swapped model on a text until it predicts as before, and give it back, in eval mode.

    First each layer's feature maps and gates learn the old attention's output (where the mechanism has any), then
    every linear layer learns a change of low rank, which is added to its weights in the end. folder: a checkpoint lies
    there, and a healing that was stopped goes on from it. until: stop at this step, to go on later.

    Raises UserError for a model that was not swapped, a text that is too short, a missing peft, and a folder of
    another healing.
    """
    recipe = Recipe() if recipe is None else recipe
    plan = plan_held(model)
    _check_peft()
    rows = blocks_of(Loaded(model, tokenizer), text, recipe.context)
    model.eval()
    healing = _Healing(model, plan, rows.to(model.device), recipe, folder, report)
    healing.run(recipe.steps if until is None else min(until, recipe.steps))
    return model


class _Healing:
    """One run: the objects that change from step to step."""

    def __init__(
        self, model: PreTrainedModel, plan: Plan, rows: Tensor, recipe: Recipe, folder: Path | None, report: Report
    ) -> None:
        self.model, self.plan, self.rows, self.recipe = model, plan, rows, recipe
        self.folder, self.report = folder, report
        self.modules: nn.ModuleDict = getattr(model, NAME, nn.ModuleDict())
        digest = hashlib.sha256(rows.cpu().numpy().tobytes()).hexdigest()[:16]
        self.about = json.dumps([str(model.config.regard_swap), digest, recipe.json()])
        kept = None if folder is None else checkpoint.load(folder, self.about)
        self.step, self.tensors = (0, {}) if kept is None else kept

    def run(self, last: int) -> None:
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        own = {f"{NAME}.{name}": p for name, p in self.modules.named_parameters()}
        taught = round(self.recipe.steps * self.recipe.transfer) if own else 0
        if not own:
            self.report("nothing to transfer: the mechanism has no parameters, so all steps train the whole")
        for parameter in own.values():
            parameter.requires_grad_(True)
        if own and self.step == 0:
            near = start_near(self.model, self.plan, self.modules, self.batch(0)[:4])
            self.report(f"feature maps start at an error of {_said(near)} of the old output")
        first = Part("transfer", own, self._transfer_loss, self.recipe.transfer_rate, 0, taught)
        self._train(first, last)
        if last > taught:
            self._whole(own, taught, last)

    def _whole(self, own: dict[str, nn.Parameter], begin: int, last: int) -> None:
        """Train every linear layer's change of low rank and the mechanism's parameters; add the changes up."""
        wrapped, low_rank = _low_rank(self.model, self.recipe)
        names = {**own, **low_rank}
        for parameter in names.values():
            parameter.requires_grad_(True)
        part = Part("whole", names, self._text_loss, self.recipe.rate, begin, self.recipe.steps)
        self._train(part, last)
        if last == self.recipe.steps:
            wrapped.merge_and_unload()
        else:
            wrapped.unload()

    def _train(self, part: Part, last: int) -> None:
        last = min(last, part.last)
        parameters = list(part.names.values())
        if not parameters:
            return
        optimizer = torch.optim.Adam(parameters, lr=part.rate, betas=(0.9, 0.98))
        checkpoint.restore(optimizer, part.names, self.tensors)
        if self.step >= last:
            return
        told = saved = time.monotonic()
        while self.step < last:
            left = (part.last - self.step) / max(part.last - part.begin, 1)
            for group in optimizer.param_groups:
                group["lr"] = part.rate * min(left, (self.step - part.begin + 1) / 10)
            loss = part.loss(self.batch(self.step))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.step += 1
            now = time.monotonic()
            if now - told > TOLD_SECONDS or self.step == last:
                self.report(f"{part.title}: step {self.step} of {self.recipe.steps}, loss {float(loss.detach()):.4f}")
                told = now
            if now - saved > SAVE_SECONDS:
                self._save(optimizer, part)
                saved = now
        self._save(optimizer, part)

    def _save(self, optimizer: torch.optim.Optimizer, part: Part) -> None:
        """Keep where this stands. A part's moments are its own: the next begins with none."""
        self.tensors = dict(part.names) if self.step == part.last else {}
        if self.folder is not None:
            ended = self.step == part.last and part.last < self.recipe.steps
            tensors = part.names if ended else checkpoint.optimizer_tensors(optimizer, part.names)
            checkpoint.save(self.folder, {"recipe": self.about, "step": self.step}, tensors)

    def batch(self, step: int) -> Tensor:
        """The rows of a step, drawn from seed and step alone."""
        draw = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        count = max(self.recipe.tokens // self.rows.shape[1], 1)
        return self.rows[torch.randint(len(self.rows), (count,), generator=draw).to(self.rows.device)]

    def _transfer_loss(self, ids: Tensor) -> Tensor:
        return torch.stack(list(errors(self.model, self.plan, ids).values())).sum()

    def _text_loss(self, ids: Tensor) -> Tensor:
        loss: Tensor = self.model(input_ids=ids, labels=ids, use_cache=False).loss
        return loss


def _low_rank(model: PreTrainedModel, recipe: Recipe) -> tuple[Any, dict[str, nn.Parameter]]:
    """The model with matrices of low rank beside every linear layer but the last, and these by name."""
    import peft

    torch.manual_seed(recipe.seed)
    config = peft.LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules="all-linear", lora_dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped: Any = peft.get_peft_model(model, config)
    return wrapped, {name: p for name, p in wrapped.named_parameters() if "lora_" in name}


def _check_peft() -> None:
    try:
        import peft  # noqa: F401
    except ImportError:
        raise UserError(
            "healing trains matrices of low rank with peft, which is missing; pip install 'regard[train]'"
        ) from None


def _said(near: dict[int, float]) -> str:
    return ", ".join(f"{error:.3f}" for error in near.values()) or "–"
