"""A real server on loopback in a thread, over the embedded model."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import uvicorn

from regard.serve.app import make_app
from regard.serve.command import Options, serving
from regard.serve.service import Service

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
SMALL = Options(memory=8 << 20, max_running=8, token_budget=64, max_waiting=16)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application that runs in a thread."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listening.close()
        assert not thread.is_alive()


@contextmanager
def running(options: Options = SMALL, template: str | None = TEMPLATE, **changed: Any) -> Iterator[tuple[str, Service]]:
    """(address, service). changed: fields of the options."""
    service, _ = serving(replace(options, **changed))
    service.prompts.template = template
    with served(make_app(service)) as address:
        yield address, service
    assert service.engine.failure is None
    service.engine.scheduler.pool.check([])
