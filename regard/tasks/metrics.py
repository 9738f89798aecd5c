"""The metrics of the field."""

from __future__ import annotations

from collections.abc import Sequence

from regard.errors import UserError


def accuracy(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of examples that are right."""
    return sum(map(str.__eq__, found, wanted)) / max(len(wanted), 1)


def macro_f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Mean over the labels that are wanted of 2 · right / (found + wanted)."""
    scores = []
    for label in sorted(set(wanted)):
        right = sum(f == w == label for f, w in zip(found, wanted, strict=True))
        both = sum(f == label for f in found) + sum(w == label for w in wanted)
        scores.append(2 * right / both)
    return sum(scores) / max(len(scores), 1)


def word_error_rate(found: Sequence[str], wanted: Sequence[str]) -> float:
    """(substitutions + deletions + insertions) / words wanted, of all sentences together; jiwer's."""
    try:
        import jiwer
    except ImportError:
        raise UserError("the word error rate needs jiwer: pip install 'regard[train]'") from None
    return float(jiwer.wer(list(wanted), list(found)))


def token_f1(found: str, wanted: str) -> float:
    """SQuAD's F1 of two answers: of the words that both hold (Rajpurkar 2016, section 6.1)."""
    ours, theirs = found.lower().split(), wanted.lower().split()
    shared = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
    return 2 * shared / (len(ours) + len(theirs)) if shared else float(ours == theirs)
