"""Records whose fields are worked out when one of them is first read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

Work = Callable[[], Mapping[str, Any]]


class Later:
    """A dataclass whose missing fields are filled by work that was put off, the first time one of them is read.

    Only fields without a class-level default can be missing. What was set meanwhile stays.
    """

    def put_off(self, fields: tuple[str, ...], work: Work) -> None:
        """Forget these fields; `work` gives them by name when one of them is next read."""
        state = self.__dict__
        for field in fields:
            state.pop(field, None)
        state["_put_off"] = fields, work

    if not TYPE_CHECKING:  # a checker knows the fields, and would take every misspelt one for granted

        def __getattr__(self, name: str) -> Any:
            state = self.__dict__
            missing, work = state.get("_put_off", ((), None))
            if name not in missing:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            filled = work()
            del state["_put_off"]
            state.update({field: filled[field] for field in missing if field not in state})
            return state[name]
