"""One self-contained HTML page: styles, script and scene inlined, no network, readable from a file.

The script is a set of small ES modules that stand beside this file. `script` joins them into one in the order of their
imports, so there is no build step and nothing to install.
"""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from regard.seeing.trace import Trace
from regard.view import colour, words
from regard.view.scene import Scene, scene

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async function|function|const|class) (\w+)", re.MULTILINE)


def html(given: Trace | Scene) -> str:
    """The page of a Trace, of a scene, or of a comparison (regard.view.difference). Ends with a newline."""
    about: dict[str, Any] = scene(given) if isinstance(given, Trace) else given
    return filled("page.html", _title(about), about, connects="served" in about)


def filled(
    template: str,
    title: str,
    about: dict[str, Any],
    *,
    entry: str = "main",
    styles: Sequence[str] = ("page.css",),
    body: str = "",
    connects: bool = False,
) -> str:
    """A page of a template, with the script that begins at `entry`, and `body` where the template has room for it."""
    parts = {
        "policy": markup.escape(policy(connects, entry, styles), quote=True).replace("&#x27;", "'"),
        "title": markup.escape(title),
        "style": _style(styles),
        "colours": _json(_colours()),
        "scene": _json(about),
        "script": script(entry),
        "body": body,
    }
    return re.sub(r"%(\w+)%", lambda found: parts[found[1]], _asset(template))


def policy(connects: bool = False, entry: str = "main", styles: Sequence[str] = ("page.css",)) -> str:
    """The page's content security policy: its own style and script. connects: it may ask the server it came from."""
    asks = "connect-src 'self'; " if connects else ""
    return (
        f"default-src 'none'; script-src '{_hash(script(entry))}'; style-src '{_hash(_style(styles))}'; img-src data:; "
        f"{asks}base-uri 'none'; form-action 'none'"
    )


@cache
def script(entry: str = "main") -> str:
    """All modules as one: each a function scope of its own, after those that it imports."""
    return "\n".join(_ordered(entry, {}).values()) + "\n"


def _style(names: Sequence[str]) -> str:
    return "\n".join(_asset(name) for name in names)


def _ordered(name: str, done: dict[str, str]) -> dict[str, str]:
    text = _asset(f"{name}.js")
    for _, needed in _IMPORT.findall(text):
        if needed not in done:
            _ordered(needed, done)
    code = _IMPORT.sub(r"const {\1} = module_\2;\n", text)
    exported = ", ".join(_EXPORT.findall(code))
    code = _EXPORT.sub(lambda found: found[0].removeprefix("export "), code).strip("\n")
    done[name] = f"const module_{name} = (() => {{\n{code}\nreturn {{ {exported} }};\n}})();"
    return done


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _json(value: Any) -> str:
    """JSON that is safe inside a script element: ASCII, and no character that HTML reads."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _colours() -> dict[str, str]:
    ramps = {"sequential": colour.sequential, "diverging": colour.diverging}
    return {
        f"{kind} {ground}": base64.b64encode(ramp(ground == "light").tobytes()).decode("ascii")
        for kind, ramp in ramps.items()
        for ground in ("light", "dark")
    }


def _title(about: dict[str, Any]) -> str:
    first = about["scenes"][0] if "scenes" in about else about
    return f"{words.visible(first['model'] or 'attention')} · regard"
