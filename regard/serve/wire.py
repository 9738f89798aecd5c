"""OpenAI's shapes, written: pure functions from events to JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from regard.serve.answers import Event
from regard.serve.prompt import Prompt
from regard.serve.request import Request
from regard.serve.sampler import Chances
from regard.serve.shown import Shown
from regard.serve.tools import held_from, tool_calls

FAILED = ("error", "deadline", "cancelled")  # reasons of an answer that is not complete
Spell = Callable[[int], str]  # the text of a token by itself


@dataclass(frozen=True)
class Head:
    """What every body of one HTTP request repeats."""

    id: str
    created: int
    model: str
    chat: bool

    def json(self, chunk: bool) -> dict[str, Any]:
        """id, object, created, model."""
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


@dataclass(eq=False)
class Answer:
    """One choice, put together from events. index: among all choices of the HTTP request."""

    index: int
    request: Request
    prompt: Prompt
    head: Head
    spell: Spell
    shown: Shown | None = None
    echo: bool = False
    drops: bool = False
    tools: bool = False
    text: str = ""
    sent: int = 0
    count: int = 0
    told: list[Chances] = field(default_factory=list)
    of_prompt: tuple[Chances, ...] | None = None
    reused: int = 0
    reason: str | None = None
    stop: str | int | None = None
    message: str = ""
    offset: int = 0

    def take(self, event: Event) -> list[str]:
        """Add an event; the attention rows that it brought, as JSON."""
        if event.prompt_chances is not None:
            self.of_prompt = event.prompt_chances
        self.reused = max(self.reused, event.reused)
        if event.reason is not None:
            self.reason, self.stop, self.message = event.reason, event.stop, event.message
        if not self.drops:
            self.text += event.text
            self.count += len(event.tokens)
            self.told += event.chances
        if self.shown is None:
            return []
        return self.shown.add(event.attention, event.prompt_attention, event.received)

    @property
    def failed(self) -> bool:
        """Whether it ended before it was complete."""
        return self.reason in FAILED

    def choice(self) -> str:
        """The whole choice."""
        text, calls = tool_calls(self.text) if self.tools else (self.text, [])
        finish = "tool_calls" if calls else self.reason
        if self.head.chat:
            message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
            if calls:
                message["tool_calls"] = calls
            body: dict[str, Any] = {"index": self.index, "message": message}
        else:
            body = {"index": self.index, "text": (self.prompt_text() if self.echo else "") + text}
        return self._with_rest(body, self._logprobs(self.told, self.echo), finish, None, True, True)

    def chunk(self, event: Event) -> str | None:
        """The choice of one chunk of a stream; None where there is nothing to say yet."""
        begins = self.sent == 0
        known = len(self.told)
        rows = self.take(event)
        new = self.text[self.offset :]
        calls: list[dict[str, Any]] = []
        if self.tools:
            if self.reason is None:
                new = new[: held_from(new)]
            else:
                new, calls = tool_calls(new)
        if not new and not rows and self.reason is None and not begins:
            return None
        self.offset += len(new)
        self.sent += 1
        finish = "tool_calls" if calls else self.reason
        if self.head.chat:
            delta: dict[str, Any] = ({"role": "assistant"} if begins else {}) | {"content": new}
            if calls:
                delta["tool_calls"] = [call | {"index": i} for i, call in enumerate(calls)]
            body: dict[str, Any] = {"index": self.index, "delta": delta}
        else:
            body = {"index": self.index, "text": (self.prompt_text() if self.echo and begins else "") + new}
        logprobs = self._logprobs(self.told[known:], self.echo and begins)
        return self._with_rest(body, logprobs, finish, rows, begins, self.reason is not None)

    def _with_rest(
        self, body: dict[str, Any], logprobs: Any, finish: str | None, rows: list[str] | None, first: bool, last: bool
    ) -> str:
        body |= {"logprobs": logprobs, "finish_reason": finish}
        if self.reason == "stop":
            body["stop_reason"] = self.stop if isinstance(self.stop, str) else None
        if self.request.prompt_logprobs is not None and first and not self.echo:
            body["prompt_logprobs"] = self._of_prompt()
        text = json.dumps(body, ensure_ascii=False)
        if self.shown is None:
            return text
        return f'{text[:-1]}, "attention": {self.shown.json(rows, first, last)}}}'

    def prompt_text(self) -> str:
        """What the prompt says; token ids spelt out."""
        return self.prompt.text if self.prompt.text is not None else "".join(map(self.spell, self.prompt.tokens))

    def _of_prompt(self) -> list[dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = [None]
        for c in self.of_prompt or ():
            pairs = [(c.token, c.logprob), *(pair for pair in c.top if pair[0] != c.token)]
            found.append({str(t): {"logprob": round(p, 6), "decoded_token": self.spell(t)} for t, p in pairs})
        return found

    def _logprobs(self, told: list[Chances], echo: bool) -> Any:
        if self.request.logprobs is None:
            return None
        if self.head.chat:
            return {"content": [_chat_chance(c, self.spell) for c in told]}
        first = [Chances(self.prompt.tokens[0], float("nan"))] if echo else []
        every = [*first, *(self.of_prompt or () if echo else ()), *told]
        offsets, at = [], 0
        for c in every:
            offsets.append(at)
            at += len(self.spell(c.token))
        return {
            "tokens": [self.spell(c.token) for c in every],
            "token_logprobs": [None if c in first else c.logprob for c in every],
            "top_logprobs": [None if c in first else {self.spell(t): p for t, p in reversed(c.top)} for c in every],
            "text_offset": offsets,
        }


def _chat_chance(c: Chances, spell: Spell) -> dict[str, Any]:
    def one(token: int, logprob: float) -> dict[str, Any]:
        text = spell(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return one(c.token, c.logprob) | {"top_logprobs": [one(t, p) for t, p in c.top]}


def usage(answers: list[Answer]) -> dict[str, Any]:
    """Tokens read and written; a prompt counts once for all its answers."""
    firsts = {a.request.id: a for a in reversed(answers)}.values()
    read, written = sum(len(a.prompt.tokens) for a in firsts), sum(a.count for a in answers)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": sum(a.reused for a in firsts)},
    }


def body(head: Head, answers: list[Answer]) -> str:
    """The answer to a request that does not stream."""
    choices = ", ".join(a.choice() for a in answers)
    return f'{json.dumps(head.json(False))[:-1]}, "choices": [{choices}], "usage": {json.dumps(usage(answers))}}}'


def chunk(head: Head, choice: str | None, used: dict[str, Any] | None = None, says_usage: bool = False) -> str:
    """One server-sent event of a stream."""
    end = f', "usage": {json.dumps(used)}' if says_usage else ""
    return f'data: {json.dumps(head.json(True))[:-1]}, "choices": [{choice or ""}]{end}}}\n\n'


def error(message: str, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's form of an error."""
    kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
