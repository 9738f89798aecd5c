"""Opening Traces in the viewer: a local server with a token of its own, until it is interrupted."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regard.errors import UserError

if TYPE_CHECKING:
    from regard.seeing.trace import Trace

LOCAL = ("127.0.0.1", "localhost", "[::1]")


def open_traces(
    traces: Sequence[tuple[str, Trace]],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    allow_hosts: Sequence[str] = (),
    statistic: str | None = None,
) -> None:
    """Serve the viewer of Traces, each with its name, until interrupted; prints its address.

    host: the address to listen on; allow_hosts: other names that it is reached by, such as a proxy's. port: 0 takes a
    free one. Raises UserError for a port that is taken, or without the packages of the web app.
    """
    try:
        import uvicorn

        from regard.view.answers import Answers
        from regard.view.app import make_app
    except ImportError as error:
        raise UserError(f"the viewer needs {error.name}: pip install 'regard[serve]'") from None
    listening = _listen(host, port)
    token = secrets.token_urlsafe(18)
    names = [*LOCAL, f"[{host}]" if ":" in host else host, *allow_hosts]
    app = make_app(Answers(traces, statistic), token, names)
    address = f"http://{_reached(host)}:{listening.getsockname()[1]}/?token={token}"
    print(f"The viewer is at {address}  (Ctrl-C ends it)", flush=True)
    if _has_screen():
        webbrowser.open(address)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        raise UserError(f"cannot listen on {host}:{port}: {error}; give another --port or --host") from None
    return made


def _reached(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _has_screen() -> bool:
    """Whether a browser would open in a window: never a text browser in the terminal that prints the address."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return sys.stdout.isatty()
