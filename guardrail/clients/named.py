"""Whom and what a call is about, where somebody says so: the conversation, and the person whose texts these are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["conversation_of", "subject", "subject_of"]

_subject: ContextVar[str | None] = ContextVar("guardrail_subject", default=None)


@contextmanager
def subject(name: str | None) -> Iterator[None]:
    """Say whose texts the calls in the block carry; by this name they are found in the record, and erased.

    It goes before what a request names itself; None: nobody's. For threads and tasks alike; a stream that begins in the
    block belongs to it to its end.
    """
    token = _subject.set(name if name is not None else "")
    try:
        yield
    finally:
        _subject.reset(token)


def subject_of(body: dict[str, Any]) -> str | None:
    """The person that the caller names, else the request: `safety_identifier`, `user`, or `user_id` in `metadata`."""
    said = _subject.get()
    if said is not None:
        return said or None
    metadata = body.get("metadata")
    candidates = [body.get("safety_identifier"), body.get("user")]
    candidates += [metadata.get("user_id")] if isinstance(metadata, dict) else []
    return next((one for one in candidates if isinstance(one, str) and one), None)


def conversation_of(body: dict[str, Any]) -> str | None:
    """The conversation that a request names, if it names one."""
    named = body.get("conversation")
    if isinstance(named, dict):
        named = named.get("id")
    metadata = body.get("metadata")
    if named is None and isinstance(metadata, dict):
        named = metadata.get("conversation_id") or metadata.get("session_id")
    return named if isinstance(named, str) else None
