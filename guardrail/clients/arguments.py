"""The messages among the arguments of a call: read as plain mappings, and put back in the caller's own types."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from guardrail.errors import UnsupportedPath

__all__ = ["Arguments", "plain"]

_INDEX = "guardrail_index"  # where a message stood, so that it is found again after another one was merged into it
_NAMES = ("messages", "prompt", "input")


class Arguments:
    """Positional and named arguments, with the messages found among them.

    Args:
        function: what is called; its parameter `messages` (or `prompt`, `input`), else its first one, holds the messages.
        args, kwargs: of one call.

    Raises:
        UnsupportedPath: there are no messages to judge.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = args, kwargs
        self._where = _where(function, args, kwargs)
        self._given = args[self._where] if isinstance(self._where, int) else kwargs[self._where]

    def messages(self) -> list[dict[str, Any]]:
        """The messages as mappings with `role` and `content`; a string is one message of the user."""
        if isinstance(self._given, str):
            return [{"role": "user", "content": self._given}]
        if isinstance(self._given, list | tuple):
            return [{**plain(message), _INDEX: index} for index, message in enumerate(self._given)]
        raise UnsupportedPath(
            f"Messages of type {type(self._given).__name__} cannot be judged: give a string or a list."
        )

    def with_messages(self, messages: list[dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with repaired messages, each of the type that the caller gave."""
        value: Any
        if isinstance(self._given, str):
            value = messages[0]["content"] if messages else ""
        else:
            value = [_like(self._given[message[_INDEX]], message) for message in messages]
        if isinstance(self._where, int):
            return (*self._args[: self._where], value, *self._args[self._where + 1 :]), self._kwargs
        return self._args, {**self._kwargs, self._where: value}


def plain(message: Any) -> dict[str, Any]:
    """A message as a mapping of its own: a mapping is copied, an object is read by its attributes.

    Raises:
        UnsupportedPath: it is nothing of the kind.
    """
    if isinstance(message, str):
        return {"role": "user", "content": message}
    if isinstance(message, Mapping):
        return {key: plain_value(value) for key, value in message.items()}
    dump = getattr(message, "model_dump", None)
    if dump is not None:
        return dict(dump(exclude_none=True))
    if hasattr(message, "role") and hasattr(message, "content"):
        return {"role": message.role, "content": message.content}
    raise UnsupportedPath(
        f"A message of type {type(message).__name__} cannot be judged: give a mapping with `role` and `content`."
    )


def plain_value(value: Any) -> Any:
    """A copy of a value made of mappings, lists and scalars; objects of pydantic become mappings."""
    if isinstance(value, Mapping):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    dump = getattr(value, "model_dump", None)
    return dump(exclude_none=True) if dump is not None and not isinstance(value, type) else value


def _where(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    for name in _NAMES:
        if name in kwargs:
            return name
        if name in names and names.index(name) < len(args):
            return names.index(name)
    if args:
        return 0
    if names and names[0] in kwargs:
        return names[0]
    raise UnsupportedPath("The call has no messages: give them as the first argument, or as `messages`.")


def _like(given: Any, message: dict[str, Any]) -> Any:
    """The caller's message with repaired content, in its own type."""
    own = {key: value for key, value in message.items() if key != _INDEX}
    if isinstance(given, Mapping):
        return own
    if isinstance(given, str):
        return own["content"]
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        return dataclasses.replace(given, content=own["content"])
    if hasattr(given, "model_copy"):
        return given.model_copy(update={"content": own["content"]})
    made = copy.copy(given)
    made.content = own["content"]
    return made
