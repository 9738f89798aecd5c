"""Scores of translations: sacreBLEU, chrF, and the alignment error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regard.errors import UserError


@dataclass(frozen=True)
class Scores:
    """bleu and chrf of a corpus, 0 to 100; signature: how sacrebleu computed BLEU."""

    bleu: float
    chrf: float
    signature: str


def scores(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """sacreBLEU (cased, 13a, detokenised; Post 2018) and chrF (Popović 2015) of translations against one reference."""
    if len(hypotheses) != len(references):
        raise UserError(f"{len(hypotheses)} translations are to be scored against {len(references)} references")
    bleu, chrf = _metrics()
    score = bleu.corpus_score(list(hypotheses), [list(references)])
    chars = chrf.corpus_score(list(hypotheses), [list(references)])
    return Scores(float(score.score), float(chars.score), str(bleu.get_signature()))


def _metrics() -> tuple[Any, Any]:
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise UserError("scores need sacrebleu: pip install 'regard[train]'") from None
    return BLEU(), CHRF()


Links = frozenset[tuple[int, int]]


def links(line: str, what: str = "an alignment") -> tuple[Links, Links]:
    """(sure, possible) of a line in Pharaoh's form, "0-0 1?2": i-j is sure, i?j only possible; counted from 0."""
    sure, possible = set(), set()
    for part in line.split():
        mark = "-" if "-" in part else "?"
        source, _, target = part.partition(mark)
        if not (source.isdigit() and target.isdigit()):
            raise UserError(f"{what} holds {part!r}; links look like 0-0 (sure) or 1?2 (possible)")
        possible.add((int(source), int(target)))
        if mark == "-":
            sure.add((int(source), int(target)))
    return frozenset(sure), frozenset(possible)


def alignment_error_rate(hypotheses: Sequence[Links], gold: Sequence[tuple[Links, Links]]) -> float:
    """AER = 1 - (|A ∩ S| + |A ∩ P|) / (|A| + |S|) over a corpus (Och 2003, eq. 21); 0 is perfect."""
    both = sum(len(found & sure) + len(found & possible) for found, (sure, possible) in zip(hypotheses, gold))
    size = sum(len(found) + len(sure) for found, (sure, _) in zip(hypotheses, gold))
    return 1.0 - both / size if size else 0.0


def aer_of_lines(found: Sequence[str], gold: Sequence[str]) -> float:
    """The alignment error rate of two files' lines."""
    if len(found) != len(gold):
        raise UserError(f"{len(found)} alignments are to be scored against {len(gold)} gold ones")
    read = [links(line, f"line {number} of the alignments")[0] for number, line in enumerate(found, 1)]
    return alignment_error_rate(read, [links(line, f"line {n} of the gold file") for n, line in enumerate(gold, 1)])
