"""Anthropic messages: requests, responses and their content blocks. The same document goes to Bedrock and Vertex."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from guardrail.errors import ModerationError
from guardrail.types import Stage
from guardrail.wire.documents import Path
from guardrail.wire.formats import marked_stage, require_text, role_named, unknown, without_unread
from guardrail.wire.leftovers import leftovers
from guardrail.wire.message_blocks import answer_form, answer_schema, content_pieces, whole_block
from guardrail.wire.message_events import MESSAGE_KEYS, MessageEvents
from guardrail.wire.pieces import Event, Form, Piece, Role, Turn, Unscanned

__all__ = ["Messages"]


class Messages:
    """`POST /v1/messages`."""

    name = "messages"

    def turns(self, request: dict[str, Any]) -> list[Turn]:
        """The system prompt, then one turn per message."""
        messages = request.get("messages")
        if not isinstance(messages, list):
            raise unknown("A `messages` of type", type(messages).__name__)
        turns = []
        if request.get("system"):
            pieces, _ = content_pieces(request["system"], ("system",), Stage.INPUT)
            turns.append(Turn(Role.SYSTEM, tuple(pieces)))
        return turns + [_turn(message, ("messages", index)) for index, message in enumerate(messages)]

    def lanes(self, request: Mapping[str, Any]) -> int:
        """A message is one answer."""
        return 1

    def answers(self, document: dict[str, Any], request: Mapping[str, Any]) -> tuple[list[Piece], list[Unscanned]]:
        """The texts of every content block."""
        content = document.get("content")
        if not isinstance(content, list):
            raise ModerationError("The upstream's answer has no list of `content` blocks, so it could not be judged.")
        form, schema = answer_form(request), answer_schema(request)
        pieces: list[Piece] = []
        unscanned: list[Unscanned] = []
        for index, block in enumerate(content):
            found, others = whole_block(block, ("content", index))
            unscanned += others
            for piece in found:
                is_answer = form is Form.JSON and piece.path == ("content", index, "text")
                pieces.append(replace(piece, form=form, schema=schema) if is_answer else piece)
        return pieces + leftovers(document, (), skip=MESSAGE_KEYS), unscanned

    def tidy(self, document: dict[str, Any]) -> bool:
        """Messages have no log-probabilities."""
        return False

    def forget(self, document: dict[str, Any], piece: Piece) -> None:
        """Citations of an altered text quote what is no longer said; an altered thinking block has no valid signature."""
        if piece.path[0] != "content":
            return
        block = document["content"][piece.path[1]]
        if block.get("citations"):
            block["citations"] = None

    def refuse(self, document: dict[str, Any], lane: int, text: str, request: Mapping[str, Any]) -> None:
        """One text block, `stop_reason` refusal; usage stays."""
        document["content"] = [{"type": "text", "text": text, "citations": None}]
        without_unread(document, MESSAGE_KEYS)
        document["stop_reason"] = "refusal"
        document["stop_sequence"] = None

    def refusal(self, request: Mapping[str, Any], text: str, request_id: str) -> dict[str, Any]:
        """A message that refuses; no tokens used."""
        return {
            "id": f"msg_{request_id}",
            "type": "message",
            "role": "assistant",
            "model": str(request.get("model") or ""),
            "content": [{"type": "text", "text": text, "citations": None}],
            "stop_reason": "refusal",
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def refusal_events(self, request: Mapping[str, Any], text: str, request_id: str) -> list[Event]:
        """The same as events: message_start, one block, message_delta, message_stop."""
        message = {**self.refusal(request, text, request_id), "content": [], "stop_reason": None}
        start = Event({"type": "message_start", "message": message}, "message_start")
        events = MessageEvents(request)
        events.emitted(start)
        return [start, *events.refuse(0, text)]

    def stream(self, request: Mapping[str, Any]) -> MessageEvents:
        """A reader of events."""
        return MessageEvents(request)


def _turn(message: Any, path: Path) -> Turn:
    if not isinstance(message, dict):
        raise unknown("A message of type", type(message).__name__)
    role = role_named(require_text(message.get("role"), "A message's `role`"))
    stage = marked_stage(message, Stage.OUTPUT if role is Role.ASSISTANT else Stage.INPUT)
    pieces, unscanned = content_pieces(message.get("content"), (*path, "content"), stage, remove=path)
    return Turn(role, tuple(pieces), tuple(unscanned))
