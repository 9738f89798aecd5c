"""The HTTP server: OpenAI's routes, health, metrics and a page, over one Service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from regard.serve import asked, schema, wire
from regard.serve.asked import Asked
from regard.serve.fields import BadRequest, Fields
from regard.serve.metrics import Metrics
from regard.serve.page import html
from regard.serve.service import Service
from regard.serve.shown import Shown
from regard.serve.transport import ERRORS, Guard, refusal


def make_app(service: Service) -> Starlette:
    """The ASGI application; its start and end are those of the engine."""
    metrics = Metrics(service.engine)
    routes = _Routes(service, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.engine.stop, service.settings.patience)

    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/health", routes.health),
            Route("/metrics", routes.metrics),
            Route("/openapi.json", routes.openapi),
            Route("/v1/models", routes.guard(routes.models)),
            Route("/v1/models/{name:path}", routes.guard(routes.model)),
            Route("/v1/embeddings", routes.guard(routes.no_embeddings), methods=["POST"]),
            Route("/v1/completions", routes.guard(routes.completions), methods=["POST"]),
            Route("/v1/chat/completions", routes.guard(routes.chat), methods=["POST"]),
            Route("/tokenize", routes.guard(routes.tokenize), methods=["POST"]),
            Route("/detokenize", routes.guard(routes.detokenize), methods=["POST"]),
        ],
        exception_handlers=ERRORS,
        lifespan=lifespan,
    )


class _Routes:
    def __init__(self, service: Service, metrics: Metrics) -> None:
        self.service = service
        self.guard = Guard(service.settings)
        self.told = metrics

    # ---- what is there ----------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        return HTMLResponse(html(self.service.about.model, self.service.settings.api_key is not None))

    async def health(self, request: Request) -> Response:
        failure = self.service.engine.failure
        return JSONResponse({"status": "ok"}) if failure is None else refusal(failure, 503)

    async def metrics(self, request: Request) -> Response:
        text, kind = self.told.text()
        return Response(text, headers={"Content-Type": kind})

    def _model(self) -> dict[str, Any]:
        about = self.service.about
        known = {"id": about.model, "object": "model", "created": 0, "owned_by": "regard"}
        return known | {"max_model_len": about.longest} | self.service.described

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self.service.about.model:
            raise BadRequest(f"model: {name[:100]!r} is not served here", "model", 404, "model_not_found")
        return JSONResponse(self._model())

    async def no_embeddings(self, request: Request) -> Response:
        return refusal(f"{self.service.about.model} writes text; serve an encoder for /v1/embeddings", 400)

    async def openapi(self, request: Request) -> Response:
        read: dict[str, Callable[[Fields], Any]] = {"/tokenize": _to_tokenize, "/detokenize": self._to_detokenize}
        return JSONResponse(schema.of_decoder(self.service.about, read))

    async def tokenize(self, request: Request) -> Response:
        fields = await self.guard.fields(request)
        text, messages, special, spelt = _to_tokenize(fields)
        if (text is None) == (messages is None):
            raise fields.bad("prompt", "a text is needed, or messages")
        prompts = self.service.prompts
        tokens = (prompts.chat(messages) if text is None else prompts.text(text, special)).tokens
        found = {"tokens": tokens, "count": len(tokens), "max_model_len": self.service.about.longest}
        return JSONResponse(found | ({"token_strs": [self.service.spell(t) for t in tokens]} if spelt else {}))

    async def detokenize(self, request: Request) -> Response:
        fields = await self.guard.fields(request)
        tokens = self._to_detokenize(fields)
        if tokens is None or self.service.prompts.tokenizer is None:
            raise fields.bad("tokens", "a list of token ids is needed, and a model with a tokenizer")
        return JSONResponse({"prompt": self.service.prompts.tokenizer.decode(list(tokens))})

    def _to_detokenize(self, fields: Fields) -> tuple[int, ...] | None:
        fields.any("model")
        tokens = fields.wholes("tokens", 0, self.service.about.vocabulary - 1)
        fields.done()
        return tokens

    # ---- answers ----------------------------------------------------------------------------------------------------

    async def completions(self, request: Request) -> Response:
        fields = await self.guard.fields(request)
        wanted = await asyncio.to_thread(asked.completion, fields, self.service.about, self.service.prompts)
        return await self._answer(request, wanted, False)

    async def chat(self, request: Request) -> Response:
        fields = await self.guard.fields(request)
        wanted = await asyncio.to_thread(asked.chat, fields, self.service.about, self.service.prompts)
        return await self._answer(request, wanted, True)

    async def _answer(self, request: Request, wanted: Asked, chat: bool) -> Response:
        name = f"{'chatcmpl' if chat else 'cmpl'}-{os.urandom(12).hex()}"
        head = wire.Head(name, int(time.time()), self.service.about.model, chat)
        answers = self._answers(wanted, head)
        events = self.service.events(wanted.requests)
        # The first event is awaited here, so that a refusal is still an HTTP status.
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            first = await _before(anext(events), gone)
            if wanted.stream and first.reason not in wire.FAILED:
                return StreamingResponse(
                    _streamed(first, events, answers, head, wanted.usage), media_type="text/event-stream"
                )
            while first is not None:
                answers[first.request_id, first.index].take(first)
                first = await _before(anext(events, None), gone)
        except _Gone:
            await events.aclose()
            return refusal("the client went away", 499)
        finally:
            gone.cancel()
        every = list(answers.values())
        failed = next((a for a in every if a.failed), None)
        if failed is not None:
            status = {"deadline": 504, "cancelled": 503}.get(failed.reason or "", 500)
            return refusal(failed.message or "the request was cancelled", status, None, failed.reason)
        return Response(wire.body(head, every), media_type="application/json")

    def _answers(self, wanted: Asked, head: wire.Head) -> dict[tuple[str, int], wire.Answer]:
        about = self.service.about
        found: dict[tuple[str, int], wire.Answer] = {}
        for request, prompt in zip(wanted.requests, wanted.prompts):
            for index in range(request.n):
                look = request.look
                limit = self.service.settings.look_bytes
                shown = None if look is None else Shown(look, about.num_layers, about.num_heads, limit)
                answer = wire.Answer(len(found), request, prompt, head, self.service.spell, shown)
                answer.echo, answer.drops, answer.tools = wanted.echo, wanted.drops, wanted.tools
                found[request.id, index] = answer
        return found


def _to_tokenize(fields: Fields) -> tuple[str | None, Any, bool, bool]:
    """The text or the messages, whether special tokens are added, whether tokens are spelt."""
    fields.any("model")
    text, messages = fields.text("prompt"), fields.any("messages")
    special, spelt = fields.flag("add_special_tokens", True), fields.flag("return_token_strs")
    fields.done()
    return text, messages, special, spelt


class _Gone(Exception):
    """The client closed its connection."""


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _before(next_event: Awaitable[Any], gone: asyncio.Future[None]) -> Any:
    """The next event, unless the client goes away before."""
    task = asyncio.ensure_future(next_event)
    await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        return task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
        await task
    raise _Gone


async def _streamed(
    first: Any, events: Any, answers: dict[tuple[str, int], wire.Answer], head: wire.Head, says_usage: bool
) -> AsyncIterator[str]:
    try:
        event = first
        while event is not None:
            answer = answers[event.request_id, event.index]
            choice = answer.chunk(event)
            if answer.failed:
                said = answer.message or "the request was cancelled"
                yield f"data: {json.dumps(wire.error(said, 500, None, answer.reason))}\n\n"
                return
            if choice is not None:
                yield wire.chunk(head, choice, None, says_usage)
            event = await anext(events, None)
        if says_usage:
            yield wire.chunk(head, None, wire.usage(list(answers.values())), True)
        yield "data: [DONE]\n\n"
    finally:
        await events.aclose()
