"""Writing the Traces of a run to a file, in the format that its name ends in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regard.seeing.trace import Trace

SHAPES = ("heads", "maps", "lines")
FORMATS = (".html", ".png", ".svg", ".pdf", ".csv", ".json", ".md", ".safetensors")


def write(path: Path, traces: list[Trace], stat: str | None, heads: list[tuple[int, int]], shape: str) -> list[Path]:
    """Write one file (one for each trace where it is a saved Trace); the paths of what was written."""
    from regard.seeing.trace import write_whole
    from regard.view.difference import difference
    from regard.view.scene import scene

    kind = path.suffix.lower()
    if kind == ".safetensors":
        paths = [path, path.with_stem(f"{path.stem}-2")][: len(traces)]
        for trace, each in zip(traces, paths, strict=True):
            trace.save(each)
        return paths
    if kind == ".csv":
        from regard.view.sheet import sheet

        paths = [path, path.with_stem(f"{path.stem}-2")][: len(traces)]
        for trace, each in zip(traces, paths, strict=True):
            write_whole(each, sheet(trace, heads))
        return paths
    if kind == ".md":
        from regard.view.markdown import markdown

        write_whole(path, "\n".join(map(markdown, traces)))
        return [path]
    alone = len(traces) == 1
    drawn = scene(traces[0], statistic=stat) if alone else difference(traces[0], traces[1], statistic=stat)
    if kind == ".html":
        from regard.view.page import html

        write_whole(path, html(drawn))
    elif kind == ".json":
        write_whole(path, json.dumps(drawn))
    else:
        from regard.view.image import image

        write_whole(path, image(drawn, kind[1:], statistic=stat, heads=heads, shape=shape))
    return [path]
