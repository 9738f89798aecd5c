"""`regard train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.printing import progress, result_of


def train(
    out: Annotated[Path, typer.Argument(help="Directory of the model; a training that it holds goes on.")],
    text: Annotated[list[Path], typer.Argument(help="Two parallel files, one tsv, or plain text for a model of it.")],
    preset: Annotated[str, typer.Option(help="rnn, bahdanau, luong, transformer, or lm for plain text.")] = "bahdanau",
    valid: Annotated[list[Path] | None, typer.Option(help="Held-out text, as TEXT; repeat for its two files.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Directory or hub name of a model to go on from.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train so long now; the next call goes on from there.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train up to this step now.")] = None,
    mechanism: Annotated[str | None, typer.Option(help="What surrounds the score, such as 'entmax(1.5)'.")] = None,
    attention: Annotated[str | None, typer.Option(help="Score of a recurrent preset: general, dot, local_m …")] = None,
    cell: Annotated[str, typer.Option(help="gru or lstm.")] = "gru",
    width: Annotated[int, typer.Option(help="Of words, states and layers.")] = 256,
    layers: Annotated[int | None, typer.Option(help="Of encoder and decoder; a recurrent one's encoder.")] = None,
    heads: Annotated[int, typer.Option(help="Of a Transformer.")] = 4,
    feed_forward: Annotated[int, typer.Option(help="Hidden width of a Transformer's networks; 0: twice WIDTH.")] = 0,
    dropout: Annotated[float, typer.Option(help="Share of activations dropped.")] = 0.3,
    vocabulary: Annotated[int, typer.Option(help="Pieces of the tokenizer, shared by both sides.")] = 8000,
    tokenizer: Annotated[str, typer.Option(help="bpe or unigram.")] = "bpe",
    tokens: Annotated[int, typer.Option(help="Padded tokens of a batch's longer side.")] = 4096,
    rate: Annotated[float, typer.Option(help="Adam's peak; 0: the preset's.")] = 0.0,
    warmup: Annotated[int, typer.Option(help="Steps until the peak.")] = 800,
    smoothing: Annotated[float, typer.Option(help="Of labels.")] = 0.1,
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient; 0: none.")] = 1.0,
    average: Annotated[float, typer.Option(help="Decay of the running mean of the weights; 0: none.")] = 0.998,
    evaluate: Annotated[int, typer.Option(help="Steps between evaluations; 0: every epoch.")] = 0,
    patience: Annotated[int, typer.Option(help="Evaluations without a better score before it ends.")] = 8,
    epochs: Annotated[int, typer.Option(help="At most.")] = 60,
    limit: Annotated[int, typer.Option(help="Tokens of a sentence; longer ones are cut, and counted.")] = 256,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 1,
    precision: Annotated[str, typer.Option(help="no (float32) or bf16.")] = "no",
    repeats: Annotated[float, typer.Option(help="Share of a language model's rows that say a passage twice.")] = 0.25,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a translator on parallel text, or a language model on plain text; stop it at will, call again to go on."""
    from regard.seq2seq.recipe import Recipe
    from regard.seq2seq.training import run

    given = dict(locals())
    names = [name for name in Recipe.__dataclass_fields__ if name in given]
    recipe = Recipe(**{name: given[name] for name in names if given[name] is not None})
    result = run(recipe, out, text, valid or [], minutes, steps, progress)
    result_of(result, as_json, lambda found: [[name, str(value)] for name, value in found.items()])
