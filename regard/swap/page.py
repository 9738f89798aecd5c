"""A comparison as one page that stands by itself: the picture, the table, each layer's error."""

from __future__ import annotations

from html import escape

from regard.swap.plot import picture
from regard.swap.records import Comparison
from regard.swap.report import table

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;margin:2rem auto;max-width:64rem;padding:0 1rem}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}svg{width:100%;height:auto}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left;max-width:22rem;overflow-wrap:anywhere}
"""


def html(comparison: Comparison) -> str:
    """The whole page as text; it loads nothing from anywhere."""
    svg = picture(comparison, "svg").decode()
    svg = svg[svg.index("<svg") :]
    layers = range(len(comparison.own.quality.layer_error))
    errors = [["attention", *(f"layer {n}" for n in layers)]]
    errors += [[row.name, *(f"{error:.3g}" for error in row.quality.layer_error)] for row in comparison.rows]
    title = f"{comparison.model}: another attention in its place"
    said = f"{comparison.tokens:,} tokens predicted, {comparison.context:,} in a row."
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1><p>{said}</p>{svg}"
        f"<h2>Quality and cost</h2>{_table(table(comparison))}"
        f"<h2>Relative error of each layer’s output</h2>{_table(errors)}</html>\n"
    )


def _table(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
