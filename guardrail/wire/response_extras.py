"""What events of the Responses API carry besides the texts that are known: texts under other keys, log-probabilities."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from guardrail.wire import documents
from guardrail.wire.leftovers import leftovers, spells
from guardrail.wire.pieces import Event, Part, Piece
from guardrail.wire.response_items import tidy_parts, untold_parts

__all__ = ["ITEM_EVENTS", "NO_TEXT", "PART_EVENTS", "RESPONSE_KEYS", "WHOLE_RESPONSE", "beside", "tidy"]

RESPONSE_KEYS = frozenset(
    "id object created_at completed_at status error incomplete_details instructions metadata model output "
    "parallel_tool_calls temperature tool_choice tools top_p background conversation max_output_tokens max_tool_calls "
    "moderation previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention reasoning "
    "safety_identifier service_tier store text top_logprobs truncation usage user billing frequency_penalty "
    "presence_penalty context_management".split()
)
"""What a response holds besides texts of its own: `output`, and echoes of the request, which no model writes."""

WHOLE_RESPONSE = frozenset(
    f"response.{kind}"
    for kind in ("created", "in_progress", "queued", "completed", "incomplete", "failed", "cancelled")
)
NO_TEXT = {"response.audio.delta": "audio", "response.image_generation_call.partial_image": "image_generation_call"}
ITEM_EVENTS = frozenset({"response.output_item.added", "response.output_item.done"})
PART_EVENTS = {
    "response.content_part.added": "content",
    "response.content_part.done": "content",
    "response.reasoning_summary_part.added": "summary",
    "response.reasoning_summary_part.done": "summary",
}


def beside(data: dict[str, Any], part: Part) -> list[Piece]:
    """The texts under keys that nobody knows: of the event, and of its response. Items and parts are read whole elsewhere."""
    kind = str(data.get("type"))
    read: set[documents.Path] = {piece.path for piece in part.pieces}
    if kind.endswith(".delta") and (part.channel is not None or kind in NO_TEXT):
        read.add(("delta",))
    if kind == "response.output_text.annotation.added":
        read.add(("annotation",))
    if part.channel is None and kind in PART_EVENTS:
        read.add(("part",))
    if part.channel is None and kind in ITEM_EVENTS:
        read.add(("item",))
    response = data.get("response")
    if kind not in WHOLE_RESPONSE or not isinstance(response, dict):
        return leftovers(data, read)
    found = leftovers(data, {("response",)})
    return found + leftovers(response, {*read, ("response", "output_text")}, ("response",), skip=RESPONSE_KEYS)


def tidy(event: Event) -> Event:
    """The event without log-probabilities that spell another text than its own."""
    data = event.data if isinstance(event.data, dict) else {}
    if data.get("logprobs"):
        text = data.get("delta") or data.get("text") or ""
        event = event if spells(data["logprobs"], str(text)) else Event({**data, "logprobs": []}, event.name)
    if not data.keys() & _HOLDERS or not any(untold_parts(holder) for holder in _holders(data)):
        return event
    data = copy.deepcopy(event.data)
    for holder in _holders(data):
        tidy_parts(holder)
    return Event(data, event.name)


_HOLDERS = {"part", "item", "response"}


def _holders(data: Mapping[str, Any]) -> tuple[Any, ...]:
    """Lists of items, whose content parts may have log-probabilities."""
    return [{"content": [data.get("part")]}], [data.get("item")], (data.get("response") or {}).get("output")
