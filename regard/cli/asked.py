"""What the words of `regard see` ask for: which models on which inputs, which saved Traces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from regard.cli.reading import is_file, is_media
from regard.errors import UserError

SENTENCE = "A fluffy blue creature roamed the verdant forest."
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Saved:
    """A Trace in a file."""

    path: str

    @property
    def name(self) -> str:
        """What the viewer calls it."""
        return Path(self.path).name


@dataclass(frozen=True)
class Fresh:
    """A model to run on an input. model: a directory or hub name, None for the embedded one."""

    model: str | None
    given: str

    @property
    def name(self) -> str:
        """What the viewer calls it."""
        return f"{self.model or 'the embedded model'}: {self.given[:60]}"


Asked = Saved | Fresh


def asked(model: str | None, given: str | None, other: str | None) -> list[Asked]:
    """One thing to see, or two to compare.

    model: a model, a saved Trace, or, alone, an input of the embedded model. given: an input; after a Trace, another
    Trace. other: a second input, model or Trace. Raises UserError where a word can be read in two ways.
    """
    if model is not None and _is_trace(model):
        return _traces(model, given, other)
    if given is None:
        return [_alone(model)]
    if _is_model(given):
        raise UserError(f"{given} is a model; give the INPUT first, then the second model: MODEL INPUT {given}")
    first = Fresh(model, _words(given))
    if other is None:
        return [first]
    if _is_trace(other):
        return [first, Saved(other)]
    if _is_model(other):
        return [first, Fresh(other, first.given)]
    return [first, Fresh(model, _words(other))]


def _alone(word: str | None) -> Fresh:
    """A single word: an input where it can only be one, else a model."""
    if word is None:
        return Fresh(None, SENTENCE)
    if not word.strip():
        raise UserError("the text is empty; give at least one word")
    if is_file(word) and not is_media(word) and Path(word).suffix != ".json":
        return Fresh(None, _words(word))
    if len(word.split()) > 1 or word == "-" or word.startswith("@") or is_media(word):
        return Fresh(None, word)
    return Fresh(word, SENTENCE)


def _traces(first: str, second: str | None, other: str | None) -> list[Asked]:
    if second is None:
        return [Saved(first)]
    if not _is_trace(second) or other is not None:
        raise UserError(f"{first} is a saved Trace and takes no INPUT; give a second Trace to compare it with, or none")
    return [Saved(first), Saved(second)]


def _words(given: str) -> str:
    """An input as it is. Raises UserError for the bare name of a file, which could mean its name or its words."""
    if is_file(given) and not is_media(given):
        raise UserError(
            f"{given} is a file; give @{given} to read the text in it (or - and these words on standard input)"
        )
    return given


def _is_trace(word: str) -> bool:
    return word.endswith(".safetensors")


def _is_model(word: str) -> bool:
    """A model's directory, a hub name with its owner, or a hub name that was downloaded before."""
    if any(character.isspace() for character in word):
        return False
    try:
        if (Path(word) / "config.json").is_file():
            return True
    except (OSError, ValueError):
        return False
    return not is_file(word) and (HUB_NAME.fullmatch(word) is not None or _downloaded(word))


def _downloaded(name: str) -> bool:
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*[A-Za-z0-9]", name) is None or "--" in name or ".." in name:
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)
