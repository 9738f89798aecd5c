"""From texts and chats to token ids, with where each message lies among them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from regard.serve.fields import BadRequest

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True)
class Prompt:
    """Token ids; the text where there was one; spans: (begin, end) token indices of each message of a chat."""

    tokens: list[int]
    text: str | None = None
    spans: tuple[tuple[int, int], ...] = ()


class Prompts:
    """Tokenises for one model. tokenizer may be None, and then only token ids are taken."""

    def __init__(self, tokenizer: Any, vocabulary: int, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.template = template

    def _need(self, param: str) -> Any:
        if self.tokenizer is None:
            raise BadRequest(f"{param}: this model has no tokenizer; send token ids to /v1/completions", param)
        return self.tokenizer

    def text(self, text: str, special: bool = True) -> Prompt:
        """A text as it is."""
        tokenizer = self._need("prompt")
        return Prompt(_plain(tokenizer(text, add_special_tokens=special)["input_ids"]), text)

    def ids(self, ids: list[int]) -> Prompt:
        """Token ids as they are."""
        outside = next((x for x in ids if not 0 <= x < self.vocabulary), None)
        if outside is not None:
            raise BadRequest(f"prompt: {outside} is no token id below {self.vocabulary}", "prompt")
        return Prompt(list(ids))

    def chat(self, messages: Any, tools: Any = None, extra: dict[str, Any] | None = None) -> Prompt:
        """Messages through the model's chat template."""
        tokenizer = self._need("messages")
        if self.template is None and not getattr(tokenizer, "chat_template", None):
            raise BadRequest(
                "messages: this model has no chat template; use /v1/completions, or start the server with "
                "--chat-template",
                "messages",
            )
        plain = [_message(m, i) for i, m in enumerate(_listed(messages, "messages"))]
        if tools is not None:
            tools = _listed(tools, "tools")
        text = self._render(plain, tools, extra or {}, True)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=bool(tokenizer.is_fast))
        tokens = _plain(encoded["input_ids"])
        spans = self._spans(plain, tools, extra or {}, text, encoded) if tokenizer.is_fast else ()
        return Prompt(tokens, text, spans)

    def _render(self, messages: list[dict[str, Any]], tools: Any, extra: dict[str, Any], ask: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tools=tools,
                    chat_template=self.template,
                    add_generation_prompt=ask,
                    tokenize=False,
                    **{k: v for k, v in extra.items() if k.isidentifier() and k not in RESERVED},
                )
            )
        except Exception as error:  # a template is a program of the model's, and may raise anything
            raise BadRequest(
                f"messages: the model's chat template refuses them: {str(error)[:200]}", "messages"
            ) from None

    def _spans(
        self, messages: list[dict[str, Any]], tools: Any, extra: dict[str, Any], text: str, encoded: Any
    ) -> tuple[tuple[int, int], ...]:
        """The tokens of each message, its role's marks included; () where the template does not write one after
        another."""
        ends = []
        for count in range(1, len(messages) + 1):
            try:
                part = self._render(messages[:count], tools, extra, False)
            except BadRequest:
                return ()
            if not text.startswith(part):
                return ()
            ends.append(len(part))
        begins = [offset[0] for offset in encoded["offset_mapping"]]
        edges = [0, *(sum(begin < end for begin in begins) for end in ends)]
        return tuple(pairwise(edges))


RESERVED = frozenset({"messages", "conversation", "tools", "chat_template", "add_generation_prompt", "tokenize"})


def _plain(ids: Any) -> list[int]:
    return [int(x) for x in ids]


def _listed(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(x, dict) for x in value):
        raise BadRequest(f"{name}: a list of objects is needed, at least one", name)
    return value


def _message(message: dict[str, Any], index: int) -> dict[str, Any]:
    """A message with its content as one text."""
    name = f"messages[{index}]"
    if message.get("role") not in ROLES:
        raise BadRequest(f"{name}.role: one of {', '.join(ROLES)} is needed", f"{name}.role")
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
                   for part in content):  # fmt: skip
            raise BadRequest(f"{name}.content: only parts of type text can be read", f"{name}.content")
        content = "".join(part["text"] for part in content)
    if content is not None and not isinstance(content, str):
        raise BadRequest(f"{name}.content: a text is needed", f"{name}.content")
    if content is None and not message.get("tool_calls"):
        raise BadRequest(f"{name}.content: a text is needed", f"{name}.content")
    return message | {"content": content or ""}
