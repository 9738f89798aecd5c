"""Structured output: which tokens a JSON schema, a regular expression or a grammar allows next, by llguidance."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.serve.request import Grammar


class Grammars:
    """Compiles grammars for one tokenizer; made when the first request asks for one."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        try:
            import llguidance
            import llguidance.hf
        except ImportError:
            raise UserError("response_format: this server has no llguidance: pip install 'regard[serve]'") from None
        self._library = llguidance
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=max(vocabulary, len(tokenizer)))
        self.vocabulary = vocabulary

    def matcher(self, grammar: Grammar) -> Matcher:
        """A fresh matcher. Raises UserError for a grammar that llguidance does not take."""
        library = self._library.LLMatcher
        try:
            match grammar.kind:
                case "json_schema":
                    compiled = library.grammar_from_json_schema(
                        json.loads(grammar.text), defaults={"whitespace_flexible": False}
                    )
                case "regex":
                    compiled = library.grammar_from_regex(grammar.text)
                case "lark":
                    compiled = library.grammar_from_lark(grammar.text)
        except ValueError as error:
            raise UserError(f"response_format: {_first(str(error))}") from None
        problem = library.validate_grammar(compiled, self._tokenizer)
        if problem:
            raise UserError(f"response_format: {_first(problem)}")
        return Matcher(library(self._tokenizer, compiled), self.vocabulary)


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, inner: Any, vocabulary: int) -> None:
        self.inner = inner
        self.vocabulary = vocabulary

    def allowed(self) -> Tensor:
        """bool [vocabulary]: the tokens that may come next."""
        packed = torch.frombuffer(bytearray(self.inner.compute_bitmask()), dtype=torch.int32)
        bits = (packed[:, None] >> torch.arange(32, dtype=torch.int32)) & 1
        allowed = torch.zeros(self.vocabulary, dtype=torch.bool)
        flat = bits.flatten()[: self.vocabulary].bool()
        allowed[: len(flat)] = flat
        return allowed

    def take(self, token: int) -> None:
        """One token further."""
        self.inner.consume_token(token)

    @property
    def is_done(self) -> bool:
        """Whether nothing but the end may follow."""
        return bool(self.inner.is_stopped())

    @property
    def error(self) -> str:
        """What went wrong, empty where nothing did."""
        return str(self.inner.get_error() or "")

    def copy(self) -> Matcher:
        """An independent matcher at the same state."""
        return Matcher(self.inner.deep_copy(), self.vocabulary)


def _first(message: str) -> str:
    return " ".join(message.split())[:300]
