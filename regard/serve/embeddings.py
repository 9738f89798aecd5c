"""The HTTP server of an encoder: /v1/embeddings in OpenAI's shape."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from regard.serve import schema, transport
from regard.serve.embedder import Embedder
from regard.serve.fields import BadRequest, Fields
from regard.serve.prompt import Prompts
from regard.serve.service import Settings

MOST_TEXTS = 2048
IGNORED = ("user",)


@dataclass(frozen=True)
class Asked:
    """Token ids of each text; whether vectors are written as base64 of float32."""

    texts: list[list[int]]
    packed: bool


def asked(fields: Fields, name: str, embedder: Embedder, prompts: Prompts) -> Asked:
    """The body of a request. Raises BadRequest, which names the field."""
    for ignored in IGNORED:
        fields.any(ignored)
    model = fields.text("model")
    if model is not None and model != name:
        raise BadRequest(f"model: {model!r} is not served here, {name!r} is", "model", 404, "model_not_found")
    form = fields.text("encoding_format", "float")
    if form not in ("float", "base64"):
        raise fields.bad("encoding_format", f'must be "float" or "base64", got {str(form)[:30]!r}')
    fields.whole("dimensions", None, embedder.width, embedder.width)
    texts = _texts(fields, prompts)
    fields.done()
    for index, text in enumerate(texts):
        if not 0 < len(text) <= embedder.longest:
            raise fields.bad("input", f"text {index} has {len(text)} tokens; 1 to {embedder.longest} can be read")
    return Asked(texts, form == "base64")


def _texts(fields: Fields, prompts: Prompts) -> list[list[int]]:
    sent = fields.any("input")
    if isinstance(sent, str) or (isinstance(sent, list) and sent and all(_is_id(x) for x in sent)):
        sent = [sent]
    if not isinstance(sent, list) or not 0 < len(sent) <= MOST_TEXTS:
        raise fields.bad("input", f"a text, token ids, or a list of 1 to {MOST_TEXTS} of them is needed")
    texts = []
    for one in sent:
        if isinstance(one, str):
            texts.append(prompts.text(one).tokens)
        elif isinstance(one, list) and one and all(_is_id(x) for x in one):
            texts.append(prompts.ids(one).tokens)
        else:
            raise fields.bad("input", "each is a text or a list of token ids")
    return texts


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def make_app(embedder: Embedder, prompts: Prompts, name: str, settings: Settings) -> Starlette:
    """The ASGI application. One forward runs at a time, in a thread of its own."""
    guard, turn = transport.Guard(settings), asyncio.Lock()
    about = {"id": name, "object": "model", "created": 0, "owned_by": "regard", "max_model_len": embedder.longest}

    async def embeddings(request: Request) -> Response:
        fields = await guard.fields(request)
        wanted = await asyncio.to_thread(asked, fields, name, embedder, prompts)
        async with turn:
            vectors = await asyncio.to_thread(embedder.embed, wanted.texts)
        count = sum(map(len, wanted.texts))
        data = [
            {"object": "embedding", "index": i, "embedding": written}
            for i, written in enumerate(_written(vectors, wanted.packed))
        ]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return JSONResponse({"object": "list", "data": data, "model": name, "usage": usage})

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [about]})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def openapi(request: Request) -> Response:
        recorded = schema.Recorded({"input": "a"})
        asked(recorded, name, embedder, schema.NoPrompts(prompts))
        return JSONResponse(schema.openapi(name, {"/v1/embeddings": recorded.schema("input")}))

    async def elsewhere(request: Request) -> Response:
        path = request.url.path
        return transport.refusal(f"{name} is an encoder and writes no text; {path} needs a causal language model", 400)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/openapi.json", openapi),
            Route("/v1/models", guard(models)),
            Route("/v1/embeddings", guard(embeddings), methods=["POST"]),
            Route("/v1/completions", guard(elsewhere), methods=["POST"]),
            Route("/v1/chat/completions", guard(elsewhere), methods=["POST"]),
        ],
        exception_handlers=transport.ERRORS,
    )


def _written(vectors: Tensor, packed: bool) -> list[Any]:
    if not packed:
        return [[round(x, 8) for x in vector] for vector in vectors.tolist()]
    return [base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode() for vector in vectors]
