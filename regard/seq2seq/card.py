"""The card of a trained model: what it is, how it came to be, how good it is."""

from __future__ import annotations

from typing import Any

from regard.seq2seq.recipe import Recipe

NAMES = {
    "rnn": "recurrent encoder–decoder without attention",
    "bahdanau": "recurrent encoder–decoder with additive attention",
    "luong": "recurrent encoder–decoder with multiplicative attention",
    "transformer": "Transformer encoder–decoder",
    "lm": "causal language model",
}


def translator_card(recipe: Recipe, model: Any, metrics: dict[str, Any]) -> str:
    """README.md of a translator."""
    count = sum(parameter.numel() for parameter in model.parameters())
    last = metrics["history"][-1] if metrics["history"] else {}
    kind = f"model of {recipe.start}, trained on" if recipe.start else NAMES[recipe.preset]
    return (
        "---\nlibrary_name: regard\npipeline_tag: translation\n---\n\n"
        f"# A {kind}\n\n"
        f"Trained by `regard train` on {metrics['pairs']:,} sentence pairs. {count:,} parameters, "
        f"{recipe.tokenizer} vocabulary of at most {recipe.vocabulary:,} pieces shared by both sides, seed "
        f"{recipe.seed}.\n\n"
        f"Best BLEU on the held-out pairs, greedy: {metrics['best']:.2f}. "
        f"Training until then: {last.get('step', 0):,} steps, {last.get('minutes', 0)} minutes.\n\n"
        'Use: `regard translate DIRECTORY "a sentence"`. The recipe and every evaluation are in metrics.json. What '
        "the text's licence asks holds for these weights too.\n"
    )


def language_card(recipe: Recipe, model: Any, metrics: dict[str, Any]) -> str:
    """README.md of a causal language model."""
    count = sum(parameter.numel() for parameter in model.parameters())
    last = metrics["history"][-1] if metrics["history"] else {}
    kind = f"model of {recipe.start}, trained on" if recipe.start else NAMES["lm"]
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
        f"# A {kind}\n\n"
        f"Trained by `regard train` on {metrics['rows']:,} rows of {recipe.limit} tokens, a share of "
        f"{recipe.repeats:g} of them with a passage that comes twice; from random weights, seed {recipe.seed}. "
        f"{count:,} parameters.\n\n"
        f"Best loss on held-out text: {-metrics['best']:.3f} nats per token. Training until then: "
        f"{last.get('step', 0):,} steps, {last.get('minutes', 0)} minutes.\n\n"
        'Use: `regard see DIRECTORY "a sentence"`. The recipe and every evaluation, with its bits per byte and its '
        "clearest previous-token and induction heads, are in metrics.json.\n"
    )
