"""Many mixed requests over a pool that is too small: right answers, clean errors, no page lost, memory flat."""

from __future__ import annotations

import asyncio
import json
import random
import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.server import SMALL, running

TEXTS = ["The old man", "In the morning the sea", "Once", "A king and a queen lived in a castle by the", "She said:"]
BAD: list[bytes] = [
    b"{",
    b"[]",
    b'{"prompt": 3}',
    b'{"prompt": "a", "max_tokens": -1}',
    b'{"prompt": "a", "temperature": NaN}',
    b'{"prompt": "a", "nosuch": 1}',
    b'{"prompt": "a", "model": "another"}',
    json.dumps({"prompt": "word " * 5000}).encode(),
    json.dumps({"prompt": [10**9]}).encode(),
    json.dumps({"prompt": "a", "regex": "("}).encode(),
]
CLEAN = {503, 504}


@dataclass
class Count:
    """What came of the requests."""

    right: int = 0
    refused: int = 0
    full: int = 0
    bad: int = 0
    left: int = 0


def resident_bytes() -> int:
    """Of this process; 0 where the system does not tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * resource.getpagesize() if status.exists() else 0


def bodies() -> list[dict[str, Any]]:
    """Greedy requests, whose answers do not depend on what else runs."""
    made = []
    for i, text in enumerate(TEXTS * 3):
        body: dict[str, Any] = {"prompt": text + " and" * (i % 4), "max_tokens": 6 + 12 * (i % 5), "temperature": 0}
        body |= [{}, {"n": 2}, {"attention": {"layers": [0]}}, {"logprobs": 2}, {"prompt_lookup": 3}][i % 5]
        made.append(body)
    return made


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in sorted(answer["choices"], key=lambda c: c["index"])]


async def streamed(client: httpx.AsyncClient, body: dict[str, Any], leaves: bool) -> list[str] | int | None:
    """The texts of a stream, or its status; None where the client left in the middle."""
    written = [""] * body.get("n", 1)
    async with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
        if answer.status_code != 200:
            return answer.status_code
        async for line in answer.aiter_lines():
            if leaves:
                return None
            if line.startswith("data: {"):
                said = json.loads(line[6:])
                if "error" in said:
                    return 503
                for choice in said["choices"]:
                    written[choice["index"]] += choice["text"]
    return written


async def one(client: httpx.AsyncClient, draw: random.Random, right: list[Any], count: Count) -> None:
    kind = draw.random()
    if kind < 0.1:
        answer = await client.post("/v1/completions", content=draw.choice(BAD))
        assert answer.status_code in (400, 404, 413, 429), answer.text
        assert answer.json()["error"]["message"]
        count.bad += 1
        return
    body, wanted = draw.choice(right)
    if kind < 0.2:
        body = body | {"timeout": draw.choice([0.001, 0.05])}
    got: Any = 429
    while got == 429:
        if kind < 0.6:
            response = await client.post("/v1/completions", json=body)
            got = texts(response.json()) if response.status_code == 200 else response.status_code
        else:
            got = await streamed(client, body, kind > 0.85)
        if got == 429:  # told to come back, it does
            count.full += 1
            await asyncio.sleep(draw.random())
    if got is None:
        count.left += 1
    elif isinstance(got, int):
        assert got in CLEAN, got
        count.refused += 1
    else:
        assert got == wanted, (body, got, wanted)
        count.right += 1


async def worker(
    client: httpx.AsyncClient, draw: random.Random, right: list[Any], count: Count, waiting: Iterator[int]
) -> None:
    for _ in waiting:
        await one(client, draw, right, count)


async def soak(address: str, requests: int, count: Count) -> list[int]:
    """Runs them, 24 at a time; resident bytes at each quarter."""
    draw, memory = random.Random(5), []
    async with httpx.AsyncClient(base_url=address, timeout=900) as client:
        right = [(body, texts((await client.post("/v1/completions", json=body)).json())) for body in bodies()]
        for _ in range(4):
            waiting = iter(range(requests // 4))
            await asyncio.gather(*(worker(client, draw, right, count, waiting) for _ in range(24)))
            memory.append(resident_bytes())
    return memory


@pytest.mark.parametrize("requests", [120, pytest.param(5000, marks=pytest.mark.slow)])
def test_every_answer_is_right_or_a_clean_error_and_no_page_is_lost(requests: int) -> None:
    small = replace(SMALL, memory=1 << 19, max_running=8, token_budget=32, max_waiting=12)
    with running(small) as (address, service):
        count = Count()
        memory = asyncio.run(soak(address, requests, count))
        assert count.right > requests // 2 and count.bad and count.left and count.refused and count.full, count
        assert memory[3] - memory[1] < 64 << 20, memory
        assert service.engine.scheduler.counters.preemptions, "the pool was large enough; make it smaller"
        print(count, [m >> 20 for m in memory], service.engine.scheduler.counters)
