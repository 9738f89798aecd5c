"""The viewer's server in a thread of the test, on a free local port."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from regard.seeing.trace import Trace
from regard.view.answers import Answers
from regard.view.app import make_app

TOKEN = "the-token"


@contextlib.contextmanager
def serving(*named: tuple[str, Trace]) -> Iterator[str]:
    """The address of a viewer of these Traces, with its token."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(Answers(named), TOKEN, ["127.0.0.1"]), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/?token={TOKEN}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
