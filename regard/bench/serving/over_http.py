"""regard's own server on a load, over HTTP as its users meet it: a process of its own, one connection per request."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from regard.bench.serving.load import Ask
from regard.bench.serving.measured import Replay, middle
from regard.errors import UserError

START_SECONDS = 300
LOOKS: dict[str, Any] = {
    "": None,
    ", top 8 of each layer's mean": {"statistics": ["top"], "heads": "mean", "top_k": 8},
    ", top 8 of all heads": {"statistics": ["top"], "heads": "all", "top_k": 8},
}


@contextmanager
def serving(model: Path, *options: str) -> Iterator[int]:
    """The port of a server of this checkpoint, which ends with the block. Raises UserError when it does not start."""
    code = f"import torch; torch.set_num_threads({torch.get_num_threads()}); from regard.__main__ import main; main()"
    words = [sys.executable, "-c", code, "serve", str(model), "--port", "0", "--no-prefix-cache", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            said = server.stdout.readline()
            at = re.search(r"http://[^ ]*:(\d+)", said)
            if at is None:
                raise UserError(f"the server did not start: {said}{server.communicate()[0][-1000:]}")
            _await(int(at[1]))
            yield int(at[1])
        finally:
            server.terminate()
            server.wait(timeout=60)


def _await(port: int) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", "/health")
                with connection.getresponse() as response:
                    if response.status == 200:
                        return
        except OSError:
            time.sleep(0.05)
    raise UserError(f"the server did not answer within {START_SECONDS} seconds")


def replay(port: int, asks: list[Ask], name: str, attention: Any = None, stream: bool = False) -> Replay:
    """The load, every request in a thread of its own. Without `stream` a request's tokens all come when it ends."""
    times: list[list[float]] = [[] for _ in asks]
    lines: list[list[bytes]] = [[] for _ in asks]
    failures: list[Exception] = []
    begin = time.perf_counter()

    def one(i: int) -> None:
        try:
            lines[i], times[i] = _ask(port, asks[i], attention, stream, begin)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    if failures:
        raise UserError(f"{name}: {failures[0]}")
    tokens = [[int(word) for word in re.findall(r"<(\d+)>", _text(read, stream))] for read in lines]
    return Replay(name, times, seconds, tokens, {"body_bytes": sum(len(line) for read in lines for line in read)})


def _ask(port: int, ask: Ask, attention: Any, stream: bool, begin: float) -> tuple[list[bytes], list[float]]:
    """(the lines of the answer, when each token came)."""
    body: dict[str, Any] = {"prompt": ask.prompt, "max_tokens": ask.new_tokens, "temperature": 0, "ignore_eos": True}
    body |= {"stream": stream} | ({} if attention is None else {"attention": attention})
    sent = json.dumps(body)
    time.sleep(max(0.0, begin + ask.arrives - time.perf_counter()))
    lines, times = [], []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=600)) as connection:
        connection.request("POST", "/v1/completions", sent, {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            if response.status != 200:
                raise UserError(f"{response.status}: {response.read()[:300]!r}")
            for line in response if stream else [response.read()]:
                now = time.perf_counter() - begin - ask.arrives
                lines.append(line)
                times += [now] * (_new_tokens(line) if stream else ask.new_tokens)
    return lines, times


def _new_tokens(line: bytes) -> int:
    """One for a chunk that brings text; only its beginning is looked at, for the client shares the machine."""
    return int(line.startswith(b"data: {") and b'"text": ""' not in line[:400])


def _text(lines: list[bytes], stream: bool) -> str:
    if not stream:
        return str(json.loads(lines[0])["choices"][0]["text"])
    chunks = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])


def contest(model: Path, asks: list[Ask], turns: int, say: Any) -> list[Replay]:
    """Whole answers, then streams, each plain and with attention; of each the median turn. The client reads
    answers as they come and looks into them when the clock has stopped."""
    found: list[Replay] = []
    with serving(model) as port:
        replay(port, [Ask(a.prompt[:32], 4) for a in asks[:4]], "warm-up")
        for stream in (False, True):
            kinds = {f"regard over HTTP{', streamed' if stream else ''}{what}": look for what, look in LOOKS.items()}
            ran: dict[str, list[Replay]] = {name: [] for name in kinds}
            for turn in range(turns):
                for name, look in kinds.items():
                    say(f"{name}, turn {turn + 1}")
                    ran[name].append(replay(port, asks, name, look, stream))
            found += [middle(replays) for replays in ran.values()]
    return found
