"""Text one token at a time; stop strings across tokens; calls of tools; guesses."""

from __future__ import annotations

import json
import random

import pytest

from regard.serve.lookup import guess
from regard.serve.text import Detokeniser, StopStrings
from regard.serve.tools import held_from, tool_calls


class Bytes:
    """A tokenizer of bytes: characters may take several tokens."""

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(t for t in tokens if t < 256 or not skip_special_tokens).decode("utf-8", errors="replace")


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語 and 😀 here", "e\u0301 and " + FAMILY])
def test_parts_add_up_and_no_character_is_broken(text: str) -> None:
    words = Detokeniser(Bytes(), list(b"before "))
    parts = [words.add(token) for token in text.encode()]
    assert "".join(parts) == text
    assert all("\ufffd" not in part for part in parts)


def test_bytes_that_never_become_a_character_come_out_at_the_end() -> None:
    words = Detokeniser(Bytes(), [])
    assert words.add(0xE6) == "" and words.rest() == "\ufffd"


def test_stop_strings_are_met_across_parts_and_never_shown() -> None:
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choice("ab#") for _ in range(30))
        stops = StopStrings(("##", "ab#a"))
        shown, met, at = "", None, 0
        while at < len(text) and met is None:
            size = draw.randint(1, 4)
            part, met = stops.add(text[at : at + size])
            shown, at = shown + part, at + size
        if met is None:
            shown += stops.rest()
            assert shown == text and "##" not in text and "ab#a" not in text
        else:
            assert text.startswith(shown + met)
            assert "##" not in shown and "ab#a" not in shown


def test_a_stop_string_can_be_kept() -> None:
    assert StopStrings(("end",), keep=True).add("the end of") == ("the end", "end")


CALL = {"name": "weather", "arguments": {"city": "Paris"}}


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (f"I look.\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>", "I look."),
        (f"[TOOL_CALLS] [{json.dumps(CALL)}]", ""),
        (json.dumps({"name": "weather", "parameters": {"city": "Paris"}}), ""),
        (f"<|python_tag|>{json.dumps(CALL)}", ""),
    ],
)
def test_calls_in_the_forms_in_which_models_write_them(text: str, rest: str) -> None:
    left, (call,) = tool_calls(text)
    assert left == rest
    assert call["function"]["name"] == "weather" and json.loads(call["function"]["arguments"]) == {"city": "Paris"}


NO_CALLS = ["no call", "<tool_call>{broken</tool_call>", "{not json", '{"a": 1}', "[TOOL_CALLS] []"]


@pytest.mark.parametrize("text", NO_CALLS)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert tool_calls(text) == (text, [])


def test_a_stream_holds_back_where_a_call_may_begin() -> None:
    assert held_from("hello") == 5
    assert held_from("hello <tool") == 6
    assert held_from("hello <tool_call>{") == 6
    assert held_from("{") == 0


def test_guesses_are_what_followed_before() -> None:
    assert guess([1, 2, 3, 4, 5, 1, 2, 3], 2) == (4, 5)
    assert guess([1, 2, 9, 7, 1, 2], 5) == (9, 7, 1, 2)
    assert guess([1, 2, 3], 4) == ()
    assert guess([7], 4) == ()
