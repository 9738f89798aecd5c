"""The page inside a notebook."""

from __future__ import annotations

import html as markup

from regard.seeing.trace import Trace
from regard.view.page import html
from regard.view.scene import Scene


def notebook(given: Trace | Scene, height: int = 820) -> str:
    """The page of a Trace as a frame of its own, `height` pixels tall, which can reach neither notebook nor network."""
    page = markup.escape(html(given), quote=True)
    style = f"width:100%;height:{height}px;border:0"
    return (
        f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="{style}" title="Attention, drawn by regard"></iframe>'
    )
