"""HTTP around the routes of every server: who may ask, how large a body may be, errors in OpenAI's form."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from regard.errors import UserError
from regard.serve import wire
from regard.serve.fields import BadRequest, Fields, parse_json
from regard.serve.scheduler import QueueFull
from regard.serve.service import Settings

RETRY_SECONDS = 1
Handler = Callable[[Request], Awaitable[Response]]


def refusal(message: str, status: int, param: str | None = None, code: str | None = None, **headers: str) -> Response:
    """An error in OpenAI's form."""
    return JSONResponse(wire.error(message, status, param, code), status, headers=headers)


async def _bad(request: Request, error: Exception) -> Response:
    status, param, code = (getattr(error, name, None) for name in ("status", "param", "code"))
    head = str(error).split(":")[0]
    return refusal(str(error), status or 400, param or (head if head.isidentifier() else None), code)


async def _full(request: Request, error: Exception) -> Response:
    return refusal(str(error), 429, None, "queue_full", **{"Retry-After": str(RETRY_SECONDS)})


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: f"there is no {request.url.path} here", 405: f"{request.url.path} does not take {request.method}"}
    return refusal(said.get(error.status_code, str(error.detail)), error.status_code, **(error.headers or {}))


async def _broken(request: Request, error: Exception) -> Response:
    return refusal(f"the server failed: {type(error).__name__}", 500)


ERRORS: dict[Any, Any] = {QueueFull: _full, UserError: _bad, HTTPException: _http, Exception: _broken}


class Guard:
    """Lets in who knows the key, and no page of another site; reads bodies of bounded size."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, handler: Handler) -> Handler:
        """The same handler, for requests that may ask."""

        async def checked(request: Request) -> Response:
            origin, host = request.headers.get("origin"), request.headers.get("host", "")
            if origin is not None and origin.split("://")[-1] != host:
                return refusal(f"pages of {origin[:100]} may not use this server", 403)
            key = self.settings.api_key
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            if key is not None and not hmac.compare_digest(sent.encode(), key.encode()):
                return refusal("the API key is missing or wrong; send it as Authorization: Bearer KEY", 401)
            return await handler(request)

        return checked

    async def fields(self, request: Request) -> Fields:
        """The JSON object of a body, to be read field by field."""
        most = self.settings.body_bytes
        parts, size = [], 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise BadRequest(f"the body is larger than the {most} bytes that this server reads", None, 413)
                parts.append(part)
        except ClientDisconnect:
            raise BadRequest("the client went away") from None
        return Fields(parse_json(b"".join(parts)))
