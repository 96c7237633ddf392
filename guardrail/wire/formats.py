"""What every wire format can do. One object per format, without state; `stream()` makes one with state per stream."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol

from guardrail.errors import UnsupportedPath
from guardrail.types import Stage
from guardrail.wire.documents import Path, string_leaves
from guardrail.wire.pieces import Event, Form, Part, Piece, Role, Turn, Unscanned

__all__ = [
    "CHOICE_KEYS",
    "CHUNK_KEYS",
    "MARK",
    "NOT_TEXT",
    "StreamFormat",
    "WireFormat",
    "argument_leaves",
    "marked_stage",
    "now",
    "opaque_leaves",
    "require_text",
    "role_named",
    "strip_marks",
    "unknown",
    "without_unread",
]

MARK = "guardrail_stage"
"""Key by which a caller marks a message or a content part, for example `{"type": "text", "text": ...,
"guardrail_stage": "retrieved"}`; it is taken out before the request is sent."""


class StreamFormat(Protocol):
    """The events of one stream. Told of every event that leaves (`emitted`), so that it can end the stream properly."""

    schema: Mapping[str, Any] | None
    """JSON Schema of the answer, if the caller gave one."""

    def split(self, event: Event) -> Iterable[Part]:
        """The event as parts with at most one text each, in order.

        Raises:
            UnsupportedPath: the event is unknown and carries text.
        """

    def with_text(self, event: Event, text: str) -> Event:
        """A copy of a text event that carries `text` instead; log-probabilities are dropped."""

    def with_piece(self, event: Event, piece: Piece, text: str) -> Event:
        """A copy of an event in which a whole text (`Part.pieces`) has been replaced."""

    def emitted(self, event: Event) -> Event:
        """Note that `event` leaves, and return it, renumbered if need be."""

    def refuse(self, lane: Hashable, text: str) -> list[Event]:
        """The events that end `lane` with a refusal and the format's content-filter ending."""

    def finished(self, lanes: int) -> bool:
        """Whether all `lanes` answers have ended, so that nothing more is to be read."""

    def closing(self) -> list[Event]:
        """The events after all lanes were ended by `refuse` (`[DONE]`, say)."""


class WireFormat(Protocol):
    """One request and response format."""

    @property
    def name(self) -> str:
        """What it is called in routes and errors."""

    def turns(self, request: dict[str, Any]) -> list[Turn]:
        """The conversation in a request, oldest turn first.

        Raises:
            UnsupportedPath: a message or content part cannot be judged because its type is unknown.
        """

    def lanes(self, request: Mapping[str, Any]) -> int:
        """How many independent answers were asked for."""

    def answers(self, document: dict[str, Any], request: Mapping[str, Any]) -> tuple[list[Piece], list[Unscanned]]:
        """The texts of a response, and what in it is not text.

        Raises:
            UnsupportedPath: an output item is of an unknown type and carries text.
            ModerationError: the document is not a response of this format.
        """

    def tidy(self, document: dict[str, Any]) -> bool:
        """Take out log-probabilities that spell another text than the one that was judged; return whether there were any."""

    def forget(self, document: dict[str, Any], piece: Piece) -> None:
        """Drop what describes the old text of an altered piece (log-probabilities, citations)."""

    def refuse(self, document: dict[str, Any], lane: int, text: str, request: Mapping[str, Any]) -> None:
        """Turn one answer of a response into a refusal, in place."""

    def refusal(self, request: Mapping[str, Any], text: str, request_id: str) -> dict[str, Any]:
        """A whole response that refuses, for a request that never went upstream."""

    def refusal_events(self, request: Mapping[str, Any], text: str, request_id: str) -> list[Event]:
        """The same as a stream."""

    def stream(self, request: Mapping[str, Any]) -> StreamFormat:
        """A reader for one stream."""


def unknown(what: str, name: object) -> UnsupportedPath:
    """The error for a part of a document that nobody can judge."""
    return UnsupportedPath(
        f"{what} {name!r} is not known to guardrail, so its text could not be judged and the call was refused. "
        "Leave it out, or send this call through a client that is not wrapped."
    )


def require_text(value: Any, what: str) -> str:
    """`value` if it is a string.

    Raises:
        UnsupportedPath: it is something else.
    """
    if not isinstance(value, str):
        raise UnsupportedPath(f"{what} must be a string, not {type(value).__name__}; it could not be judged.")
    return value


def marked_stage(part: Mapping[str, Any], default: Stage) -> Stage:
    """The stage that the caller marked the part with, or `default`.

    Raises:
        UnsupportedPath: the mark is not the name of a stage.
    """
    mark = part.get(MARK)
    if mark is None:
        return default
    try:
        return Stage(mark)
    except ValueError:
        raise UnsupportedPath(f"{MARK} is {mark!r}; it must be one of {', '.join(Stage)}.") from None


def strip_marks(document: Any) -> bool:
    """Take every mark out of a request, in place; return whether there was one."""
    found = False
    pending = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            found |= node.pop(MARK, None) is not None
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return found


NOT_TEXT = frozenset(
    "type id item_id call_id tool_call_id tool_use_id status role object model name index format encrypted_content "
    "encrypted_index signature url uri file_id container_id container server_label server_name media_type mime_type "
    "detail file_url image_url b64_json caller page_age retrieved_at status_code error_code approval_request_id "
    "namespace phase expires_at created_at finish_reason stop_reason filename fingerprint created_by agent_id".split()
)
"""Values of these keys name things or hold bytes; they are not text that anybody reads."""


def opaque_leaves(value: Any, path: Path, stage: Stage, lane: int = 0) -> list[Piece]:
    """Every text in a structure of the format, to be judged and never rewritten; names, ids, encrypted values left out."""
    return [Piece((*path, *inner), text, stage, Form.OPAQUE, lane) for inner, text in string_leaves(value, NOT_TEXT)]


# What chunks and choices of chat completions and completions hold besides their texts.
CHUNK_KEYS = frozenset(
    "id object created model system_fingerprint service_tier provider usage choices error obfuscation "
    "prompt_filter_results moderation".split()
)
CHOICE_KEYS = frozenset(
    "index logprobs finish_reason native_finish_reason stop_reason error content_filter_results "
    "content_filter_offsets".split()
)


def without_unread(node: dict[str, Any], known: frozenset[str]) -> None:
    """Take out what a format does not know, in place."""
    for key in node.keys() - known:
        del node[key]


def argument_leaves(value: Any, path: Path, lane: int = 0) -> list[Piece]:
    """Every string in a tool's arguments, whatever its key: there, everything is text that a model wrote."""
    return [Piece((*path, *inner), text, Stage.TOOL_CALL, Form.OPAQUE, lane) for inner, text in string_leaves(value)]


def now() -> int:
    """Seconds since the epoch, as the formats stamp their responses."""
    return int(time.time())


def role_named(role: str) -> Role:
    """The role of a message by its name on the wire.

    Raises:
        UnsupportedPath: the name is unknown.
    """
    roles = {
        "system": Role.SYSTEM,
        "developer": Role.SYSTEM,
        "user": Role.USER,
        "assistant": Role.ASSISTANT,
        "tool": Role.TOOL,
        "function": Role.TOOL,
    }
    if role not in roles:
        raise unknown("The message role", role)
    return roles[role]
