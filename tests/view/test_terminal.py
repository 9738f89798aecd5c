"""The terminal: tokens and numbers are there, colours only where they are wanted, and no token can write escapes."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from regard.seeing.trace import Trace
from regard.view import read, terminal
from regard.view.difference import difference
from regard.view.scene import scene
from tests.view import traces

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def printed(trace: Trace, *, colour: bool = False, width: int = 100, **options: object) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=colour, color_system="truecolor" if colour else None, highlight=False
    )
    terminal.show(trace, console, **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_tokens_numbers_and_names_are_printed() -> None:
    trace = traces.decoder(12, 4, 6, text=traces.SENTENCE)
    text = printed(trace)
    for word in traces.SENTENCE:
        assert word.strip() in text
    for layer in trace.layers:
        for value in layer.summaries["induction"][0].tolist():
            assert f"{value:.2f}" in text
    link = scene(trace)["links"][0]
    assert f"{link['weight']:.3f}  ({link['layer']}.{link['head']})" in text
    assert "log10" in text and "0.0001" in text


def test_without_a_terminal_nothing_is_escaped_and_shades_stand_for_colours() -> None:
    text = printed(traces.decoder(200, 2, 2))
    assert "\x1b" not in text
    assert any(shade in text for shade in terminal.SHADES[2:])
    assert "▀" not in text


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    terminal.show(traces.decoder(200, 2, 2), Console(file=file, width=80, force_terminal=True))
    assert "38;2" not in file.getvalue() and "48;2" not in file.getvalue()


def test_long_maps_are_half_blocks_in_colour() -> None:
    text = printed(traces.decoder(200, 2, 2), colour=True, width=80)
    assert "▀" in text and "48;2" in text
    lines = [ESCAPES.sub("", line) for line in text.splitlines() if "▀" in line]
    assert 20 <= len(lines) <= terminal.MOST_LINES
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("colour", [True, False])
def test_tokens_cannot_inject_escapes(colour: bool) -> None:
    text = printed(traces.hostile(), colour=colour, width=160)
    assert "\x1b[31m" not in text and "\x07" not in text and "\u202e" not in text
    assert "\x1b" not in ESCAPES.sub("", text)
    assert "⟨ESC⟩" in text
    text.encode("utf-8")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("length", [5, 12, 60, 200])
def test_nothing_is_wider_than_the_terminal(width: int, length: int) -> None:
    drawn = scene(traces.decoder(length, 3, 20))
    about = read.statistic(drawn)
    assert about is not None
    grid = str(terminal.head_grid(drawn, about, width, True)).splitlines()[1:]
    heat = str(terminal.heat_map(drawn, 0, 1, "why", width, True)).splitlines()[1:-2]
    assert max(map(len, grid)) <= width
    assert max(map(len, heat)) <= width


def test_a_narrow_terminal_wraps_the_heads() -> None:
    drawn = scene(traces.decoder(6, 2, 30))
    about = read.statistic(drawn)
    assert about is not None
    text = str(terminal.head_grid(drawn, about, 50, False))
    assert text.count("head ") >= 3
    assert all(f" {head}" in text for head in range(30))


def test_the_chosen_head_is_drawn() -> None:
    assert "head 1.0  self-attention, as asked" in printed(traces.decoder(6, 2, 2), layer=1, head=0)


def test_a_comparison_prints_all_three() -> None:
    both = difference(traces.decoder(8, 1, 2), traces.decoder(8, 1, 2, seed=3))
    text = printed(both)  # type: ignore[arg-type]
    assert "A − B" in text and "difference, power" in text


@pytest.mark.parametrize("make", [traces.image, lambda: traces.decoder(1, 1, 1)])
def test_other_shapes_are_drawn(make: object) -> None:
    assert "head" in printed(make())  # type: ignore[operator]


@pytest.mark.parametrize("width", [60, 80])
def test_no_line_is_wider_than_the_terminal_and_legends_say_what_is_blank(width: int) -> None:
    for trace in (traces.decoder(12, 4, 6, text=traces.SENTENCE), traces.decoder(90, 2, 3), traces.hostile()):
        out = io.StringIO()
        terminal.show(trace, Console(file=out, width=width, no_color=True, highlight=False))
        lines = out.getvalue().splitlines()
        assert max(cell_len(line) for line in lines) <= width
        assert "rows are layers, columns heads" in out.getvalue() and "≤ 0.0001 ·░▒▓█ 1" in out.getvalue()
        assert width < 80 or any("query, position ← key, position" in " ".join(line.split()) for line in lines)
