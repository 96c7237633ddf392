"""OpenAI chat completions: requests, responses and chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.errors import ModerationError
from guardrail.types import Stage
from guardrail.wire.chat_chunks import ChatChunks, answer_form, answer_schema
from guardrail.wire.documents import Path
from guardrail.wire.formats import (
    CHOICE_KEYS,
    CHUNK_KEYS,
    argument_leaves,
    marked_stage,
    now,
    opaque_leaves,
    require_text,
    role_named,
    unknown,
    without_unread,
)
from guardrail.wire.leftovers import leftovers, spells
from guardrail.wire.pieces import DONE, Event, Form, Piece, Role, Turn, Unscanned

__all__ = ["ChatCompletions"]

_NOT_SCANNED = frozenset({"image_url", "input_audio", "file", "image", "video_url", "audio_url"})
_REASONING = ("reasoning_content", "reasoning")
_KNOWN_IN_CHOICE = CHOICE_KEYS | {"message"}
_PLAIN = frozenset({"role", "content", "refusal"})


class ChatCompletions:
    """`POST /chat/completions`, also as other providers speak it."""

    name = "chat_completions"

    def turns(self, request: dict[str, Any]) -> list[Turn]:
        """One turn per message; `prediction` counts as the caller's words."""
        messages = request.get("messages")
        if not isinstance(messages, list):
            raise unknown("A `messages` of type", type(messages).__name__)
        turns = [_turn(message, ("messages", index)) for index, message in enumerate(messages)]
        prediction = request.get("prediction")
        if isinstance(prediction, dict) and prediction.get("content"):
            pieces, _ = _content(prediction["content"], ("prediction", "content"), Stage.INPUT)
            turns.insert(0, Turn(Role.TOOL, tuple(_as_opaque(pieces))))
        return turns

    def lanes(self, request: Mapping[str, Any]) -> int:
        """`n`, 1 by default."""
        n = request.get("n")
        return n if isinstance(n, int) and n > 0 else 1

    def answers(self, document: dict[str, Any], request: Mapping[str, Any]) -> tuple[list[Piece], list[Unscanned]]:
        """The texts of every choice."""
        choices = document.get("choices")
        if not isinstance(choices, list):
            raise ModerationError("The upstream's answer has no list of `choices`, so it could not be judged.")
        form = answer_form(request)
        schema = answer_schema(request)
        pieces = [piece for lane, choice in enumerate(choices) for piece in _answer(choice, lane, form, schema)]
        pieces += leftovers(document, (), skip=CHUNK_KEYS)
        unscanned = [
            Unscanned(("choices", lane, "message", key), key, Stage.OUTPUT, lane)
            for lane, choice in enumerate(choices)
            for key in ("audio", "images")
            if choice["message"].get(key)
        ]
        return pieces, unscanned

    def tidy(self, document: dict[str, Any]) -> bool:
        """Those of a choice go as a whole."""
        found = [
            choice for choice in document["choices"] if not tells_its_own(choice.get("logprobs"), choice["message"])
        ]
        for choice in found:
            choice["logprobs"] = None
        return bool(found)

    def forget(self, document: dict[str, Any], piece: Piece) -> None:
        """Log-probabilities spell the old text out; annotations point into it."""
        if piece.path[0] != "choices":
            return
        choice = document["choices"][piece.lane]
        if choice.get("logprobs") is not None:
            choice["logprobs"] = None
        message = choice["message"]
        if message.get("annotations"):
            message["annotations"] = []
        if piece.path[-1] in _REASONING:
            for key in ("reasoning_details", "thinking_blocks"):
                message.pop(key, None)

    def refuse(self, document: dict[str, Any], lane: int, text: str, request: Mapping[str, Any]) -> None:
        """The choice keeps its index; message and log-probabilities go."""
        choice = document["choices"][lane]
        choice["message"] = refusal_message(text, request)
        choice["finish_reason"] = "content_filter"
        choice["logprobs"] = None
        without_unread(choice, _KNOWN_IN_CHOICE)
        without_unread(document, CHUNK_KEYS)

    def refusal(self, request: Mapping[str, Any], text: str, request_id: str) -> dict[str, Any]:
        """One refusing choice for each that was asked for; no tokens used."""
        choices = [
            {
                "index": lane,
                "message": refusal_message(text, request),
                "logprobs": None,
                "finish_reason": "content_filter",
            }
            for lane in range(self.lanes(request))
        ]
        return {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "created": now(),
            "model": str(request.get("model") or ""),
            "choices": choices,
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }

    def refusal_events(self, request: Mapping[str, Any], text: str, request_id: str) -> list[Event]:
        """Role, refusal, finish for each choice; usage if it was asked for; `[DONE]`."""
        head = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": now(),
            "model": str(request.get("model") or ""),
        }
        chunks = ChatChunks(request, head)
        events = [event for lane in range(self.lanes(request)) for event in chunks.refuse(lane, text)]
        if (request.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            events.append(Event({**head, "choices": [], "usage": usage}))
        return [*events, Event(DONE)]

    def stream(self, request: Mapping[str, Any]) -> ChatChunks:
        """A reader of chunks."""
        return ChatChunks(request)


def refusal_message(text: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """An assistant message that refuses: as `refusal` where JSON was asked for, so that nobody parses it."""
    if answer_form(request) is Form.JSON:
        return {"role": "assistant", "content": None, "refusal": text}
    return {"role": "assistant", "content": text, "refusal": None}


def tells_its_own(logprobs: Any, message: Mapping[str, Any]) -> bool:
    """Whether log-probabilities spell the texts of their message and nothing else."""
    if not logprobs:
        return True
    texts = {key: message.get(key) for key in ("content", "refusal")}
    return isinstance(logprobs, dict) and all(
        spells(logprobs.get(key), text if isinstance(text, str) else "") for key, text in texts.items()
    )


def _turn(message: Any, path: Path) -> Turn:
    if not isinstance(message, dict):
        raise unknown("A message of type", type(message).__name__)
    role = role_named(require_text(message.get("role"), "A message's `role`"))
    stage = {Role.ASSISTANT: Stage.OUTPUT, Role.TOOL: Stage.TOOL_RESULT}.get(role, Stage.INPUT)
    stage = marked_stage(message, stage)
    pieces, unscanned = _content(message.get("content"), (*path, "content"), stage, remove=path)
    if role is Role.ASSISTANT:
        pieces += _assistant_pieces(message, path, 0)
    return Turn(role, tuple(pieces), tuple(unscanned))


def _content(value: Any, path: Path, stage: Stage, remove: Path = ()) -> tuple[list[Piece], list[Unscanned]]:
    """The texts of a message's `content`: nothing, a string, or a list of parts."""
    if value is None:
        return [], []
    if isinstance(value, str):
        return [Piece(path, value, stage, remove=remove)], []
    if not isinstance(value, list):
        raise unknown("A message `content` of type", type(value).__name__)
    pieces: list[Piece] = []
    unscanned: list[Unscanned] = []
    for index, part in enumerate(value):
        here = (*path, index)
        if isinstance(part, str):
            pieces.append(Piece(here, part, stage, remove=here))
            continue
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind in ("text", "refusal", "input_text", "output_text"):
            key = "refusal" if kind == "refusal" else "text"
            text = require_text(part.get(key), f"A content part's `{key}`")
            pieces.append(Piece((*here, key), text, marked_stage(part, stage), remove=here))
        elif kind in _NOT_SCANNED:
            unscanned.append(Unscanned(here, str(kind), stage))
        elif kind in ("thinking", "redacted_thinking"):
            pieces += opaque_leaves({k: v for k, v in part.items() if k == "thinking"}, here, stage)
        else:
            raise unknown("The content part type", kind)
    return pieces, unscanned


def _answer(choice: Any, lane: int, form: Form, schema: Mapping[str, Any] | None) -> list[Piece]:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ModerationError(f"Choice {lane} of the upstream's answer has no message, so it could not be judged.")
    path: Path = ("choices", lane, "message")
    found, notes = _content(message.get("content"), (*path, "content"), Stage.OUTPUT)
    pieces = [
        Piece(piece.path, piece.text, piece.stage, form if piece.form is Form.TEXT else piece.form, lane, schema)
        for piece in found
    ]
    pieces += _assistant_pieces(message, path, lane)
    if _is_plain(choice, message):
        return pieces
    read = {(*path, "audio", "data"), *(note.path for note in notes), *(piece.path for piece in pieces)}
    return pieces + leftovers(choice, read, path[:2], skip=CHOICE_KEYS, lane=lane)


def _is_plain(choice: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    """Whether an answer is words and nothing else, as most are: then there is nothing left to look for."""
    said = {key: value for key, value in message.items() if value}
    words = all(isinstance(said.get(key, ""), str) for key in ("content", "refusal"))
    return choice.keys() <= _KNOWN_IN_CHOICE and said.keys() <= _PLAIN and words and said.get("role") == "assistant"


def _assistant_pieces(message: dict[str, Any], path: Path, lane: int) -> list[Piece]:
    """What an assistant message holds besides its content, in requests and responses alike."""
    pieces: list[Piece] = []
    if isinstance(message.get("refusal"), str):
        pieces.append(Piece((*path, "refusal"), message["refusal"], Stage.OUTPUT, lane=lane))
    reasoning = [key for key in _REASONING if isinstance(message.get(key), str)]
    pieces += [Piece((*path, key), message[key], Stage.OUTPUT, Form.OPAQUE, lane) for key in reasoning]
    audio = message.get("audio")
    if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
        pieces.append(Piece((*path, "audio", "transcript"), audio["transcript"], Stage.OUTPUT, Form.OPAQUE, lane))
    if isinstance(message.get("function_call"), dict):
        pieces += _arguments(message["function_call"], (*path, "function_call"), lane)
    for index, call in enumerate(message.get("tool_calls") or ()):
        pieces += _tool_call(call, (*path, "tool_calls", index), lane)
    return pieces


def _tool_call(call: Any, path: Path, lane: int) -> list[Piece]:
    if not isinstance(call, dict):
        raise unknown("A tool call of type", type(call).__name__)
    if isinstance(call.get("function"), dict):
        return _arguments(call["function"], (*path, "function"), lane)
    if isinstance(call.get("custom"), dict):
        text = require_text(call["custom"].get("input", ""), "A custom tool call's `input`")
        return [Piece((*path, "custom", "input"), text, Stage.TOOL_CALL, Form.OPAQUE, lane)]
    raise unknown("The tool call type", call.get("type"))


def _arguments(function: dict[str, Any], path: Path, lane: int) -> list[Piece]:
    arguments = function.get("arguments")
    if arguments is None:
        return []
    if isinstance(arguments, dict | list):  # some providers send the object itself
        return argument_leaves(arguments, (*path, "arguments"), lane)
    text = require_text(arguments, "A tool call's `arguments`")
    return [Piece((*path, "arguments"), text, Stage.TOOL_CALL, Form.ARGUMENTS, lane)]


def _as_opaque(pieces: list[Piece]) -> list[Piece]:
    return [Piece(piece.path, piece.text, piece.stage, Form.OPAQUE) for piece in pieces]
