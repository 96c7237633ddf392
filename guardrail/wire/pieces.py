"""What the wire formats have in common: texts and where they stand, turns of a conversation, events of a stream."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from guardrail.types import Stage
from guardrail.wire.documents import Path

__all__ = ["DONE", "Event", "Form", "Part", "Piece", "Role", "Turn", "Unscanned"]

DONE = "[DONE]"
"""Data of the last event of an OpenAI stream; not JSON."""


class Form(StrEnum):
    """How a text may be judged and repaired."""

    TEXT = "text"  # prose: a sentence may be rewritten; fenced code in it may not
    JSON = "json"  # JSON as text: its string leaves are judged and repaired, it stays JSON
    ARGUMENTS = "arguments"  # JSON as text: its leaves may be redacted or blocked, never rewritten
    OPAQUE = "opaque"  # code, signed or structured text: flagged or blocked, never altered


class Role(StrEnum):
    """Who wrote a turn. `system` includes developer prompts and is never altered."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Piece:
    """One text of a document.

    `lane` numbers the independent answers of one response (`choices[lane]`): a block withholds a lane.
    `schema` is the JSON Schema that a JSON text must keep to, where the caller gave one.
    `remove` is what to delete when the text has been merged into another one (a content part, a message).
    """

    path: Path
    text: str
    stage: Stage = Stage.OUTPUT
    form: Form = Form.TEXT
    lane: int = 0
    schema: Mapping[str, Any] | None = None
    remove: Path = ()
    channel: Hashable = None  # the stream channel that carried the same text, if any


@dataclass(frozen=True, slots=True)
class Unscanned:
    """Something in a document that is not a text: it cannot be judged here, and the audit says so."""

    path: Path
    what: str
    stage: Stage = Stage.INPUT
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation that a request carries."""

    role: Role
    pieces: tuple[Piece, ...] = ()
    unscanned: tuple[Unscanned, ...] = ()


@dataclass(slots=True)
class Event:
    """One event of a stream: `data` is parsed JSON or `DONE`.

    `raw` is what to emit while the event is unchanged (bytes of an event stream, or a client's own chunk object); None
    once `data` has been changed or made up.
    """

    data: Any
    name: str | None = None
    raw: Any = None


@dataclass(slots=True)
class Part:
    """One event as the holding buffer sees it: at most one text of one channel.

    `lane`: events of one lane keep their order. `channel`: which text the event adds `text` to, None for none.
    `gated`: released only when its channel is complete (the head of a tool call). `ends`: channels that are complete
    before this event. `pieces`: whole texts inside the event (copies of what was streamed, or texts of their own).
    `unscanned`: what in the event is not text, by name.
    """

    event: Event
    lane: Hashable = 0
    channel: Hashable = None
    text: str = ""
    form: Form = Form.TEXT
    stage: Stage = Stage.OUTPUT
    gated: bool = False
    ends: tuple[Hashable, ...] = ()
    pieces: tuple[Piece, ...] = ()
    unscanned: tuple[str, ...] = ()
    start: int = field(default=0)  # offset in its channel, set by the buffer

    @property
    def end(self) -> int:
        """Offset in its channel after this part's text."""
        return self.start + len(self.text)
