"""A model being served: what all routes share. Events cross from the engine's thread into the event loop here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

from regard.serve.answers import Event
from regard.serve.asked import About
from regard.serve.engine import Engine
from regard.serve.prompt import Prompts
from regard.serve.request import Request


@dataclass(frozen=True)
class Settings:
    """What a server allows. api_key: None lets everyone in; body_bytes, look_bytes: most of a body, of an answer's
    attention; patience: seconds that a stopping server lets answers finish."""

    api_key: str | None = None
    body_bytes: int = 8 << 20
    look_bytes: int = 32 << 20
    patience: float = 30.0


@dataclass(eq=False)
class Service:
    """engine: computes; about, prompts: of the model; described: what /v1/models adds."""

    engine: Engine
    about: About
    prompts: Prompts
    settings: Settings
    described: dict[str, Any] = field(default_factory=dict)
    _queues: dict[str, asyncio.Queue[Event]] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None
    _spelt: dict[int, str] = field(default_factory=dict)

    def start(self) -> None:
        """Begin to compute; called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self.engine.deliver = self._deliver
        self.engine.start()

    def _deliver(self, events: list[Event]) -> None:
        """In the engine's thread: hand a step's events over at once."""
        if events and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._dispatch, events)

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            queue = self._queues.get(event.request_id)
            if queue is not None:
                queue.put_nowait(event)

    async def events(self, requests: list[Request]) -> AsyncGenerator[Event, None]:
        """All events of some requests until every answer is complete. What is left when the reader goes away is
        cancelled. Raises UserError, before anything is computed, when one of them cannot be taken."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        open_answers = {(r.id, i) for r in requests for i in range(r.n)}
        now = self.engine.clock()
        try:
            for request in requests:
                self._queues[request.id] = queue
                seconds = request.deadline
                self.engine.submit(replace(request, deadline=None if seconds is None else now + seconds))
            while open_answers:
                event = await queue.get()
                if event.reason is not None:
                    open_answers.discard((event.request_id, event.index))
                yield event
        finally:
            for request in requests:
                self._queues.pop(request.id, None)
            for request_id in {request_id for request_id, _ in open_answers}:
                self.engine.cancel(request_id)

    def spell(self, token: int) -> str:
        """The text of a token by itself."""
        text = self._spelt.get(token)
        if text is None:
            tokenizer = self.prompts.tokenizer
            text = f"token_id:{token}" if tokenizer is None else str(tokenizer.decode([token]))
            self._spelt[token] = text
        return text
