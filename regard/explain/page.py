"""An Explanation as one self-contained HTML page: tables and a style sheet, no script, nothing loaded."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib import resources

import numpy as np

from regard.explain import shade
from regard.explain.maths import mathml
from regard.explain.record import Explanation, Panel, Step
from regard.view import colour, words

STEPS = 48


def html(given: Explanation) -> str:
    """The page. A strict policy allows its one style sheet and nothing else; every text is escaped."""
    style = resources.files("regard.explain").joinpath("page.css").read_text("utf-8") + _ramps()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    name = _said(given.title)
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name} · regard explain</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
    )
    parts = [_heading(given), _pattern(given), _parts(given), _example(given)]
    return head + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"


def _heading(given: Explanation) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{_said(text)}</dd>\n" for name, text in shade.facts(given)[1:])
    return (
        f"<header><p class=family>{_said(given.family)}</p><h1>{_said(given.title)}</h1>"
        f"<p class=line>{_said(given.line)}</p><p class=equation>{_maths(given.equation)}</p></header>\n"
        f"<dl>\n{rows}</dl>"
    )


def _pattern(given: Explanation) -> str:
    if given.pattern is None:
        return ""
    pictures = "\n".join(_flags(panel) for panel in given.pattern.panels)
    legend = escape(shade.legend(given.pattern.panels))
    return (
        f"<section><h2>What it can attend to</h2><div class=panels>{pictures}</div><p class=said>{legend}</p></section>"
    )


def _flags(panel: Panel) -> str:
    names = ("hidden", "light", "full")
    rows = "".join(
        "<tr>" + "".join(f"<td class={names[int(value or 0)]}></td>" for value in row) + "</tr>" for row in panel.values
    )
    caption = f"<figcaption>{_said(panel.title)}</figcaption>" if panel.title else ""
    said = f"visible pairs of {panel.title or 'every head'}, {len(panel.rows)} queries by {len(panel.columns)} keys"
    return f'<figure><table class=flags aria-label="{escape(said)}">{rows}</table>{caption}</figure>'


def _parts(given: Explanation) -> str:
    if not given.parts:
        return ""
    rows = "".join(
        f"<tr><td>{_said(part.slot)}</td><th>{_said(part.name)}</th><td>{_maths(part.meaning)}</td></tr>\n"
        for part in given.parts
    )
    return f"<section><h2>Parts</h2><table class=parts>\n{rows}</table></section>"


def _example(given: Explanation) -> str:
    if not given.steps:
        return ""
    words_of = " ".join(_said(token) for token in given.tokens)
    steps = "\n".join(_step(number, step) for number, step in enumerate(given.steps, 1))
    return (
        f"<section><h2>Worked example: <q>{words_of}</q></h2><p class=said>{_said(given.about)}</p>\n"
        f"<ol>\n{steps}\n</ol></section>"
    )


def _step(number: int, step: Step) -> str:
    panels = "\n".join(_matrix(panel) for panel in step.panels)
    said = f"<p class=said>{_said(step.said)}</p>" if step.said else ""
    return (
        f"<li><h3>{_said(shade.title(step))} <small>{_said(step.shape)}</small></h3>"
        f"<p class=equation>{_maths(step.equation)}</p><div class=panels>{panels}</div>{said}</li>"
    )


def _matrix(panel: Panel) -> str:
    places, sums = shade.places(panel), shade.sums(panel)
    letter = "s" if panel.kind in ("weights", "flags") else "d"
    head = "".join(f"<th scope=col>{_said(words.tag(name, 12))}</th>" for name in panel.columns)
    rows = []
    for name, values, row, place in zip(panel.rows, panel.values, places, range(len(panel.rows))):
        cells = "".join(_cell(shade.shown(panel, value), value, at, letter) for value, at in zip(values, row))
        total = f"<td class=sum>{sums[place]}</td>" if sums else ""
        rows.append(f"<tr><th scope=row>{_said(words.tag(name, 14))}</th>{cells}{total}</tr>")
    caption = f"<figcaption>{_said(panel.title)}</figcaption>" if panel.title else ""
    corner = "<th class=sum>sum</th>" if sums else ""
    body = "\n".join(rows)
    return f"<figure><table class=matrix><tr><td></td>{head}{corner}</tr>\n{body}</table>{caption}</figure>"


def _cell(shown: str, value: float | None, place: float, letter: str) -> str:
    if value is None or np.isnan(place):
        return "<td class=hidden></td>"
    return f'<td class={letter}{round(float(place) * (STEPS - 1))} title="{value:.6g}">{shown}</td>'


def _ramps() -> str:
    light, dark = (_rules(ground) for ground in (True, False))
    return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _rules(light: bool) -> str:
    lines = []
    for letter, table in (("s", shade.table("sequential", light)), ("d", shade.table("diverging", light))):
        for step in range(STEPS):
            rgb = shade.rgb(table, step / (STEPS - 1))
            ink = colour.ink_on(rgb)
            lines.append(f".{letter}{step} {{ background: rgb{rgb}; color: rgb{ink} }}\n")
    full, some = (shade.rgb(shade.table("sequential", light), at) for at in (0.85, 0.3))
    return "".join(lines) + f".full {{ background: rgb{full} }}\n.light {{ background: rgb{some} }}\n"


def _maths(text: str) -> str:
    return mathml(words.visible(text)) if text else ""


def _said(text: str) -> str:
    return escape(words.visible(text)) if text else ""
