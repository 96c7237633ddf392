"""Events of shapes that no server sends today: a text in them is judged wherever it stands, or the event is refused."""

from __future__ import annotations

from typing import Any

import pytest

from guardrail.errors import ModerationError, UnsupportedPath
from guardrail.types import Stage
from guardrail.wire.chat_chunks import ChatChunks
from guardrail.wire.message_events import MessageEvents
from guardrail.wire.pieces import Event, Form, Part
from guardrail.wire.response_events import ResponseEvents

BAD = "I will zorgle you now."


def parts(stream: Any, data: dict[str, Any]) -> list[Part]:
    return list(stream.split(Event(data, data.get("type"))))


def judged(found: list[Part]) -> list[str]:
    """Every text that will be judged."""
    return [text for part in found for text in (part.text, *(piece.text for piece in part.pieces)) if text]


def chunk(**choice: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, **choice}],
    }


class TestResponses:
    @pytest.mark.parametrize(
        "event",
        [
            {"type": "response.output_text.delta", "delta": {"text": BAD}},
            {"type": "response.output_text.done", "text": [{"text": BAD}]},
            {"type": "response.function_call_arguments.delta", "delta": {"to": BAD}},
            {"type": "response.content_part.added", "part": {"type": "hologram", "words": BAD}},
            {"type": "response.content_part.done", "part": {"words": BAD}},
            {"type": "response.completed", "response": {"output": [], "output_text": {"value": BAD}}},
        ],
    )
    def test_a_text_in_an_unknown_shape_is_refused(self, event: dict[str, Any]) -> None:
        with pytest.raises(UnsupportedPath, match="not known to guardrail"):
            parts(ResponseEvents({}), event)

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "response.output_text.delta", "delta": None},
            {"type": "response.output_text.done"},
            {"type": "response.content_part.added", "part": {"type": "hologram"}},
            {"type": "response.content_part.done"},
            {"type": "response.completed", "response": {"output": []}},
        ],
    )
    def test_the_same_without_text_passes(self, event: dict[str, Any]) -> None:
        (part,) = parts(ResponseEvents({}), event)
        assert judged([part]) == []

    def test_what_was_spoken_is_judged_in_a_finished_part(self) -> None:
        spoken = {"type": "output_audio", "data": "AAAA", "transcript": BAD}
        (part,) = parts(ResponseEvents({}), {"type": "response.content_part.done", "output_index": 1, "part": spoken})
        assert judged([part]) == [BAD]
        assert part.unscanned == ("output_audio",)
        assert part.pieces[0].channel == (1, "content", 0, "transcript")

    def test_titles_of_sources_are_judged_in_a_finished_part(self) -> None:
        text = {"type": "output_text", "text": "As they say.", "annotations": [{"type": "url_citation", "title": BAD}]}
        (part,) = parts(ResponseEvents({}), {"type": "response.content_part.done", "part": text})
        assert judged([part]) == ["As they say.", BAD]
        assert [piece.stage for piece in part.pieces] == [Stage.OUTPUT, Stage.RETRIEVED]

    @pytest.mark.parametrize(
        ("kind", "form"), [("output_text", Form.JSON), ("summary_text", Form.OPAQUE), ("reasoning_text", Form.OPAQUE)]
    )
    def test_finished_parts_keep_the_form_of_their_text(self, kind: str, form: Form) -> None:
        stream = ResponseEvents({"text": {"format": {"type": "json_object"}}})
        (part,) = parts(stream, {"type": "response.content_part.done", "part": {"type": kind, "text": "{}"}})
        assert [piece.form for piece in part.pieces] == [form]

    def test_a_copy_of_the_whole_text_goes_with_the_text(self) -> None:
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": BAD}]}
        response = {"output": [item], "output_text": BAD}
        (part,) = parts(ResponseEvents({}), {"type": "response.completed", "response": response})
        assert [(piece.path[-1], piece.channel) for piece in part.pieces] == [
            ("text", (0, "content", 0, "text")),
            ("output_text", (0, "content", 0, "text")),
        ]

    def test_another_text_beside_the_items_is_judged_by_itself(self) -> None:
        (part,) = parts(
            ResponseEvents({}), {"type": "response.completed", "response": {"output": [], "output_text": BAD}}
        )
        assert [(piece.text, piece.channel) for piece in part.pieces] == [(BAD, None)]


class TestMessages:
    def test_a_block_that_begins_with_text_and_citations_is_one_text(self) -> None:
        stream = MessageEvents({})
        block = {
            "type": "text",
            "text": "I will zor",
            "citations": [{"type": "char_location", "cited_text": "Quoted."}],
        }
        delta = {"type": "text_delta", "text": "gle you now."}
        (head,) = parts(stream, {"type": "content_block_start", "index": 0, "content_block": block})
        (tail,) = parts(stream, {"type": "content_block_delta", "index": 0, "delta": delta})
        assert (head.channel, head.text + tail.text) == (tail.channel, BAD)
        assert [(piece.text, piece.stage) for piece in head.pieces] == [("Quoted.", Stage.RETRIEVED)]


class TestChunks:
    @pytest.mark.parametrize(
        "delta", [BAD, {"refusal": {"text": BAD}}, {"function_call": BAD}, {"audio": BAD}, {"content": [{"text": BAD}]}]
    )
    def test_a_text_in_an_unknown_shape_is_refused(self, delta: Any) -> None:
        with pytest.raises(UnsupportedPath, match="not known to guardrail"):
            parts(ChatChunks({}), chunk(delta=delta))

    @pytest.mark.parametrize("delta", [None, {}, {"refusal": None, "audio": None, "function_call": None}])
    def test_the_same_without_text_passes(self, delta: Any) -> None:
        assert judged(parts(ChatChunks({}), chunk(delta=delta))) == []

    def test_an_error_that_is_none_hides_no_text(self) -> None:
        with pytest.raises(ModerationError, match="no `choices`"):
            parts(ChatChunks({}), {"error": None, "text": BAD})

    def test_an_error_is_the_client_librarys(self) -> None:
        event = {"error": {"message": "overloaded", "type": "server_error"}, "id": "c"}
        assert [part.event.data for part in parts(ChatChunks({}), event)] == [event]
