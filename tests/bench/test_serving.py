"""`regard bench serve` in a tiny setting: everyone writes the same tokens; what is said of a peer that fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from regard.bench.serving import load, run, waste
from regard.bench.serving.compared import compared
from regard.bench.serving.elsewhere.replay import Replay
from regard.bench.serving.foreign import read_peers
from regard.bench.serving.measured import Replay as Measured
from regard.bench.serving.measured import middle
from regard.bench.serving.models import build
from regard.errors import UserError


def asks(count: int) -> list[load.Ask]:
    return load.equal(count, 512, 20, 6)


def test_the_engine_and_the_server_write_what_generate_writes() -> None:
    said: list[str] = []
    result = run.run("tiny", asks(3), ["regard", "http", "one"], [], said.append)
    names = [r["name"] for r in result["results"]]
    assert len(names) == 8 and "regard over HTTP, streamed, top 8 of all heads" in names
    for r in result["results"]:
        assert r["same_tokens"] == 1 and r["tokens"] == 18, r
    plain, looked = (
        r for r in result["results"] if r["name"] in ("regard over HTTP", "regard over HTTP, top 8 of all heads")
    )
    assert looked["body_bytes"] > plain["body_bytes"]
    assert len(run.table(result)) == 9


def test_a_peer_that_cannot_start_is_an_error_that_says_why() -> None:
    with pytest.raises(UserError, match="No module named 'openvino"):
        run.run("tiny", asks(1), ["regard"], [], lambda line: None, others=read_peers([f"openvino={sys.executable}"]))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("nosuch=python", "write one of openvino, vllm"),
        ("openvino", "then = and its Python"),
        ("vllm=/nosuch/python", "is no program"),
        (f"openvino:int4={sys.executable}", "int4 is none of f32, bf16"),
    ],
)
def test_a_peer_that_is_written_wrong_is_named(written: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_peers([written])


def test_variants_of_a_peer_are_contestants_of_their_own() -> None:
    peers = read_peers([f"openvino:f32,int8={sys.executable}", f"vllm={sys.executable}"])
    assert [peer.name for peer in peers] == ["openvino f32", "openvino int8", "vllm float32"]


def test_a_replay_hands_over_what_has_arrived_and_notes_every_token() -> None:
    running: dict[int, list[int]] = {}

    def step() -> list[tuple[int, list[int]]]:
        told = [(i, [tokens.pop()]) for i, tokens in running.items()]
        for i in [i for i, tokens in running.items() if not tokens]:
            del running[i]
        return told

    def add(i: int, prompt: list[int], new_tokens: int) -> None:
        running[i] = [prompt[0]] * new_tokens

    load = [{"prompt": [7], "new_tokens": 3, "arrives": 0.0}, {"prompt": [9], "new_tokens": 2, "arrives": 0.05}]
    seconds, times, tokens = Replay(add, step).run(load)
    assert tokens == [[7, 7, 7], [9, 9]]
    assert seconds >= 0.05 and all(t >= 0 for row in times for t in row) and times[1][0] < 0.05


def test_answers_that_part_are_told_with_the_margin_of_the_logits() -> None:
    model = build("tiny")
    ask = asks(1)[0]
    with torch.inference_mode():
        logits = model(torch.tensor([ask.prompt])).logits[0, -1]
    best = logits.topk(2)
    found = compared(model, [ask], [[int(best.indices[0])]], [[int(best.indices[1])]])
    assert found["same_tokens"] == 0 and found["ties"] == 0
    assert found["widest"] == pytest.approx(float(best.values[0] - best.values[1]), rel=1e-3)
    assert compared(model, [ask], [[1, 2]], [[1]])["widest"] == float("inf")


def test_the_median_turn_counts() -> None:
    found = middle([Measured("a", [[s]], s) for s in (3.0, 1.0, 2.0)])
    assert found.seconds == 2.0 and json.dumps(found.figures()["turns"]) == "[3.0, 1.0, 2.0]"


def test_the_waste_of_pages_is_that_of_the_lengths(tmp_path: Path) -> None:
    """A sequence that grows from 100 to 131 tokens: the mean of slots and of tokens are counted by hand."""
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,100,33\n")
    alone = load.trace(path, 1, 512, 1.0, 1.0, clipped=False)
    found = waste.simulate(alone)
    held = range(100, 132)  # the last token is never computed, and its step ends the request
    slots = sum(-(-n // 16) * 16 for n in held)
    assert found["page_waste"] == pytest.approx(1 - sum(held) / slots)
    assert found["steps"] == 33 and found["preemptions"] == 0


def test_the_waste_of_pages_is_small_at_the_lengths_of_a_chat() -> None:
    draw = load.lognormal(200, 512)
    assert waste.simulate(draw)["page_waste"] < 0.08
    longer = [load.Ask(ask.prompt * 8, ask.new_tokens) for ask in draw]
    assert waste.simulate(longer)["page_waste"] < 0.015
