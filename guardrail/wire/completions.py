"""OpenAI legacy completions: `prompt` in, `text` out."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from guardrail.errors import ModerationError, UnsupportedPath
from guardrail.types import Stage
from guardrail.wire import documents
from guardrail.wire.documents import string_leaves
from guardrail.wire.formats import CHOICE_KEYS, CHUNK_KEYS, now, unknown, without_unread
from guardrail.wire.leftovers import leftovers
from guardrail.wire.pieces import DONE, Event, Form, Part, Piece, Role, Turn, Unscanned

__all__ = ["Completions"]

_REASONING = "reasoning_content"  # litellm adds it to the choices of reasoning models
_KNOWN = CHOICE_KEYS | {"text", _REASONING}


class Completions:
    """`POST /completions`."""

    name = "completions"

    def turns(self, request: dict[str, Any]) -> list[Turn]:
        """One turn per prompt. Token ids cannot be judged and are refused."""
        prompt = request.get("prompt")
        pieces = [Piece(("prompt",), prompt, Stage.INPUT)] if isinstance(prompt, str) else _prompts(prompt)
        if isinstance(request.get("suffix"), str):
            pieces.append(Piece(("suffix",), request["suffix"], Stage.INPUT))
        return [Turn(Role.TOOL, (piece,)) for piece in pieces]  # prompts are independent of each other: never joined

    def lanes(self, request: Mapping[str, Any]) -> int:
        """`n` answers for each prompt."""
        n = request.get("n")
        prompts = request.get("prompt")
        count = len(prompts) if isinstance(prompts, list) and prompts else 1
        return count * (n if isinstance(n, int) and n > 0 else 1)

    def answers(self, document: dict[str, Any], request: Mapping[str, Any]) -> tuple[list[Piece], list[Unscanned]]:
        """The text of each choice."""
        choices = document.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise ModerationError("The upstream's answer has no list of `choices`, so it could not be judged.")
        pieces = [
            Piece(("choices", lane, key), choice[key], Stage.OUTPUT, form, lane)
            for lane, choice in enumerate(choices)
            for key, form in (("text", Form.TEXT), (_REASONING, Form.OPAQUE))
            if isinstance(choice.get(key), str)
        ]
        for lane, choice in enumerate(choices):
            pieces += leftovers(choice, (), ("choices", lane), skip=_KNOWN, lane=lane)
        return pieces + leftovers(document, (), skip=CHUNK_KEYS), []

    def tidy(self, document: dict[str, Any]) -> bool:
        """Those of a choice go as a whole."""
        found = [choice for choice in document["choices"] if not _tells_its_own(choice)]
        for choice in found:
            choice["logprobs"] = None
        return bool(found)

    def forget(self, document: dict[str, Any], piece: Piece) -> None:
        """Log-probabilities spell the old text out."""
        if piece.path[0] != "choices":
            return
        choice = document["choices"][piece.lane]
        if choice.get("logprobs") is not None:
            choice["logprobs"] = None

    def refuse(self, document: dict[str, Any], lane: int, text: str, request: Mapping[str, Any]) -> None:
        """The choice keeps its index."""
        choice = document["choices"][lane]
        choice.pop(_REASONING, None)
        choice.update(text=text, finish_reason="content_filter", logprobs=None)
        without_unread(choice, _KNOWN)
        without_unread(document, CHUNK_KEYS)

    def refusal(self, request: Mapping[str, Any], text: str, request_id: str) -> dict[str, Any]:
        """One refusing choice for each that was asked for."""
        return {
            **_head(request, request_id),
            "choices": [_choice(lane, text, "content_filter") for lane in range(self.lanes(request))],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }

    def refusal_events(self, request: Mapping[str, Any], text: str, request_id: str) -> list[Event]:
        """The refusal of each choice, then `[DONE]`."""
        chunks = CompletionChunks(_head(request, request_id))
        return [event for lane in range(self.lanes(request)) for event in chunks.refuse(lane, text)] + [Event(DONE)]

    def stream(self, request: Mapping[str, Any]) -> CompletionChunks:
        """A reader of chunks."""
        return CompletionChunks(_head(request, "guardrail"))


class CompletionChunks:
    """Reader of one stream of `text_completion` events: one lane and one channel per choice.

    Args:
        head: id, object, created and model for events of our own until an event of the upstream has been seen.
    """

    schema: Mapping[str, Any] | None = None

    def __init__(self, head: Mapping[str, Any]) -> None:
        self._head = dict(head)
        self._spoken: set[int] = set()
        self._ended: set[int] = set()
        self._reasoned: set[int] = set()

    def split(self, event: Event) -> Iterator[Part]:
        """One part per choice; a finish reason that comes with text gets an event of its own."""
        data = event.data
        choices = data.get("choices") if isinstance(data, dict) else None
        if not choices:
            if isinstance(data, dict) and "choices" not in data and "error" not in data and any(string_leaves(data)):
                raise ModerationError("A chunk of the upstream's stream has no `choices`, so it could not be judged.")
            yield Part(event, lane=None)
            return
        self._head.update({key: data[key] for key in self._head if key in data})
        for choice in choices:
            if not isinstance(choice, dict):
                raise unknown("A choice of type", type(choice).__name__)
            single = event if len(choices) == 1 else _like(event, choice)
            beside = (*leftovers(data, (), skip=CHUNK_KEYS), *leftovers(choice, (), ("choices", 0), skip=_KNOWN))
            parts = self._choice(single, choice)
            if beside:
                yield replace(next(parts), pieces=beside)
            yield from parts

    def _choice(self, event: Event, choice: dict[str, Any]) -> Iterator[Part]:
        index = int(choice.get("index") or 0)
        text = choice.get("text") or ""
        finish = choice.get("finish_reason")
        if not _tells_its_own(choice):  # they would spell out text that is still held
            choice = {**choice, "logprobs": None}
            event = _like(event, choice)
        if choice.get(_REASONING):
            own = {**choice, "text": "", "finish_reason": None}
            channel = (index, _REASONING)
            yield Part(_like(event, own), lane=index, channel=channel, text=str(choice[_REASONING]), form=Form.OPAQUE)
            choice = {**choice, _REASONING: None}
            event = _like(event, choice)
            self._reasoned.add(index)
        if finish and text:
            yield Part(_like(event, {**choice, "finish_reason": None}), lane=index, channel=index, text=text)
            event, text = _like(event, {**choice, "text": "", "logprobs": None}), ""
        if finish:
            ends = (index, (index, _REASONING)) if index in self._reasoned else (index,)
            yield Part(event, lane=index, ends=ends)
        else:
            yield Part(event, lane=index, channel=index, text=text)

    def with_text(self, event: Event, text: str) -> Event:
        """Replace the chunk's text."""
        choice = event.data["choices"][0]
        key = _REASONING if choice.get(_REASONING) else "text"
        return _like(event, {**choice, key: text, "logprobs": None})

    def with_piece(self, event: Event, piece: Piece, text: str) -> Event:
        """The chunk with another text under a key of its own."""
        data = copy.deepcopy(event.data)
        documents.put(data, piece.path, text)
        return Event(data, event.name)

    def emitted(self, event: Event) -> Event:
        """Remember which choices have spoken and ended."""
        choices = event.data.get("choices") if isinstance(event.data, dict) else None
        for choice in choices or ():
            index = int(choice.get("index") or 0)
            if choice.get("text"):
                self._spoken.add(index)
            if choice.get("finish_reason"):
                self._ended.add(index)
        return event

    def refuse(self, lane: Hashable, text: str) -> list[Event]:
        """The refusal, then `content_filter`."""
        index = lane if isinstance(lane, int) else 0
        words = f"\n\n{text}" if index in self._spoken else text
        choices = (_choice(index, words, None), _choice(index, "", "content_filter"))
        return [Event({**self._head, "choices": [choice]}) for choice in choices]

    def finished(self, lanes: int) -> bool:
        """Whether every choice that was asked for has ended."""
        return len(self._ended) >= lanes

    def closing(self) -> list[Event]:
        """`[DONE]`."""
        return [Event(DONE)]


def _prompts(prompt: Any) -> list[Piece]:
    if prompt is None:
        return []
    if isinstance(prompt, list) and all(isinstance(item, str) for item in prompt):
        return [Piece(("prompt", index), text, Stage.INPUT) for index, text in enumerate(prompt)]
    raise UnsupportedPath(
        "A `prompt` of token ids cannot be judged, so the call was refused. Send the prompt as a string or a list of strings."
    )


def _head(request: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    model = str(request.get("model") or "")
    return {"id": f"cmpl-{request_id}", "object": "text_completion", "created": now(), "model": model}


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _tells_its_own(choice: Mapping[str, Any]) -> bool:
    """Whether log-probabilities spell the text of their choice."""
    tokens = (choice.get("logprobs") or {}).get("tokens")
    return not tokens or "".join(map(str, tokens)) == (choice.get("text") or "")


def _like(event: Event, choice: dict[str, Any]) -> Event:
    return Event({**event.data, "choices": [choice]}, event.name)
