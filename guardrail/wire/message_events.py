"""Anthropic message streams: one lane, since their events are strictly ordered; one channel per content block."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from guardrail.types import Stage
from guardrail.wire import documents
from guardrail.wire.formats import opaque_leaves, unknown
from guardrail.wire.leftovers import Once, leftovers
from guardrail.wire.message_blocks import TOOL_USE, answer_form, answer_schema, whole_block
from guardrail.wire.pieces import Event, Form, Part, Piece

__all__ = ["MESSAGE_KEYS", "MessageEvents"]

MESSAGE_KEYS = frozenset(
    "id type role model content stop_reason stop_sequence usage container context_management".split()
)
"""What a message holds; `content` holds its texts."""

_EVENT_KEYS = frozenset({"type", "index", "usage", "context_management"})
_KNOWN = frozenset({"message_delta", "message_stop", "ping", "error"})
_DELTA_TEXT = {
    "text_delta": ("text", Form.TEXT, Stage.OUTPUT),
    "thinking_delta": ("thinking", Form.OPAQUE, Stage.OUTPUT),
    "input_json_delta": ("partial_json", Form.ARGUMENTS, Stage.TOOL_CALL),
    "compaction_delta": ("content", Form.OPAQUE, Stage.OUTPUT),
}


class MessageEvents:
    """Reader of one stream of message events.

    Args:
        request: the body that asked for the stream.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._form = answer_form(request)
        self.schema = answer_schema(request)
        self._kinds: dict[int, str] = {}  # index of a block -> its type
        self._model = str(request.get("model") or "")
        self._started = False
        self._blocks = 0  # content blocks that have left
        self._open: int | None = None  # the text block that has left and is not closed
        self._spoken = False
        self._usage: dict[str, Any] = {"output_tokens": 0}
        self._ended = False
        self._once = Once()  # texts under unknown keys

    def split(self, event: Event) -> Iterator[Part]:
        """One part per event."""
        part = self._read(event)
        if isinstance(event.data, dict) and event.data.get("type") != "error":  # client libraries raise what it holds
            part.pieces += self._once.new(self._beside(event.data, part))
        yield part

    def _read(self, event: Event) -> Part:
        """The event with the texts that are known."""
        data = event.data
        kind = data.get("type") if isinstance(data, dict) else None
        if kind == "content_block_start":
            return self._start(event)
        if kind == "content_block_delta":
            return self._delta(event)
        if kind == "content_block_stop":
            return Part(event, ends=(int(data["index"]),))
        if kind == "message_start":
            blocks = data["message"].get("content") or []
            return self._complete(event, [(block, ("message", "content", n)) for n, block in enumerate(blocks)])
        if kind not in _KNOWN and opaque_leaves(data, (), Stage.OUTPUT):
            raise unknown("The stream event", kind)
        return Part(event)

    @staticmethod
    def _beside(data: dict[str, Any], part: Part) -> list[Piece]:
        """The texts under keys that nobody knows: of the event, its block, its delta, its message."""
        read: set[documents.Path] = {("message",), *(piece.path for piece in part.pieces)}
        block, delta = data.get("content_block"), data.get("delta")
        if isinstance(block, dict):  # a block that came whole was read whole
            key = "thinking" if block.get("type") == "thinking" else "text"
            read.add(("content_block",) if part.channel is None else ("content_block", key))
        if isinstance(delta, dict) and part.channel is not None:
            read.add(("delta", _DELTA_TEXT[str(delta.get("type"))][0]))
        found = leftovers(data, read, skip=_EVENT_KEYS)
        return found + leftovers(data.get("message"), (), ("message",), skip=MESSAGE_KEYS)

    def _start(self, event: Event) -> Part:
        index, block = int(event.data["index"]), event.data["content_block"]
        kind = self._kinds[index] = str(block.get("type"))
        if kind == "text":
            cited = opaque_leaves(block.get("citations"), ("content_block", "citations"), Stage.RETRIEVED)
            return Part(event, channel=index, text=block.get("text") or "", form=self._form, pieces=tuple(cited))
        if kind in TOOL_USE and not block.get("input"):
            return Part(event, channel=index, form=Form.ARGUMENTS, stage=Stage.TOOL_CALL, gated=True)
        if kind == "thinking":
            return Part(event, channel=index, text=block.get("thinking") or "", form=Form.OPAQUE)
        return self._complete(event, [(block, ("content_block",))])

    def _delta(self, event: Event) -> Part:
        index, delta = int(event.data["index"]), event.data["delta"]
        kind = delta.get("type")
        if kind in _DELTA_TEXT:
            key, form, stage = _DELTA_TEXT[kind]
            form = self._form if form is Form.TEXT else form
            return Part(
                event, channel=index, text=delta.get(key) or "", form=form, stage=stage, gated=stage is Stage.TOOL_CALL
            )
        if kind == "signature_delta":
            return Part(event)
        if kind == "citations_delta":
            pieces = opaque_leaves(delta.get("citation"), ("delta", "citation"), Stage.RETRIEVED)
            return Part(event, pieces=tuple(pieces))
        if opaque_leaves(delta, (), Stage.OUTPUT):
            raise unknown("The content delta", kind)
        return Part(event)

    @staticmethod
    def _complete(event: Event, blocks: list[tuple[Any, documents.Path]]) -> Part:
        """An event with blocks that came whole."""
        found = [whole_block(block, path) for block, path in blocks]
        return Part(
            event,
            pieces=tuple(piece for pieces, _ in found for piece in pieces),
            unscanned=tuple(note.what for _, notes in found for note in notes),
        )

    def with_text(self, event: Event, text: str) -> Event:
        """A delta of the same block with other text."""
        data = event.data
        if data["type"] == "content_block_start":
            block = data["content_block"]
            key = "thinking" if block.get("type") == "thinking" else "text"
            return Event({**data, "content_block": {**block, key: text}}, event.name)
        key = _DELTA_TEXT[data["delta"]["type"]][0]
        return Event({**data, "delta": {**data["delta"], key: text}}, event.name)

    def with_piece(self, event: Event, piece: Piece, text: str) -> Event:
        """The event with another text at the piece's place."""
        self._once.forget()
        data = copy.deepcopy(event.data)
        documents.put(data, piece.path, text)
        return Event(data, event.name)

    def emitted(self, event: Event) -> Event:
        """Keep track of the block that is open and of usage."""
        data = event.data if isinstance(event.data, dict) else {}
        kind = data.get("type")
        if kind == "message_start":
            self._started = True
            self._usage = {"output_tokens": (data["message"].get("usage") or {}).get("output_tokens") or 0}
        elif kind == "content_block_start":
            self._blocks = int(data["index"]) + 1
            self._open = int(data["index"])
            self._spoken = bool(data["content_block"].get("text"))
        elif kind == "content_block_delta":
            self._spoken = self._spoken or bool(data["delta"].get("text"))
        elif kind == "content_block_stop":
            self._open = None
        elif kind == "message_stop":
            self._ended = True
        return event

    def refuse(self, lane: Hashable, text: str) -> list[Event]:
        """The refusal in the open text block or in a new one, then `stop_reason` refusal."""
        events: list[dict[str, Any]] = []
        index = self._open
        words = text
        if index is not None and self._kinds.get(index) == "text":
            words = f"\n\n{text}" if self._spoken else text
        else:
            if index is not None:
                events.append({"type": "content_block_stop", "index": index})
            index = self._blocks
            block = {"type": "text", "text": "", "citations": None}
            events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [
            {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": words}},
            {"type": "content_block_stop", "index": index},
            {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_sequence": None}, "usage": self._usage},
            {"type": "message_stop"},
        ]
        return [Event(data, data["type"]) for data in events]

    def finished(self, lanes: int) -> bool:
        """Whether the message has ended."""
        return self._ended

    def closing(self) -> list[Event]:
        """Nothing follows `message_stop`."""
        return []
