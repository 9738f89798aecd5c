"""Text in and out: corpora that are wrong, words and their tokens, scores, copied words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.errors import UserError
from regard.hf.load import Loaded
from regard.seq2seq.alignments import hard, pharaoh
from regard.seq2seq.beam import Search
from regard.seq2seq.corpus import pairs
from regard.seq2seq.heat import heat_map
from regard.seq2seq.score import aer_of_lines, alignment_error_rate, links, scores
from regard.seq2seq.translate import translations
from regard.seq2seq.vocabulary import trained, trained_bytes
from regard.seq2seq.words import Words, by_words, words_of
from tests.seq2seq.toys import SOURCE, TARGET, model


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_parallel_text_is_read_from_two_files_or_a_tsv(tmp_path: Path) -> None:
    a, b = written(tmp_path, "a", b"one\ntwo\n"), written(tmp_path, "b.gz", gzip.compress(b"eins\nzwei"))
    tsv = written(tmp_path, "c.tsv", b"one\teins\ntwo\tzwei\n")
    assert pairs([a, b]) == pairs([tsv])
    assert pairs([a, b]).target == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (b"one\ntwo\n", b"eins\n", r"a has 2 lines and .*b has 1"),
        (b"one\n\nthree\n", b"eins\nzwei\ndrei\n", r"line 2 of .*a has an empty side"),
        (b"one\ntwo\n", b"eins\nf\xfcnf\n", r"line 2 of .*b is not UTF-8"),
        (b"", b"", r"a is empty"),
        (b"\x1f\x8bnonsense", b"eins\n", r"cannot read .*a"),
    ],
)
def test_wrong_parallel_text_is_one_sentence(tmp_path: Path, first: bytes, second: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pairs([written(tmp_path, "a", first), written(tmp_path, "b", second)])


def test_wrong_tsvs_and_missing_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2 of .* has 1 columns"):
        pairs([written(tmp_path, "a.tsv", b"one\teins\ntwo\n")])
    with pytest.raises(UserError, match=r"cannot read .*nosuch.*No such file"):
        pairs([tmp_path / "nosuch"])
    with pytest.raises(UserError, match="two files, or one tsv, not 3"):
        pairs([tmp_path / "a"] * 3)


TOKENIZER = trained([" ".join(SOURCE), " ".join(TARGET)] * 3, 70, limit=64)


def test_words_are_made_of_their_tokens() -> None:
    ids = TOKENIZER("two nine, four")["input_ids"]
    words = words_of(TOKENIZER, ids)
    assert words.text == ["two", "nine,", "four"] or words.text[0] == "two"
    assert words.word_of[-1] is None and words.word_of[:-1] == sorted(w for w in words.word_of if w is not None)
    spread = torch.full((len(ids), len(ids)), 1 / len(ids))
    found = by_words(spread, words, words)
    assert torch.allclose(found.sum(1), torch.full((3,), (len(ids) - 1) / len(ids), dtype=torch.float64))


def test_a_mark_at_a_word_does_not_count_for_it() -> None:
    nine = Words(["nine,", "!"], [0, 0, 1], [True, False, False])
    weights = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    found = by_words(weights, nine, Words(["neun", "!"], [0, 1], [True, False]))
    assert torch.allclose(found, weights[[0, 2]].double())


def test_what_was_tokenized_is_read_back() -> None:
    for text in ("two nine four", "null eins"):
        ids = TOKENIZER(text)["input_ids"]
        assert TOKENIZER.decode(ids, skip_special_tokens=True).strip() == text
    tokens = trained_bytes(["plain text\n with spaces"] * 3, 270)
    assert tokens.decode(tokens("two  naïve ☃\n")["input_ids"], skip_special_tokens=True) == "two  naïve ☃\n"


def test_an_unknown_word_is_copied_along_its_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("bahdanau", len(TOKENIZER))
    unknown = TOKENIZER.unk_token_id
    assert unknown in TOKENIZER("☃")["input_ids"]
    target = TOKENIZER("zwei ☃")["input_ids"][:-1]
    monkeypatch.setattr("regard.seq2seq.translate.decoded", lambda *_: [(0, target)])

    def looks(model: Any, source: list[int], target: list[int]) -> torch.Tensor:
        weights = torch.zeros(len(target), len(source))
        weights[:-2, 0], weights[-2:, source.index(unknown)] = 1.0, 1.0
        return weights

    monkeypatch.setattr("regard.seq2seq.translate.alignment", looks)
    (found,) = translations(Loaded(made, TOKENIZER), ["two ☃☃"], Search(1), align=True)
    assert (found.text, found.copied) == ("zwei ☃☃", (1,))


def test_sentences_that_are_too_long_are_cut_and_counted() -> None:
    notes: list[str] = []
    loaded = Loaded(model("bahdanau", len(TOKENIZER)), TOKENIZER)
    search = Search(1, longest=3)
    translations(loaded, ["two " * 100, "two", "one " * 90], search, note=notes.append)
    assert notes == ["2 sentences are longer than the model's 64 tokens and were cut there; split them"]


def test_alignments_need_attention() -> None:
    loaded = Loaded(model("rnn", len(TOKENIZER)), TOKENIZER)
    with pytest.raises(UserError, match="no attention, so there is nothing to align by"):
        translations(loaded, ["two"], Search(1, longest=4), align=True)


@pytest.mark.parametrize("kind", ["bahdanau", "luong general", "transformer"])
def test_alignments_are_rows_of_weights(kind: str) -> None:
    loaded = Loaded(model(kind, len(TOKENIZER)), TOKENIZER)
    (found,) = translations(loaded, ["two nine four"], Search(2, longest=6), align=True)
    if found.words:
        assert found.weights is not None and found.weights.shape == (len(found.words), len(found.source_words))
        assert float(found.weights.sum(1).max()) <= 1 + 1e-5
        assert json.dumps(found.json()) and heat_map(found).count("\n") == len(found.words) + 1


def test_hard_alignments_are_the_largest_weights() -> None:
    weights = torch.tensor([[0.1, 0.7], [0.6, 0.2], [0.0, 0.0]])
    assert hard(weights) == [(1, 0), (0, 1)]
    assert pharaoh(hard(weights)) == "0-1 1-0"


def test_scores_are_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    texts = ["the cat sat on the mat", "a dog"], ["the cat sat on a mat", "the dog"]
    found = scores(*texts)
    assert found.bleu == sacrebleu.corpus_bleu(texts[0], [texts[1]]).score
    assert "tok:13a" in found.signature and "case:mixed" in found.signature


def test_the_alignment_error_rate_is_ochs() -> None:
    """A = {0-0, 1-2}, S = {0-0}, P = {0-0, 1-1}: 1 - (1 + 1) / (2 + 1)."""
    gold = links("0-0 1?1")
    assert alignment_error_rate([links("0-0 1-2")[0]], [gold]) == pytest.approx(1 / 3)
    assert aer_of_lines(["0-0"], ["0-0"]) == 0.0
    with pytest.raises(UserError, match="line 1 of the alignments holds '0_0'"):
        aer_of_lines(["0_0"], ["0-0"])
