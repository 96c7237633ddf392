"""OpenAI chat completion chunks: one lane per choice, one channel per text of a choice."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from guardrail.errors import ModerationError
from guardrail.types import Stage
from guardrail.wire import documents
from guardrail.wire.documents import Path, string_leaves
from guardrail.wire.formats import CHOICE_KEYS, CHUNK_KEYS, now, opaque_leaves, unknown
from guardrail.wire.leftovers import Once, leftovers, spells
from guardrail.wire.pieces import DONE, Event, Form, Part, Piece

__all__ = ["ChatChunks", "answer_form", "answer_schema"]

_REASONING = ("reasoning_content", "reasoning")
_REASONING_COPIES = ("reasoning_details", "thinking_blocks", "provider_specific_fields")
_KNOWN_IN_CHOICE = CHOICE_KEYS | {"delta"}
_NO_TEXT = frozenset(
    {"role", "content", "refusal", "tool_calls", "function_call", "audio", *_REASONING, *_REASONING_COPIES}
)


class ChatChunks:
    """Reader of one stream of `chat.completion.chunk` events.

    Args:
        request: the body that asked for the stream.
        head: id, object, created and model for events of our own; by default those of the first chunk seen.
    """

    def __init__(self, request: Mapping[str, Any], head: Mapping[str, Any] | None = None) -> None:
        self._form = answer_form(request)
        self.schema = answer_schema(request)
        self._head: dict[str, Any] | None = dict(head) if head else None
        self._model = str(request.get("model") or "")
        self._channels: dict[int, list[Hashable]] = {}
        self._spoken: dict[int, str] = {}  # choice -> the last content that left
        self._once = Once()  # texts under unknown keys
        self._opened: set[int] = set()
        self._ended: set[int] = set()

    def split(self, event: Event) -> Iterator[Part]:
        """One part per text; a chunk with several choices or texts becomes several chunks."""
        data = event.data
        if not isinstance(data, dict):
            yield Part(event, lane=None)
            return
        choices = data.get("choices")
        if not isinstance(choices, list):
            if not data.get("error") and any(string_leaves(data)):  # client libraries raise what `error` holds
                raise ModerationError("A chunk of the upstream's stream has no `choices`, so it could not be judged.")
            yield Part(event, lane=None)
            return
        if self._head is None:
            self._head = {
                key: data[key] for key in ("id", "object", "created", "model", "system_fingerprint") if key in data
            }
        if not choices:
            yield Part(event, lane=None, pieces=self._once.new(leftovers(data, (), skip=CHUNK_KEYS)))
        for number, choice in enumerate(choices, 1):
            if not isinstance(choice, dict):
                raise unknown("A choice of type", type(choice).__name__)
            delta = choice.get("delta") or {}
            if not isinstance(delta, dict):
                raise unknown("A chunk's `delta` of type", type(delta).__name__)
            last = number == len(choices)
            parts = self._choice(event if last and number == 1 else self._like(event, choice, last=last), choice)
            index = int(choice.get("index") or 0)
            others = leftovers(data, (), skip=CHUNK_KEYS, lane=index)
            others += leftovers(choice, (), ("choices", 0), skip=_KNOWN_IN_CHOICE, lane=index)
            beside = self._once.new(others)
            pictures = delta.get("images")  # some providers send them beside the text
            if beside or pictures:
                first = next(parts)
                noted = (*first.unscanned, *(("images",) if pictures else ()))
                yield replace(first, pieces=(*first.pieces, *beside), unscanned=noted)
            yield from parts

    def _choice(self, event: Event, choice: dict[str, Any]) -> Iterator[Part]:
        index = int(choice.get("index") or 0)
        delta = choice.get("delta") or {}
        finish = choice.get("finish_reason")
        texts = list(self._texts(index, delta))
        if not _tell_their_own(choice.get("logprobs"), "".join(text[1] for text in texts)):
            choice = {**choice, "logprobs": None}
            event = self._like(event, choice)
        if len(texts) <= 1 and not (texts and finish):
            yield from self._whole(event, index, texts, finish)
            return
        first = {"role": delta["role"]} if "role" in delta else {}
        for channel, text, form, stage, own in texts:
            single = {**choice, "delta": {**first, **own}, "finish_reason": None}
            if not _tell_their_own(choice.get("logprobs"), text):
                single["logprobs"] = None
            first = {}
            yield self._part(self._like(event, single, last=False), index, channel, text, form, stage)
        if finish:
            yield self._end(self._like(event, {**choice, "delta": {}, "logprobs": None}), index)

    def _whole(
        self, event: Event, index: int, texts: list[tuple[Hashable, str, Form, Stage, dict[str, Any]]], finish: Any
    ) -> Iterator[Part]:
        if finish:
            yield self._end(event, index)
        elif texts:
            channel, text, form, stage, _ = texts[0]
            yield self._part(event, index, channel, text, form, stage)
        else:
            yield Part(event, lane=index)

    def _part(self, event: Event, index: int, channel: Hashable, text: str, form: Form, stage: Stage) -> Part:
        known = self._channels.setdefault(index, [])
        if channel not in known:
            known.append(channel)
        return Part(
            event,
            lane=index,
            channel=channel,
            text=text,
            form=form,
            stage=stage,
            gated=stage
            is Stage.TOOL_CALL,  # to the end of the choice: some servers go on with a call after the next one began
            pieces=self._once.new(_inside(event, index)),
            unscanned=("audio",) if channel == (index, "audio") else (),
        )

    def _end(self, event: Event, index: int) -> Part:
        return Part(event, lane=index, ends=tuple(self._channels.get(index, ())))

    def _texts(self, index: int, delta: dict[str, Any]) -> Iterator[tuple[Hashable, str, Form, Stage, dict[str, Any]]]:
        """Each text in a delta: its channel, the text, how and where it is judged, and a delta of its own."""
        reasoning = next((delta[key] for key in _REASONING if isinstance(delta.get(key), str)), None)
        copies = {key: delta[key] for key in _REASONING_COPIES if delta.get(key)}
        if reasoning is not None or copies:
            own = {**{key: delta[key] for key in _REASONING if key in delta}, **copies}
            yield (index, "reasoning"), self._reasoning(reasoning, copies), Form.OPAQUE, Stage.OUTPUT, own
        if isinstance(delta.get("content"), str):
            yield (index, "content"), delta["content"], self._form, Stage.OUTPUT, {"content": delta["content"]}
        elif delta.get("content") is not None:
            raise unknown("A chunk's `content` of type", type(delta["content"]).__name__)
        if isinstance(delta.get("refusal"), str):
            yield (index, "refusal"), delta["refusal"], Form.TEXT, Stage.OUTPUT, {"refusal": delta["refusal"]}
        for key, kind in (("refusal", str), ("audio", dict), ("function_call", dict)):
            if delta.get(key) and not isinstance(delta[key], kind):
                raise unknown(f"A chunk's `{key}` of type", type(delta[key]).__name__)
        audio = delta.get("audio")
        if isinstance(audio, dict):
            yield (index, "audio"), str(audio.get("transcript") or ""), Form.OPAQUE, Stage.OUTPUT, {"audio": audio}
        yield from self._tools(index, delta)
        for key, value in delta.items():
            if key in _NO_TEXT:
                continue
            if isinstance(value, str) and value:
                yield (index, key), value, Form.OPAQUE, Stage.OUTPUT, {key: value}
            elif opaque_leaves(value, (), Stage.OUTPUT):
                raise unknown("A chunk's field", key)

    @staticmethod
    def _reasoning(text: str | None, copies: dict[str, Any]) -> str:
        """The reasoning text, which some providers send twice; the copies must say the same or they are judged too."""
        copied = "".join(piece.text for piece in opaque_leaves(copies, (), Stage.OUTPUT))
        if text is None or not copied or copied == text:
            return text or copied
        return text if all(part in text for part in copied.split(text) if part) else text + copied

    @staticmethod
    def _tools(index: int, delta: dict[str, Any]) -> Iterator[tuple[Hashable, str, Form, Stage, dict[str, Any]]]:
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            text = str(legacy.get("arguments") or "")
            yield (index, "function_call"), text, Form.ARGUMENTS, Stage.TOOL_CALL, {"function_call": legacy}
        for order, call in enumerate(delta.get("tool_calls") or ()):
            number = call.get("index", order)
            body = call.get("function") or {}
            custom = call.get("custom") or {}
            text = str(body.get("arguments") or custom.get("input") or "")
            form = Form.OPAQUE if custom else Form.ARGUMENTS
            yield (index, "tool", number), text, form, Stage.TOOL_CALL, {"tool_calls": [call]}

    def with_text(self, event: Event, text: str) -> Event:
        """Replace the one text of the chunk."""
        choice = event.data["choices"][0]
        delta = dict(choice.get("delta") or {})
        if delta.get("tool_calls"):
            delta["tool_calls"] = [_call_with(delta["tool_calls"][0], text)]
        elif isinstance(delta.get("function_call"), dict):
            delta["function_call"] = {**delta["function_call"], "arguments": text}
        elif isinstance(delta.get("audio"), dict):
            delta["audio"] = {**delta["audio"], "transcript": text, "data": ""}
        else:
            delta = _delta_with(delta, text)
        altered = {**choice, "delta": delta}
        if altered.get("logprobs") is not None:
            altered["logprobs"] = None
        return self._like(event, altered)

    def with_piece(self, event: Event, piece: Piece, text: str) -> Event:
        """The chunk with another text under a key of its own."""
        self._once.forget()
        data = copy.deepcopy(event.data)
        documents.put(data, piece.path, text)
        return Event(data, event.name)

    def emitted(self, event: Event) -> Event:
        """Remember which choices have begun and ended, and whether something was said."""
        choices = event.data.get("choices") if isinstance(event.data, dict) else None
        for choice in choices or ():
            index = int(choice.get("index") or 0)
            self._opened.add(index)
            delta = choice.get("delta")
            if isinstance(delta, dict) and isinstance(delta.get("content"), str) and delta["content"]:
                self._spoken[index] = delta["content"]
            if choice.get("finish_reason"):
                self._ended.add(index)
        return event

    def refuse(self, lane: Hashable, text: str) -> list[Event]:
        """The refusal as content (as `refusal` where JSON was asked for), then `content_filter`."""
        index = int(lane) if isinstance(lane, int) else 0
        role = {} if index in self._opened else {"role": "assistant"}
        if self._form is Form.JSON:
            delta = {**role, "refusal": text}
        else:
            spoken = self._spoken.get(index, "")
            delta = {**role, "content": f"\n\n{text}" if spoken else text}
        return [self._own(index, delta, None), self._own(index, {}, "content_filter")]

    def finished(self, lanes: int) -> bool:
        """Whether every choice that was asked for has ended."""
        return len(self._ended) >= lanes

    def closing(self) -> list[Event]:
        """`[DONE]`."""
        return [Event(DONE)]

    def _own(self, index: int, delta: dict[str, Any], finish: str | None) -> Event:
        head = self._head or {
            "id": "chatcmpl-guardrail",
            "object": "chat.completion.chunk",
            "created": now(),
            "model": self._model,
        }
        return Event({**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    @staticmethod
    def _like(event: Event, choice: dict[str, Any], *, last: bool = True) -> Event:
        """A chunk like `event` with one choice of its own; only the last chunk made of an event carries its usage."""
        data = {key: value for key, value in event.data.items() if key != "choices"}
        if not last and data.get("usage") is not None:
            data["usage"] = None
        return Event({**data, "choices": [choice]}, event.name)


def answer_form(request: Mapping[str, Any]) -> Form:
    """JSON where the caller asked for JSON, else prose."""
    wanted = request.get("response_format")
    asked = isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")
    return Form.JSON if asked else Form.TEXT


def answer_schema(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The caller's JSON Schema, if there is one."""
    wanted = request.get("response_format")
    schema = wanted.get("json_schema") if isinstance(wanted, dict) else None
    inner = schema.get("schema") if isinstance(schema, dict) else None
    return inner if isinstance(inner, dict) else None


def _tell_their_own(logprobs: Any, text: str) -> bool:
    """Whether log-probabilities speak of this text alone. Those that spell out more would let held text through."""
    return not logprobs or (
        isinstance(logprobs, dict) and all(spells(logprobs.get(key), text) for key in ("content", "refusal"))
    )


_NESTED = ("tool_calls", "function_call", "audio")


def _inside(event: Event, index: int) -> list[Piece]:
    """What nobody knows inside the tool calls and the audio of a chunk with one choice and one text."""
    delta = event.data["choices"][0].get("delta")
    if not delta or not any(delta.get(key) for key in _NESTED):
        return []
    path: Path = ("choices", 0, "delta")
    read: set[Path] = {(*path, "audio", key) for key in ("data", "transcript")} | {
        (*path, "function_call", "arguments")
    }
    for at in range(len(delta.get("tool_calls") or ())):
        call = (*path, "tool_calls", at)
        read |= {(*call, "function", "arguments"), (*call, "custom", "input")}
    return leftovers({key: delta[key] for key in _NESTED if key in delta}, read, path, lane=index)


def _call_with(call: dict[str, Any], text: str) -> dict[str, Any]:
    if isinstance(call.get("custom"), dict):
        return {**call, "custom": {**call["custom"], "input": text}}
    return {**call, "function": {**(call.get("function") or {}), "arguments": text}}


def _delta_with(delta: dict[str, Any], text: str) -> dict[str, Any]:
    """A delta whose one text is `text`; copies of reasoning go, since they spell the old text out."""
    delta = {key: value for key, value in delta.items() if key not in _REASONING_COPIES}
    for key in ("content", "refusal", *_REASONING):
        if isinstance(delta.get(key), str):
            return {**delta, key: text}
    for key, value in delta.items():
        if isinstance(value, str) and key != "role":
            return {**delta, key: text}
    return {**delta, "content": text}
