"""What a Trace draws of itself. Pictures read Traces and not the other way round, so this imports them when called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from regard.seeing.trace import Trace


class Drawn:
    """The methods of a Trace that end in a picture or a table; each writes a file whole or not at all."""

    def html(self, path: str | Path, *, statistic: str | None = None) -> None:
        """Write the page: one file that needs no network. statistic: the label that colours the heads at first."""
        from regard.view.page import html
        from regard.view.scene import scene

        _write(path, html(scene(cast("Trace", self), statistic=statistic)))

    def png(
        self,
        path: str | Path,
        *,
        statistic: str | None = None,
        heads: Sequence[tuple[int, int]] = (),
        shape: str = "heads",
    ) -> None:
        """Write a picture of `heads`, each (layer, head); by default of a telling one.

        shape: "heads" is the grid of heads and the maps of `heads`; "maps" a small map of every head; "lines" the
        `heads` of a layer as lines between two columns of tokens. Raises TraceError for a statistic, layer or head that
        was not watched.
        """
        _write(path, self._image("png", statistic, heads, shape))

    def svg(
        self,
        path: str | Path,
        *,
        statistic: str | None = None,
        heads: Sequence[tuple[int, int]] = (),
        shape: str = "heads",
    ) -> None:
        """Write the picture as `png` does, with text as text."""
        _write(path, self._image("svg", statistic, heads, shape))

    def _image(self, kind: str, statistic: str | None, heads: Sequence[tuple[int, int]], shape: str) -> bytes:
        from regard.view.image import image

        trace = cast("Trace", self)
        wanted = [(trace.layers.index(trace.layer(layer)), head) for layer, head in heads]
        return image(trace, kind, statistic=statistic, heads=wanted, shape=shape)

    def words(self) -> Trace:
        """The same of whole words: their pieces' weights summed over keys and averaged over queries.

        Raises UserError for several sequences, TraceError where exact weights were not kept.
        """
        from regard.view.by_words import by_words

        return by_words(cast("Trace", self))

    def frame(self) -> Any:
        """A pandas DataFrame: a row for each layer, head and sequence, a column for each statistic's one number."""
        from regard.view.frame import frame

        return frame(cast("Trace", self))

    def widget(self, *, height: int = 900) -> Any:
        """The viewer in a notebook, where every exact weight can be asked for (needs anywidget)."""
        from regard.view.widget import widget

        return widget(cast("Trace", self), height=height)

    def markdown(self, path: str | Path | None = None) -> str:
        """A Markdown table, also written to `path`: a row for each head, a column for each statistic's one number."""
        from regard.view.markdown import markdown

        table = markdown(cast("Trace", self))
        if path is not None:
            _write(path, table)
        return table

    def _repr_html_(self) -> str:
        from regard.view.notebook import notebook

        return notebook(cast("Trace", self))


def _write(path: str | Path, content: bytes | str) -> None:
    from regard.seeing.trace import write_whole

    write_whole(path, content)
