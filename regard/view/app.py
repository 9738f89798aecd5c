"""The viewer as a web app: one page, and answers to what it asks, for whoever holds the token and nobody else."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from regard.errors import UserError
from regard.view.answers import Answers, Refused
from regard.view.page import html, policy

AT_ONCE = 2
MOST_WAITING = 256
PRIVATE = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(answers: Answers, token: str, hosts: Sequence[str]) -> Starlette:
    """The ASGI application. token: what every request must carry; hosts: names that it may be reached by."""
    routes = _Routes(answers, token, {host.lower() for host in hosts})
    return Starlette(
        routes=[Route("/", routes.page), Route("/ask/{what}", routes.ask)],
        exception_handlers={UserError: _refused, HTTPException: _http, Exception: _broken},
    )


def _said(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status, headers=PRIVATE)


async def _refused(request: Request, error: Exception) -> Response:
    return _said(str(error), getattr(error, "status", 400))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said(str(error.detail), error.status_code)


async def _broken(request: Request, error: Exception) -> Response:
    return _said(f"the viewer failed: {type(error).__name__}", 500)


class _Routes:
    def __init__(self, answers: Answers, token: str, hosts: set[str]) -> None:
        self.answers = answers
        self.token = token
        self.hosts = hosts
        self.working = asyncio.Semaphore(AT_ONCE)
        self.waiting = 0

    def check(self, request: Request) -> None:
        """Raises Refused for a request under another name, from another page, or without the token."""
        if host_name(request.headers.get("host", "")) not in self.hosts:
            raise Refused("the viewer is not reached by this name; start it with --allow-host NAME", 403)
        origin = request.headers.get("origin")
        if origin is not None and host_name(origin.split("://")[-1]) not in self.hosts:
            raise Refused("pages of other sites may not ask the viewer", 403)
        if request.headers.get("sec-fetch-site") == "cross-site" and request.url.path != "/":
            raise Refused("pages of other sites may not ask the viewer", 403)
        carried = request.headers.get("x-regard-token") or request.query_params.get("token", "")
        if not hmac.compare_digest(carried.encode(), self.token.encode()):
            raise Refused("the token is missing or wrong; open the address that the command printed", 401)

    async def page(self, request: Request) -> Response:
        self.check(request)
        which, batch = (request.query_params.get(name, "0") for name in ("trace", "batch"))
        if not all(re.fullmatch("[0-9]{1,9}", text) for text in (which, batch)):
            raise Refused("trace and batch are whole numbers from 0 on")
        page = await self._worked(lambda: html(self.answers.scene(int(which), int(batch))))
        return HTMLResponse(page, headers=PRIVATE | {"Content-Security-Policy": policy(connects=True)})

    async def ask(self, request: Request) -> Response:
        self.check(request)
        what, fields = request.path_params["what"], dict(request.query_params)
        answer = await self._worked(lambda: self.answers.answer(what, fields), request)
        return Response(answer, media_type="application/octet-stream", headers=PRIVATE)

    async def _worked(self, work: Any, request: Request | None = None) -> Any:
        """The work in a thread, a few at once. Raises Refused where too many wait, or whoever asked has left."""
        if self.waiting >= MOST_WAITING:
            raise Refused(f"{MOST_WAITING} requests are waiting already; ask again in a second", 429)
        self.waiting += 1
        try:
            async with self.working:
                if request is not None and await request.is_disconnected():
                    raise Refused("whoever asked has left", 499)
                return await run_in_threadpool(work)
        finally:
            self.waiting -= 1


def host_name(host: str) -> str:
    """A Host header without its port, in small letters."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::[0-9]+)?", host.strip().lower())
    return found[1] if found else ""
