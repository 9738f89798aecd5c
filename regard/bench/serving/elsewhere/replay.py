"""The replay that both scripts share: requests go in when their time has come, steps are run, tokens are noted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Add = Callable[[int, list[int], int], None]
Step = Callable[[], Iterable[tuple[int, list[int]]]]


class Replay:
    """add(i, prompt, new_tokens) takes a request in; step() runs a step and yields (i, new tokens); what they do is
    the engine's."""

    def __init__(self, add: Add, step: Step) -> None:
        self.add = add
        self.step = step

    def run(self, asks: list[dict[str, Any]]) -> tuple[float, list[list[float]], list[list[int]]]:
        """(seconds of the whole, times, tokens)."""
        times: list[list[float]] = [[] for _ in asks]
        tokens: list[list[int]] = [[] for _ in asks]
        waiting = sorted(range(len(asks)), key=lambda i: asks[i]["arrives"])
        left = len(asks)
        begin = time.perf_counter()
        while left:
            now = time.perf_counter() - begin
            while waiting and asks[waiting[0]]["arrives"] <= now:
                i = waiting.pop(0)
                self.add(i, asks[i]["prompt"], asks[i]["new_tokens"])
            if left == len(waiting):
                time.sleep(max(0.0, asks[waiting[0]]["arrives"] - (time.perf_counter() - begin)))
                continue
            for i, new in self.step():
                now = time.perf_counter() - begin - asks[i]["arrives"]
                times[i] += [now] * len(new)
                tokens[i] += new
                left -= len(tokens[i]) == asks[i]["new_tokens"]
        return time.perf_counter() - begin, times, tokens


def main(prepare: Callable[[Path, str, dict[str, Any]], tuple[Add, Step, dict[str, Any]]]) -> None:
    """Read what is asked, warm up on short requests, replay, write. prepare starts the engine on a checkpoint."""
    folder, variant = Path(sys.argv[1]), sys.argv[2]
    load = json.loads((folder / "load.json").read_text())
    add, step, about = prepare(folder / "model", variant, load)
    replay = Replay(add, step)
    replay.run([{"prompt": a["prompt"][:32], "new_tokens": 4, "arrives": 0} for a in load["asks"][:4]])
    names = ("seconds", "times", "tokens")
    turns = [dict(zip(names, replay.run(load["asks"]))) for _ in range(load["turns"])]
    found = {"turns": turns, "about": about}
    (folder / f"{variant}.json").write_text(json.dumps(found))
