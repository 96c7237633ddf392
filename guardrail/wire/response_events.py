"""Event streams of the Responses API: one lane, since their events are strictly ordered; one channel per text.

A channel is named by where its text ends up: `(output_index, *path in the item)`. That is how the copies of a text in
the `done` events and in `response.completed` are recognised and become what was delivered.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from guardrail.types import Stage
from guardrail.wire import documents
from guardrail.wire.formats import now, opaque_leaves, unknown
from guardrail.wire.leftovers import Once
from guardrail.wire.pieces import Event, Form, Part, Piece
from guardrail.wire.response_extras import ITEM_EVENTS, NO_TEXT, PART_EVENTS, WHOLE_RESPONSE, beside, tidy
from guardrail.wire.response_items import (
    answer_form,
    answer_schema,
    forget_part,
    output_pieces,
    refusal_item,
    whole_item,
    whole_part,
)

__all__ = ["ResponseEvents"]

# Event stem: key of the whole text in the done event, path in the item ("#" stands for the index key), form, stage.
_TEXTS: dict[str, tuple[str, tuple[str, ...], Form, Stage]] = {
    "output_text": ("text", ("content", "#content_index", "text"), Form.TEXT, Stage.OUTPUT),
    "refusal": ("refusal", ("content", "#content_index", "refusal"), Form.TEXT, Stage.OUTPUT),
    "reasoning_text": ("text", ("content", "#content_index", "text"), Form.OPAQUE, Stage.OUTPUT),
    "reasoning_summary_text": ("text", ("summary", "#summary_index", "text"), Form.OPAQUE, Stage.OUTPUT),
    "function_call_arguments": ("arguments", ("arguments",), Form.ARGUMENTS, Stage.TOOL_CALL),
    "mcp_call_arguments": ("arguments", ("arguments",), Form.ARGUMENTS, Stage.TOOL_CALL),
    "custom_tool_call_input": ("input", ("input",), Form.OPAQUE, Stage.TOOL_CALL),
    "code_interpreter_call_code": ("code", ("code",), Form.OPAQUE, Stage.TOOL_CALL),
    "audio.transcript": ("transcript", ("transcript",), Form.OPAQUE, Stage.OUTPUT),
}
_TOOL_TEXT = {
    "function_call": "arguments",
    "mcp_call": "arguments",
    "custom_tool_call": "input",
    "code_interpreter_call": "code",
}
_PASSED = frozenset({"error", "response.audio.done", "keepalive"})  # client libraries raise what an error holds


class ResponseEvents:
    """Reader of one stream of `response.*` events.

    Args:
        request: the body that asked for the stream (empty when a stored response is streamed again).
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._request = request
        self._form = answer_form(request)
        self.schema = answer_schema(request)
        self._channels: set[tuple[Any, ...]] = set()
        self._response: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}  # items that have left, as far as they have
        self._done: set[int] = set()
        self._part: tuple[int, int] | None = None  # output and content index of the text part that is open
        self._said = ""
        self._last = -1
        self._ended = False
        self._once = Once()  # texts under unknown keys

    def split(self, event: Event) -> Iterator[Part]:
        """One part per event."""
        part = self._read(tidy(event))
        if isinstance(event.data, dict) and event.data.get("type") not in _PASSED:
            part.pieces += self._once.new(beside(part.event.data, part))
        yield part

    def _read(self, event: Event) -> Part:
        """The event with the texts that are known."""
        data = event.data
        kind = str(data.get("type")) if isinstance(data, dict) else ""
        stem, _, verb = kind.removeprefix("response.").rpartition(".")
        if stem in _TEXTS and verb in ("delta", "done"):
            return self._text(event, stem, verb)
        if kind in ITEM_EVENTS:
            return self._item(event, kind)
        if kind in PART_EVENTS:
            return self._content_part(event, kind)
        if kind in WHOLE_RESPONSE:
            return self._whole(event, kind)
        if kind == "response.output_text.annotation.added":
            return Part(event, pieces=tuple(opaque_leaves(data.get("annotation"), ("annotation",), Stage.RETRIEVED)))
        if kind in NO_TEXT:
            return Part(event, unscanned=(NO_TEXT[kind],))
        if kind not in _PASSED and opaque_leaves(data, (), Stage.OUTPUT):
            raise unknown("The stream event", kind or data)
        return Part(event)

    def _text(self, event: Event, stem: str, verb: str) -> Part:
        key, steps, form, stage = _TEXTS[stem]
        data = event.data
        path = (data.get("output_index", 0), *(data.get(step[1:], 0) if step[0] == "#" else step for step in steps))
        form = self._form if form is Form.TEXT and stem == "output_text" else form
        gated = stage is Stage.TOOL_CALL
        if verb == "delta":
            self._channels.add(path)
            text = _text_or_nothing(data.get("delta"), "A delta of type")
            return Part(event, channel=path, text=text, form=form, stage=stage, gated=gated)
        if not _text_or_nothing(data.get(key), "A finished text of type"):
            return Part(event, ends=(path,))
        return Part(event, ends=(path,), pieces=(Piece((key,), data[key], stage, form, channel=path),))

    def _item(self, event: Event, kind: str) -> Part:
        index, item = event.data.get("output_index", 0), event.data["item"]
        own = _TOOL_TEXT.get(item.get("type"))
        if kind.endswith(".added") and own and not item.get(own):
            path = (index, own)
            self._channels.add(path)
            form = Form.ARGUMENTS if own == "arguments" else Form.OPAQUE
            return Part(event, channel=path, form=form, stage=Stage.TOOL_CALL, gated=True)
        ends = tuple(path for path in self._channels if path[0] == index) if kind.endswith(".done") else ()
        pieces, notes = whole_item(item, ("item",))
        if item.get("type") == "message" and self._form is Form.JSON:
            pieces = [replace(piece, form=Form.JSON) if piece.path[-1] == "text" else piece for piece in pieces]
        return Part(
            event,
            ends=ends,
            pieces=tuple(replace(piece, channel=(index, *piece.path[1:])) for piece in pieces),
            unscanned=tuple(note.what for note in notes),
        )

    def _content_part(self, event: Event, kind: str) -> Part:
        data = event.data
        where = PART_EVENTS[kind]
        path = (data.get("output_index", 0), where, data.get(f"{where}_index", 0))
        part = data.get("part") or {}
        key = "refusal" if part.get("type") == "refusal" else "text"
        text = part.get(key)
        if kind == "response.content_part.added" and not text and key == "text" and self._form is Form.JSON:
            self._channels.add((*path, "text"))
            return Part(event, channel=(*path, "text"), form=Form.JSON, gated=True)
        ends = ((*path, key),) if kind.endswith(".done") else ()
        if not opaque_leaves(part, (), Stage.OUTPUT):
            return Part(event, ends=ends)
        pieces, notes = whole_part(part, ("part",))
        forms = {"output_text": self._form, "text": self._form, "summary_text": Form.OPAQUE}
        return Part(
            event,
            ends=ends,
            pieces=tuple(
                replace(
                    piece,
                    form=forms.get(part["type"], piece.form) if piece.path == ("part", "text") else piece.form,
                    channel=(*path, *piece.path[1:]),
                )
                for piece in pieces
            ),
            unscanned=tuple(note.what for note in notes),
        )

    def _whole(self, event: Event, kind: str) -> Part:
        response = event.data.get("response") or {}
        over = kind not in ("response.created", "response.in_progress", "response.queued")
        found = output_pieces(response.get("output") or [], ("response", "output"), self._request or response)[0]
        pieces = [replace(piece, channel=piece.path[2:]) for piece in found]
        copied = _text_or_nothing(response.get("output_text"), "An `output_text` of type")
        if copied:  # some servers repeat the text of the items here
            channel = next((piece.channel for piece in pieces if piece.text == copied), None)
            pieces.append(Piece(("response", "output_text"), copied, Stage.OUTPUT, self._form, channel=channel))
        return Part(event, ends=tuple(self._channels) if over else (), pieces=tuple(pieces))

    def with_text(self, event: Event, text: str) -> Event:
        """A delta with other text."""
        data = {**event.data, "delta": text}
        if data.get("logprobs"):
            data["logprobs"] = []
        return Event(data, event.name)

    def with_piece(self, event: Event, piece: Piece, text: str) -> Event:
        """The event with another text at the piece's place, its log-probabilities and annotations dropped."""
        self._once.forget()
        data = copy.deepcopy(event.data)
        documents.put(data, piece.path, text)
        holder = documents.get(data, piece.path[:-1])
        if isinstance(holder, dict):
            forget_part(holder)
        return Event(data, event.name)

    def emitted(self, event: Event) -> Event:
        """Keep track of what the client has seen; numbers stay in order when events were added."""
        data = event.data
        if not isinstance(data, dict):
            return event
        self._track(data, str(data.get("type")))
        number = data.get("sequence_number")
        if not isinstance(number, int):
            return event
        if number <= self._last:
            event = Event({**data, "sequence_number": self._last + 1}, event.name)
        self._last = max(number, self._last + 1)
        return event

    def _track(self, data: dict[str, Any], kind: str) -> None:
        index = data.get("output_index", 0)
        if kind in WHOLE_RESPONSE:
            self._response = data.get("response") or {}
            self._ended = kind not in ("response.created", "response.in_progress", "response.queued")
        elif kind == "response.output_item.added":
            self._items[index] = data["item"]
        elif kind == "response.output_item.done":
            self._items[index] = data["item"]
            self._done.add(index)
        elif kind == "response.content_part.added" and (data.get("part") or {}).get("type") == "output_text":
            self._part, self._said = (index, data.get("content_index", 0)), data["part"].get("text") or ""
        elif kind == "response.output_text.delta":
            self._said += data.get("delta") or ""
        elif kind == "response.content_part.done":
            self._part = None

    def refuse(self, lane: Hashable, text: str) -> list[Event]:
        """The refusal in the text part that is open or in a new message, then the ending."""
        events: list[dict[str, Any]] = []
        as_text = self._form is not Form.JSON
        if self._part is not None and as_text:
            index, part_index = self._part
            item, said = self._items.get(index, {}), self._said
        else:
            events += self._end_items()
            index, part_index, said = max(self._items, default=-1) + 1, 0, ""
            item = {**refusal_item("msg_guardrail", text, self._request), "status": "in_progress", "content": []}
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        where = {"item_id": item.get("id", ""), "output_index": index, "content_index": part_index}
        whole = f"{said}\n\n{text}" if said else text
        part = refusal_item("", whole, self._request)["content"][0]
        name, key = ("output_text", "text") if as_text else ("refusal", "refusal")
        extra: dict[str, Any] = {"logprobs": []} if as_text else {}
        if self._part is None or not as_text:
            events.append({"type": "response.content_part.added", **where, "part": {**part, key: ""}})
        done = {**item, "status": "incomplete", "content": [part]}
        events += [
            {"type": f"response.{name}.delta", **where, "delta": whole[len(said) :], **extra},
            {"type": f"response.{name}.done", **where, key: whole, **extra},
            {"type": "response.content_part.done", **where, "part": part},
            {"type": "response.output_item.done", "output_index": index, "item": done},
        ]
        events.append({"type": "response.completed", "response": self._final(index, done)})
        return [
            Event({**data, "sequence_number": self._last + 1 + offset}, data["type"])
            for offset, data in enumerate(events)
        ]

    def _end_items(self) -> list[dict[str, Any]]:
        """Close what is open: an item that the client has seen begin and not end."""
        return [
            {"type": "response.output_item.done", "output_index": index, "item": {**item, "status": "incomplete"}}
            for index, item in sorted(self._items.items())
            if index not in self._done
        ]

    def _final(self, index: int, done: dict[str, Any]) -> dict[str, Any]:
        """The response as delivered. `response.completed` carries it, so that clients that wait for that event end."""
        head = self._response or {"id": "resp_guardrail", "object": "response", "created_at": now(), "error": None}
        kept = [item for at, item in sorted(self._items.items()) if at != index and at in self._done]
        return {
            **head,
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
            "output": [*kept, done],
        }

    def finished(self, lanes: int) -> bool:
        """Whether the response has ended."""
        return self._ended

    def closing(self) -> list[Event]:
        """Nothing follows the response."""
        return []


def _text_or_nothing(value: Any, what: str) -> str:
    """`value` if it is a text, "" if it holds none.

    Raises:
        UnsupportedPath: it is a structure that holds texts.
    """
    if isinstance(value, str):
        return value
    if opaque_leaves(value, (), Stage.OUTPUT):
        raise unknown(what, type(value).__name__)
    return ""
