"""`regard train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from regard.cli.printing import progress, result_of
from regard.errors import UserError


def train(
    out: Annotated[Path, typer.Argument(help="Directory of the model; a training that it holds goes on.")],
    text: Annotated[list[Path], typer.Argument(help="Two parallel files, one tsv, or plain text for a model of it.")],
    task: Annotated[str, typer.Option(help="translate, classify, look, caption, listen, answer or summarise.")] = (
        "translate"
    ),
    preset: Annotated[str, typer.Option(help="rnn, bahdanau, luong, transformer, or lm for plain text.")] = "bahdanau",
    valid: Annotated[list[Path] | None, typer.Option(help="Held-out text, as TEXT; repeat for its two files.")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="Examples to score the kept model on at the end.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Directory or hub name of a model to go on from.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train so long now; the next call goes on from there.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train up to this step now.")] = None,
    mechanism: Annotated[str | None, typer.Option(help="What surrounds the score, such as 'entmax(1.5)'.")] = None,
    attention: Annotated[str | None, typer.Option(help="Score of a recurrent preset: general, dot, local_m …")] = None,
    cell: Annotated[str, typer.Option(help="gru or lstm.")] = "gru",
    width: Annotated[int | None, typer.Option(help="Of words, states and layers.")] = None,
    layers: Annotated[int | None, typer.Option(help="Of encoder and decoder; a recurrent one's encoder.")] = None,
    heads: Annotated[int, typer.Option(help="Of a Transformer.")] = 4,
    feed_forward: Annotated[int, typer.Option(help="Hidden width of a Transformer's networks; 0: twice WIDTH.")] = 0,
    dropout: Annotated[float | None, typer.Option(help="Share of activations dropped.")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Pieces of the tokenizer, shared by both sides.")] = None,
    tokenizer: Annotated[str, typer.Option(help="bpe or unigram.")] = "bpe",
    tokens: Annotated[int | None, typer.Option(help="Padded tokens of a batch's longer side.")] = None,
    rate: Annotated[float, typer.Option(help="Adam's peak; 0: the preset's.")] = 0.0,
    warmup: Annotated[int | None, typer.Option(help="Steps until the peak.")] = None,
    smoothing: Annotated[float | None, typer.Option(help="Of labels.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient; 0: none.")] = None,
    average: Annotated[float | None, typer.Option(help="Decay of the running mean of the weights; 0: none.")] = None,
    evaluate: Annotated[int, typer.Option(help="Steps between evaluations; 0: every epoch.")] = 0,
    patience: Annotated[int | None, typer.Option(help="Evaluations without a better score before it ends.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most.")] = None,
    limit: Annotated[int | None, typer.Option(help="Tokens of a sentence; longer ones are cut, and counted.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 1,
    precision: Annotated[str, typer.Option(help="no (float32) or bf16.")] = "no",
    mask: Annotated[float | None, typer.Option(help="Share of words or frames that a task hides.")] = None,
    penalty: Annotated[float | None, typer.Option(help="λ of a captioner's doubly stochastic attention.")] = None,
    repeats: Annotated[float, typer.Option(help="Share of a language model's rows that say a passage twice.")] = 0.25,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a translator on parallel text, a language model on plain text, or a model of another task on its examples;
    stop it at will, call again to go on."""
    given = dict(locals())
    result = _translation(given) if task == "translate" else _task(given)
    result_of(result, as_json, lambda found: [[name, str(value)] for name, value in found.items()])


def _translation(given: dict[str, Any]) -> dict[str, Any]:
    from regard.seq2seq.recipe import Recipe
    from regard.seq2seq.training import run

    for name in ("test", "mask", "penalty"):
        if given[name]:
            raise UserError(f"--{name} belongs to a task other than translation; leave it out")
    names = [name for name in Recipe.__dataclass_fields__ if name in given]
    recipe = Recipe(**{name: given[name] for name in names if given[name] is not None})
    return run(recipe, given["out"], given["text"], given["valid"] or [], given["minutes"], given["steps"], progress)


def _task(given: dict[str, Any]) -> dict[str, Any]:
    from regard.tasks.recipe import TaskRecipe, recipe_of
    from regard.tasks.run import run

    names = [name for name in TaskRecipe.__dataclass_fields__ if name in given and name not in ("task", "preset")]
    # a number that is 0 unless asked for leaves the choice to the task
    unsaid = {"rate": 0.0, "feed_forward": 0}
    asked = {name: given[name] for name in names if given[name] is not None and given[name] != unsaid.get(name)}
    recipe, ends = recipe_of(given["task"], asked), {"minutes": given["minutes"], "steps": given["steps"]}
    held_out, test = given["valid"] or [], given["test"] or []
    return run(recipe, given["out"], given["text"], held_out, test, **ends, note=progress)
