"""Reading a JSON body field by field: types and bounds are checked, and a field that nobody read is refused by name."""

from __future__ import annotations

import json
import math
from typing import Any

from regard.errors import UserError


class BadRequest(UserError):
    """What was sent cannot be served; `param` names the field, `status` the HTTP status."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. NaN and infinities are no JSON."""

    def refuse(name: str) -> None:
        raise BadRequest(f"the body holds {name}, which is no JSON; send a number")

    try:
        found = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(f"the body is not JSON: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise BadRequest(f"the body must be a JSON object, got {type(found).__name__}")
    return found


class Fields:
    """A JSON object being read. `inside` names where it lies, for errors."""

    def __init__(self, body: dict[str, Any], inside: str = "") -> None:
        self._body = body
        self._inside = inside
        self._read: set[str] = set()

    def name(self, field: str) -> str:
        """The full name of a field."""
        return f"{self._inside}.{field}" if self._inside else field

    def bad(self, field: str, message: str) -> BadRequest:
        """The error that names a field."""
        return BadRequest(f"{self.name(field)}: {message}", self.name(field))

    def any(self, field: str, default: Any = None) -> Any:
        """The field as it is; null counts as absent."""
        self._read.add(field)
        value = self._body.get(field)
        return default if value is None else value

    def number(self, field: str, default: float, low: float, high: float) -> float:
        """A finite number within bounds."""
        value = self.any(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad(field, f"a number is needed, got {_short(value)}")
        if not (low <= value <= high) or not math.isfinite(value):
            raise self.bad(field, f"must lie in {low:g} … {high:g}, got {_short(value)}")
        return float(value)

    def whole(self, field: str, default: int | None, low: int, high: int) -> int | None:
        """A whole number within bounds, or the default."""
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(field, f"a whole number is needed, got {_short(value)}")
        if not low <= value <= high:
            raise self.bad(field, f"must lie in {low} … {high}, got {_short(value)}")
        return value

    def flag(self, field: str, default: bool = False) -> bool:
        """true or false."""
        value = self.any(field, default)
        if not isinstance(value, bool):
            raise self.bad(field, f"true or false is needed, got {_short(value)}")
        return value

    def text(self, field: str, default: str | None = None) -> str | None:
        """A string."""
        value = self.any(field, default)
        if value is not None and not isinstance(value, str):
            raise self.bad(field, f"a string is needed, got {_short(value)}")
        return value

    def strings(self, field: str, most: int, longest: int = 1000) -> tuple[str, ...]:
        """A string or a list of strings, none of them empty."""
        value = self.any(field, [])
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(s, str) and s for s in found):
            raise self.bad(field, f"a string or a list of strings is needed, none empty, got {_short(value)}")
        if len(found) > most or any(len(s) > longest for s in found):
            raise self.bad(field, f"at most {most} strings of {longest} characters, got {len(found)}")
        return tuple(found)

    def wholes(self, field: str, low: int, high: int, most: int = 1 << 20) -> tuple[int, ...] | None:
        """A list of whole numbers within bounds, or None."""
        value = self.any(field)
        if value is None:
            return None
        if not isinstance(value, list) or any(isinstance(x, bool) or not isinstance(x, int) for x in value):
            raise self.bad(field, f"a list of whole numbers is needed, got {_short(value)}")
        outside = next((x for x in value if not low <= x <= high), None)
        if outside is not None:
            raise self.bad(field, f"its numbers must lie in {low} … {high}, got {outside}")
        if len(value) > most:
            raise self.bad(field, f"at most {most} numbers, got {len(value)}")
        return tuple(value)

    def inner(self, field: str) -> Fields | None:
        """An object."""
        value = self.any(field)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(field, f"an object is needed, got {_short(value)}")
        return Fields(value, self.name(field))

    def done(self) -> None:
        """Raise BadRequest for a field that was not read."""
        for field in self._body:
            if field not in self._read:
                raise BadRequest(f"{self.name(field)[:80]}: there is no such field", self.name(field)[:80])


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
