"""Texts under keys that no format knows: judged wherever they stand, in whole answers and in every event of a stream."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from guardrail.errors import GuardrailError
from guardrail.wire.documents import Path
from guardrail.wire.leftovers import Once, leftovers, spells
from guardrail.wire.pieces import Event, Form, Piece
from guardrail.wire.routes import FORMATS

BAD = "I will zorgle you now."

# Events and answers as their servers send them, with each kind of object that has texts in it.
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        {
            "type": "text",
            "text": "Fine.",
            "citations": [
                {
                    "type": "web_search_result_location",
                    "cited_text": "So it is.",
                    "url": "https://example.org/a b",
                    "title": "A page",
                    "encrypted_index": "aW5kZXg=",
                }
            ],
        },
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "look_up",
            "input": {"place": "Here"},
            "caller": {"type": "direct"},
        },
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "pages"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_1",
            "content": [
                {
                    "type": "web_search_result",
                    "title": "A page",
                    "url": "https://example.org/",
                    "encrypted_content": "Y29udGVudA==",
                    "page_age": "April 30, 2025",
                }
            ],
        },
    ],
    "stop_reason": "stop_sequence",
    "stop_sequence": "\n\nHuman:",
    "container": {"id": "container_1", "expires_at": "2025-01-01 10:00"},
    "usage": {"input_tokens": 1, "output_tokens": 2, "service_tier": "standard"},
}
MESSAGE_STREAM: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None, "stop_sequence": None}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me see."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "", "citations": []}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Fine."}},
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "citations_delta", "citation": MESSAGE["content"][2]["citations"][0]},
    },
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"place": "Here"}'},
    },
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": MESSAGE["content"][5]},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 5},
        "context_management": {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_tool_uses": 1}]},
    },
    {"type": "message_stop"},
]
LOGPROB = {"token": "Fine.", "logprob": -0.1, "bytes": [70, 105, 110, 101, 46], "top_logprobs": []}
ITEM: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "phase": "final_answer",
    "content": [
        {
            "type": "output_text",
            "text": "Fine.",
            "annotations": [{"type": "url_citation", "url": "https://e.org", "title": "A page", "start_index": 0}],
            "logprobs": [LOGPROB],
        }
    ],
}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_1",
    "name": "look_up",
    "arguments": '{"place": "Here"}',
    "status": "completed",
}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "encrypted_content": "gAAAA Bk",
    "summary": [{"type": "summary_text", "text": "I looked."}],
    "status": None,
}
SEARCH = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "pages"},
}
PICTURE = {
    "id": "ig_1",
    "type": "image_generation_call",
    "status": "completed",
    "result": "aGVsbG8 gd29y",
    "size": "1024x1024",
    "quality": "low",
    "background": "opaque",
    "output_format": "png",
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "background": False,
    "error": None,
    "incomplete_details": None,
    "instructions": "Answer in one word. Never insult anybody.",
    "metadata": {"project": "a long name"},
    "model": "m",
    "output": [REASONING, SEARCH, ITEM, CALL, PICTURE],
    "parallel_tool_calls": True,
    "prompt": None,
    "reasoning": {"effort": "low", "summary": "detailed"},
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": "auto",
    "tools": [{"type": "function", "name": "look_up", "description": "Looks a place up.", "parameters": {}}],
    "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
}
_AT = {"item_id": "msg_1", "output_index": 2, "content_index": 0}
RESPONSE_STREAM: list[dict[str, Any]] = [
    {"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "output": []}},
    {"type": "response.output_item.added", "output_index": 2, "item": {**ITEM, "content": []}},
    {"type": "response.content_part.added", **_AT, "part": {"type": "output_text", "text": "", "annotations": []}},
    {"type": "response.output_text.delta", **_AT, "delta": "Fine.", "logprobs": [LOGPROB], "obfuscation": "x Yz9"},
    {
        "type": "response.output_text.annotation.added",
        **_AT,
        "annotation_index": 0,
        "annotation": {"type": "url_citation", "title": "A page", "url": "https://e.org"},
    },
    {"type": "response.output_text.done", **_AT, "text": "Fine.", "logprobs": [LOGPROB]},
    {"type": "response.content_part.done", **_AT, "part": ITEM["content"][0]},
    {"type": "response.output_item.done", "output_index": 2, "item": ITEM},
    {"type": "response.output_item.added", "output_index": 3, "item": {**CALL, "arguments": ""}},
    {
        "type": "response.function_call_arguments.delta",
        "item_id": "fc_1",
        "output_index": 3,
        "delta": '{"place": "Here"}',
    },
    {
        "type": "response.function_call_arguments.done",
        "item_id": "fc_1",
        "output_index": 3,
        "name": "look_up",
        "arguments": '{"place": "Here"}',
    },
    {"type": "response.output_item.done", "output_index": 3, "item": CALL},
    {"type": "response.web_search_call.searching", "item_id": "ws_1", "output_index": 1},
    {"type": "response.image_generation_call.partial_image", "item_id": "ig_1", "partial_image_b64": "aGVsbG8 x"},
    {"type": "response.completed", "response": RESPONSE},
]
CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "service_tier": "default",
    "system_fingerprint": "fp_1",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "logprobs": {"content": [LOGPROB], "refusal": None},
            "message": {
                "role": "assistant",
                "content": "Fine.",
                "refusal": None,
                "annotations": [{"type": "url_citation", "url_citation": {"title": "A page", "url": "https://e.org"}}],
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "look_up", "arguments": '{"place": "Here"}'},
                        "extra_content": {"google": {"thought_signature": "c2ln"}},
                    }
                ],
            },
            "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


def _chunk(delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "obfuscation": "x Yz9"}
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}]}


CHAT_STREAM: list[dict[str, Any]] = [
    _chunk({"role": "assistant", "content": "", "refusal": None}),
    _chunk({"content": "Fine."}, logprobs={"content": [LOGPROB], "refusal": None}),
    _chunk(
        {
            "tool_calls": [
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
            ]
        }
    ),
    _chunk({"audio": {"id": "audio_1", "data": "aGVsbG8 x", "transcript": "Fine.", "expires_at": 1}}),
    _chunk({}, finish_reason="stop"),
    {**_chunk({}), "choices": [], "usage": {"prompt_tokens": 1}},
]
WHOLE: dict[str, dict[str, Any]] = {"messages": MESSAGE, "responses": RESPONSE, "chat_completions": CHAT}
STREAMS: dict[str, list[dict[str, Any]]] = {
    "messages": MESSAGE_STREAM,
    "responses": RESPONSE_STREAM,
    "chat_completions": CHAT_STREAM,
}
# Objects whose contents nobody reads: echoes of the request, errors, counts, encrypted or encoded data.
ECHOES = frozenset(
    "usage metadata instructions reasoning text tools tool_choice error incomplete_details logprobs top_logprobs "
    "content_filter_results container context_management".split()
)


def objects(node: Any, path: Path = ()) -> Iterator[Path]:
    """Where the objects of a document stand, those aside whose contents are no answer."""
    if isinstance(node, dict):
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if key not in ECHOES:
            yield from objects(value, (*path, key))


def with_text(document: Any, path: Path, key: str) -> Any:
    """A copy of a document with a text under a key of the object at `path`."""
    copied = copy.deepcopy(document)
    node = copied
    for step in path:
        node = node[step]
    node[key] = BAD
    return copied


def read_whole(name: str, document: dict[str, Any]) -> list[str]:
    """Every text of an answer that is judged; the word "refused" where it cannot be."""
    try:
        return [piece.text for piece in FORMATS[name].answers(document, {})[0]]
    except GuardrailError:
        return ["refused"]


def read_stream(name: str, events: list[dict[str, Any]]) -> list[str]:
    """Every text of a stream that is judged; the word "refused" where an event cannot be."""
    stream = FORMATS[name].stream({})
    found: list[str] = []
    for data in events:
        try:
            for part in stream.split(Event(data, data.get("type"))):
                found += [part.text, *(piece.text for piece in part.pieces)]
        except GuardrailError:
            found.append("refused")
    return [text for text in found if text]


class TestWhole:
    @pytest.mark.parametrize("name", WHOLE)
    def test_a_known_answer_has_no_other_texts_than_its_own(self, name: str) -> None:
        known = {
            "Let me see.", "Fine.", "So it is.", "A page", "Here", "pages", "I looked.", '{"place": "Here"}', "direct",
        }  # fmt: skip
        assert set(read_whole(name, WHOLE[name])) <= known
        assert not FORMATS[name].tidy(copy.deepcopy(WHOLE[name]))

    @pytest.mark.parametrize("name", WHOLE)
    @pytest.mark.parametrize("key", ["remark", "id", "name"])
    def test_a_text_under_any_key_of_any_object_is_judged(self, name: str, key: str) -> None:
        for path in objects(WHOLE[name]):
            if key == "remark" or (path and key in get(WHOLE[name], path)):
                document = with_text(WHOLE[name], path, key)
                assert {BAD, "refused"}.intersection(read_whole(name, document)), (path, key)

    @pytest.mark.parametrize("name", WHOLE)
    def test_a_refusal_drops_it(self, name: str) -> None:
        document = with_text(WHOLE[name], (), "remark")
        FORMATS[name].refuse(document, 0, "Withheld.", {})
        assert BAD not in json.dumps(document)


class TestStreams:
    @pytest.mark.parametrize("name", STREAMS)
    def test_a_known_stream_has_no_other_texts_than_its_own(self, name: str) -> None:
        known = {"Let me see.", "Fine.", "So it is.", "A page", "I looked.", "pages", '{"place": "Here"}', "{}"}
        assert set(read_stream(name, STREAMS[name])) <= known

    @pytest.mark.parametrize("name", STREAMS)
    def test_a_text_under_any_key_of_any_object_of_any_event_is_judged(self, name: str) -> None:
        for at, event in enumerate(STREAMS[name]):
            for path in objects(event):
                events = [*STREAMS[name][:at], with_text(event, path, "remark"), *STREAMS[name][at + 1 :]]
                assert {BAD, "refused"}.intersection(read_stream(name, events)), (event, path)

    def test_what_every_event_repeats_is_judged_once(self) -> None:
        events = [{**event, "vendor": "Made in good order."} for event in CHAT_STREAM]
        assert read_stream("chat_completions", events).count("Made in good order.") == 1


def get(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


class TestLeftovers:
    def test_names_are_left_out_and_words_are_not(self) -> None:
        node = {"id": "abc-1", "name": "two words", "status": "fertig\u00fc", "format": "png", "note": "x", "n": 1}
        assert [piece.path for piece in leftovers(node, ())] == [("name",), ("status",), ("note",)]

    def test_nothing_below_what_was_read_is_walked(self) -> None:
        node = {"a": {"b": "read", "c": [{"d": "left"}]}, "e": {"f": "read too"}}
        found = leftovers(node, {("x", "a", "b"), ("x", "e")}, ("x",), lane=3)
        assert found == [Piece(("x", "a", "c", 0, "d"), "left", form=Form.OPAQUE, lane=3)]

    def test_it_does_not_recurse(self) -> None:
        node: Any = "deep"
        for _ in range(20_000):
            node = [node]
        assert [piece.text for piece in leftovers({"a": node}, ())] == ["deep"]

    def test_once(self) -> None:
        once = Once()
        first, other = Piece(("a",), "x"), Piece(("a",), "x", lane=1)
        assert once.new([first, other]) == (first, other)
        assert once.new([first, other]) == ()
        once.forget()
        assert once.new([first]) == (first,)


class TestSpells:
    @pytest.mark.parametrize(
        ("tokens", "text", "expected"),
        [
            (None, "a", True),
            ([], "a", True),
            ([{"token": "a"}, {"token": "b", "bytes": None}], "ab", True),
            ([{"token": "a"}], "ab", True),
            ([{"token": "other"}], "ab", False),
            ([{"token": "other", "bytes": [97]}], "ab", False),
            ([{"token": "bytes:\\xc3", "bytes": [195]}, {"token": "bytes:\\xa4", "bytes": [164]}], "\u00e4", True),
            ([{"token": " \ufffd", "bytes": [32, 195]}, {"token": "\ufffd", "bytes": [164]}], " \u00e4", True),
            ([{"token": "other\ufffd", "bytes": [195]}, {"token": "\ufffd", "bytes": [164]}], "\u00e4", False),
            ("other", "ab", False),
            (["other"], "ab", False),
            ([{"token": "\ud800"}], "\ud800", True),
        ],
    )
    def test_tokens(self, tokens: Any, text: str, expected: bool) -> None:
        assert spells(tokens, text) is expected

    def test_log_probabilities_of_another_text_are_dropped(self) -> None:
        other = [{**LOGPROB, "token": BAD, "bytes": list(BAD.encode())}]
        chat, response = copy.deepcopy(CHAT), copy.deepcopy(RESPONSE)
        chat["choices"][0]["logprobs"]["content"] = other
        response["output"][2]["content"][0]["logprobs"] = other
        for name, document in (("chat_completions", chat), ("responses", response)):
            assert FORMATS[name].tidy(document)
            assert BAD not in json.dumps(document)
        legacy = {"choices": [{"index": 0, "text": "Fine.", "logprobs": {"tokens": [BAD]}}]}
        assert FORMATS["completions"].tidy(legacy)
        assert BAD not in json.dumps(legacy)

    @pytest.mark.parametrize("at", [3, 5, 6, 7, 14])
    def test_the_same_in_events_of_a_response(self, at: int) -> None:
        other = [{**LOGPROB, "token": BAD, "bytes": list(BAD.encode())}]
        event = json.loads(json.dumps(RESPONSE_STREAM[at]).replace(json.dumps([LOGPROB]), json.dumps(other)))
        assert BAD in json.dumps(event)
        (part,) = FORMATS["responses"].stream({}).split(Event(event, event["type"]))
        assert BAD not in json.dumps(part.event.data)

    def test_a_chunk_with_two_texts_tells_each_only_its_own(self) -> None:
        both = _chunk({"reasoning_content": "Let me see.", "content": "Fine."}, logprobs={"content": [LOGPROB]})
        first, second = FORMATS["chat_completions"].stream({}).split(Event(both))
        assert first.event.data["choices"][0]["logprobs"] is None
        assert second.event.data["choices"][0]["logprobs"] == {"content": [LOGPROB]}
