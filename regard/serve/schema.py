"""The OpenAPI description of the server, read off the parser itself: what it reads, with its types and bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regard.serve import asked
from regard.serve.asked import About
from regard.serve.fields import Fields
from regard.serve.prompt import ROLES, Prompt, Prompts

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": list(ROLES)}, "content": {"type": "string"}},
    },
}
TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
TEXTS = {"type": "array", "items": {"type": "string"}}
PROMPT = {"anyOf": [{"type": "string"}, TEXTS, TOKENS, {"type": "array", "items": TOKENS}]}
REQUIRED = {"/detokenize": ["tokens"]}
SHAPES: dict[str, dict[str, Any]] = {
    "prompt": PROMPT,
    "input": PROMPT,
    "messages": MESSAGES,
}  # of fields that are read as they are
STATUSES = {
    "400": "a field is wrong; param names it",
    "401": "the API key is missing or wrong",
    "403": "a page of another site asks",
    "404": "the model is not served here",
    "413": "the body is too large",
    "429": "the queue is full; Retry-After says when to come again",
    "503": "the server stops, or has failed",
    "504": "the request's time ran out",
}


class Recorded(Fields):
    """A body being read that writes down, as JSON Schema, what is asked of it."""

    def __init__(self, body: dict[str, Any], inside: str = "") -> None:
        super().__init__(body, inside)
        self.properties: dict[str, Any] = {}

    def _note(self, field: str, schema: dict[str, Any]) -> None:
        self.properties[field] = schema | ({"type": [schema["type"], "null"]} if "type" in schema else {})

    def any(self, field: str, default: Any = None) -> Any:
        """A field of any shape, unless SHAPES says more."""
        self.properties.setdefault(field, SHAPES.get(field, {}))
        return super().any(field, default)

    def number(self, field: str, default: float, low: float, high: float) -> float:
        """A number within bounds."""
        self._note(field, {"type": "number", "minimum": low, "maximum": high, "default": default})
        return super().number(field, default, low, high)

    def whole(self, field: str, default: int | None, low: int, high: int) -> int | None:
        """A whole number within bounds."""
        self._note(field, {"type": "integer", "minimum": low, "maximum": high, "default": default})
        return super().whole(field, default, low, high)

    def flag(self, field: str, default: bool = False) -> bool:
        """true or false."""
        self._note(field, {"type": "boolean", "default": default})
        return super().flag(field, default)

    def text(self, field: str, default: str | None = None) -> str | None:
        """A string."""
        self._note(field, {"type": "string"})
        return super().text(field, default)

    def strings(self, field: str, most: int, longest: int = 1000) -> tuple[str, ...]:
        """A string or a list of strings."""
        one = {"type": "string", "minLength": 1, "maxLength": longest}
        self._note(field, {"anyOf": [one, {"type": "array", "items": one, "maxItems": most}, {"type": "null"}]})
        return super().strings(field, most, longest)

    def wholes(self, field: str, low: int, high: int, most: int = 1 << 20) -> tuple[int, ...] | None:
        """A list of whole numbers."""
        items = {"type": "integer", "minimum": low, "maximum": high}
        self._note(field, {"type": "array", "items": items, "maxItems": most})
        return super().wholes(field, low, high, most)

    def inner(self, field: str) -> Fields | None:
        """An object, written down by its own reading."""
        value = self.any(field)
        if not isinstance(value, dict):
            return None
        inner = Recorded(value, self.name(field))
        self.properties[field] = {"type": ["object", "null"], "properties": inner.properties}
        return inner

    def schema(self, *required: str) -> dict[str, Any]:
        """What was read. A field that was not is refused, so there are no others."""
        return {
            "type": "object",
            "required": list(required),
            "properties": self.properties,
            "additionalProperties": False,
        }


class NoPrompts(Prompts):
    """Stands in for a tokenizer: one token for anything."""

    def __init__(self, prompts: Prompts | None = None, vocabulary: int = 1) -> None:
        super().__init__(None, vocabulary if prompts is None else prompts.vocabulary)

    def text(self, text: str, special: bool = True) -> Prompt:
        return Prompt([0], text)

    def chat(self, messages: Any, tools: Any = None, extra: dict[str, Any] | None = None) -> Prompt:
        return Prompt([0], "")


def bodies(about: About) -> dict[str, dict[str, Any]]:
    """The JSON Schema of each route's body."""
    every = {"attention": {}, "stream_options": {}, "response_format": {"type": "text"}}
    completion, chat = Recorded(every | {"prompt": "a"}), Recorded(every | {"messages": []})
    prompts = NoPrompts(vocabulary=about.vocabulary)
    asked.completion(completion, about, prompts)
    asked.chat(chat, about, prompts)
    for recorded in (completion, chat):
        said = recorded.properties["attention"]
        recorded.properties["attention"] = {"anyOf": [{"type": ["boolean", "null"]}, said]}
    return {
        "/v1/completions": completion.schema("prompt"),
        "/v1/chat/completions": chat.schema("messages"),
    }


def of_decoder(about: About, others: Mapping[str, Callable[[Fields], Any]]) -> dict[str, Any]:
    """The description of a server of a causal model. others: further routes that take a body, with what reads it."""
    schemas = bodies(about)
    for path, read in others.items():
        recorded = Recorded({})
        read(recorded)
        schemas[path] = recorded.schema(*REQUIRED.get(path, ()))
    return openapi(about.model, schemas, ("/metrics", "/v1/models/{name}"))


def openapi(model: str, schemas: Mapping[str, dict[str, Any]], got: Sequence[str] = ()) -> dict[str, Any]:
    """The whole description, OpenAPI 3.1. schemas: of the bodies of routes that are posted to; got: further routes."""
    paths: dict[str, Any] = {path: {"get": _operation(path, None)} for path in ("/health", "/v1/models", *got)}
    paths |= {path: {"post": _operation(path, schema)} for path, schema in schemas.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"regard serve {model}", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(path: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    failed = {"content": {"application/json": {"schema": ERROR}}}
    responses: dict[str, Any] = {"200": {"description": "the answer"}}
    responses |= {status: {"description": said} | failed for status, said in STATUSES.items()}
    operation: dict[str, Any] = {"responses": responses, "security": [{"key": []}, {}]}
    if "{name}" in path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    if schema is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation
