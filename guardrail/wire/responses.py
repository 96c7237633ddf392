"""The OpenAI Responses API: requests and responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.errors import ModerationError
from guardrail.types import Stage
from guardrail.wire.documents import string_leaves
from guardrail.wire.formats import now, unknown, without_unread
from guardrail.wire.leftovers import leftovers
from guardrail.wire.pieces import Event, Piece, Role, Turn, Unscanned
from guardrail.wire.response_events import ResponseEvents
from guardrail.wire.response_extras import RESPONSE_KEYS
from guardrail.wire.response_items import (
    forget_part,
    item_pieces,
    item_role,
    output_pieces,
    refusal_item,
    tidy_parts,
)

__all__ = ["Responses"]


class Responses:
    """`POST /responses`, and `GET /responses/{id}` for what was made in the background."""

    name = "responses"

    def turns(self, request: dict[str, Any]) -> list[Turn]:
        """`instructions`, then the items of `input`; the variables of a stored prompt count as the user's words."""
        turns = []
        instructions = request.get("instructions")
        if isinstance(instructions, str):
            turns.append(Turn(Role.SYSTEM, (Piece(("instructions",), instructions, Stage.INPUT),)))
        elif instructions:
            turns += self._items(instructions, "instructions", Role.SYSTEM)
        prompt = request.get("prompt")
        if isinstance(prompt, dict):
            turns += _variables(prompt.get("variables") or {})
        given = request.get("input")
        if isinstance(given, str):
            return [*turns, Turn(Role.USER, (Piece(("input",), given, Stage.INPUT),))]
        return turns + self._items(given or [], "input")

    @staticmethod
    def _items(items: Any, key: str, role: Role | None = None) -> list[Turn]:
        if not isinstance(items, list):
            raise unknown(f"An `{key}` of type", type(items).__name__)
        turns = []
        for index, item in enumerate(items):
            who = role or item_role(item if isinstance(item, dict) else {})
            stage = Stage.OUTPUT if who is Role.ASSISTANT else Stage.INPUT
            pieces, unscanned = item_pieces(item, (key, index), stage)
            turns.append(Turn(who, tuple(pieces), tuple(unscanned)))
        return turns

    def lanes(self, request: Mapping[str, Any]) -> int:
        """A response is one answer."""
        return 1

    def answers(self, document: dict[str, Any], request: Mapping[str, Any]) -> tuple[list[Piece], list[Unscanned]]:
        """The texts of every output item."""
        output = document.get("output")
        if output is None and document.get("error") is not None:
            return leftovers(document, (), skip=RESPONSE_KEYS), []
        if not isinstance(output, list):
            raise ModerationError("The upstream's answer has no list `output`, so it could not be judged.")
        asked = request if request.get("text") else document  # a response fetched later says itself what was asked for
        pieces, unscanned = output_pieces(output, ("output",), asked)
        if isinstance(document.get("output_text"), str):  # some servers repeat the text of the items here
            pieces.append(Piece(("output_text",), document["output_text"], Stage.OUTPUT))
        read = {("output_text",), *(piece.path for piece in pieces)}
        return pieces + leftovers(document, read, skip=RESPONSE_KEYS), unscanned

    def tidy(self, document: dict[str, Any]) -> bool:
        """Those of a text part go."""
        return tidy_parts(document.get("output"))  # none where the upstream failed

    def forget(self, document: dict[str, Any], piece: Piece) -> None:
        """Log-probabilities spell the old text out; annotations point into it."""
        rest: tuple[Any, ...] = (*piece.path, None, None, None)
        _, item, key, part, *_ = rest
        if key != "content" or not isinstance(item, int) or not isinstance(part, int):
            return
        forget_part(document["output"][item]["content"][part])

    def refuse(self, document: dict[str, Any], lane: int, text: str, request: Mapping[str, Any]) -> None:
        """One message item, `incomplete` because of the content filter; usage stays."""
        document["output"] = [refusal_item(f"msg_{document.get('id') or 'guardrail'}", text, request)]
        without_unread(document, RESPONSE_KEYS | {"output_text"})
        document["status"] = "incomplete"
        document["incomplete_details"] = {"reason": "content_filter"}
        if isinstance(document.get("output_text"), str):
            document["output_text"] = text

    def refusal(self, request: Mapping[str, Any], text: str, request_id: str) -> dict[str, Any]:
        """A response that refuses; no tokens used."""
        document = _empty(request, request_id)
        self.refuse(document, 0, text, request)
        return document

    def refusal_events(self, request: Mapping[str, Any], text: str, request_id: str) -> list[Event]:
        """The same as events, from `response.created` to the end."""
        events = ResponseEvents(request)
        document = {**_empty(request, request_id), "status": "in_progress"}
        created = [
            events.emitted(Event({"type": kind, "response": document, "sequence_number": number}, kind))
            for number, kind in enumerate(("response.created", "response.in_progress"))
        ]
        return created + [events.emitted(event) for event in events.refuse(0, text)]

    def stream(self, request: Mapping[str, Any]) -> ResponseEvents:
        """A reader of events."""
        return ResponseEvents(request)


def _variables(variables: Any) -> list[Turn]:
    leaves = string_leaves(variables, ("type", "image_url", "file_id", "file_data", "detail"))
    pieces = tuple(Piece(("prompt", "variables", *path), text, Stage.INPUT) for path, text in leaves)
    return [Turn(Role.USER, pieces)] if pieces else []


def _empty(request: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    copied = {
        key: request[key] for key in ("metadata", "temperature", "top_p", "previous_response_id") if key in request
    }
    return {
        "id": f"resp_{request_id}",
        "object": "response",
        "created_at": now(),
        "status": "incomplete",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": str(request.get("model") or ""),
        "output": [],
        "parallel_tool_calls": bool(request.get("parallel_tool_calls", True)),
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": list(request.get("tools") or ()),
        **copied,
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
    }
