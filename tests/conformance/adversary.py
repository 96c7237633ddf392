"""Upstreams that try to get a disallowed sentence past the guard, against the real client packages.

Each stream is cut anywhere by a transport of our own. Whatever the client hands over, event by event, is searched for any word
of the disallowed sentence: not one of its words may be delivered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import openai

import guardrail
from guardrail.errors import GuardrailError

BAD = ("wimbly", "zorgle", "frumpish")  # the words of the disallowed sentence; the policy lists the second
SENTENCE = "You wimbly zorgle frumpish."
FINE = "All is well."
Json = dict[str, Any]


def chat(*choices: Json, **more: Any) -> Json:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": list(choices), **more}


def choice(delta: Json, index: int = 0, finish: str | None = None, **more: Any) -> Json:
    return {"index": index, "delta": delta, "finish_reason": finish, **more}


def calls(*given: tuple[int, str], first: bool = False) -> Json:
    head = {"id": "call", "type": "function"} if first else {}
    name = {"name": "send"} if first else {}
    return {"tool_calls": [{"index": at, **head, "function": {**name, "arguments": text}} for at, text in given]}


def logprobs(text: str, data: list[int] | None = None) -> Json:
    return {"content": [{"token": text, "logprob": -1.0, "bytes": data, "top_logprobs": []}], "refusal": None}


HALF, REST = SENTENCE[:12], SENTENCE[12:]
END = chat(choice({}, finish="stop"))
CHATS: dict[str, list[Json]] = {
    "plain": [chat(choice({"content": f"{FINE} {HALF}"})), chat(choice({"content": f"{REST} {FINE}"})), END],
    "with_the_finish_reason": [chat(choice({"content": HALF})), chat(choice({"content": REST}, finish="stop"))],
    "after_the_finish_reason": [chat(choice({"content": FINE})), END, chat(choice({"content": SENTENCE}))],
    "half_after_the_finish_reason": [
        chat(choice({"content": "You zor"})),
        END,
        chat(choice({"content": "gle frumpish."})),
    ],
    "no_end_at_all": [chat(choice({"content": HALF})), chat(choice({"content": REST}))],
    "empty_chunks": [chat(choice({"content": word})) for word in ("", "You wim", "", "bly zor", "", "gle frumpish")]
    + [END],
    "choices_take_turns": [
        chat(choice({"content": FINE}), choice({"content": "You wimbly "}, 1)),
        chat(choice({"content": "zorgle frumpish."}, 1), choice({"content": FINE})),
        chat(choice({}, 0, "stop"), choice({}, 1, "stop")),
    ],
    "hidden_characters": [chat(choice({"content": part})) for part in ("You zor", "\u200b", "g\u2060le frumpish")]
    + [END],
    "look_alikes": [chat(choice({"content": part})) for part in ("You z\u043er", "gl\u0435 frumpish")] + [END],
    "arguments": [
        chat(choice(calls((0, ""), first=True))),
        *(chat(choice(calls((0, part)))) for part in ('{"to": "You wim', "bly zor", 'gle frumpish"}')),
        chat(choice({}, finish="tool_calls")),
    ],
    "escaped_arguments": [
        chat(choice(calls((0, '{"to": "You wimbly zo\\u0'), first=True))),
        chat(choice(calls((0, '072gle frumpish"}')))),
        END,
    ],
    "parallel_calls": [
        chat(choice(calls((0, '{"a": "fine"}'), (1, '{"to": "You wimbly '), first=True))),
        chat(choice(calls((1, 'zorgle frumpish"}')))),
        END,
    ],
    "calls_take_turns": [
        chat(choice(calls((0, '{"to": "You zor'), first=True))),
        chat(choice(calls((1, '{"a": '), first=True))),
        chat(choice(calls((0, 'gle frumpish"}')))),
        chat(choice(calls((1, "1}")))),
        END,
    ],
    "inside_a_call": [
        chat(choice({"tool_calls": [{"index": 0, "function": {"arguments": "{}", "why": SENTENCE}}]})),
        END,
    ],
    "reasoning": [chat(choice({"reasoning_content": part})) for part in ("You wimbly ", "zorgle frumpish.")] + [END],
    "refusal": [chat(choice({"refusal": part})) for part in ("You wimbly ", "zorgle frumpish.")] + [END],
    "unknown_key": [chat(choice({"content": FINE, "aside": SENTENCE})), END],
    "unknown_key_of_the_chunk": [chat(choice({"content": FINE}), aside={"note": SENTENCE}), END],
    "log_probabilities": [chat(choice({"content": FINE}, logprobs=logprobs(SENTENCE))), END],
    "log_probabilities_by_name": [chat(choice({"content": FINE}, logprobs=logprobs(SENTENCE, list(b"All")))), END],
    "log_probabilities_ahead": [
        chat(choice({"reasoning_content": f"{FINE} ", "content": HALF}, logprobs=logprobs(HALF))),
        chat(choice({"content": REST}, logprobs=logprobs(REST))),
        END,
    ],
    "beside_the_usage": [
        chat(choice({"content": FINE})),
        END,
        chat(usage={"prompt_tokens": 1, "total_tokens": 1}, note=SENTENCE),
    ],
    "across_lines": [
        chat(choice({"content": part})) for part in ("So says he:\n\nYou zorgle\n", "frumpish\n\nand more.")
    ]
    + [END],
}


def block(index: int, start: Json, *deltas: Json) -> list[Json]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text_block(index: int, *texts: str, **more: Any) -> list[Json]:
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    return block(index, {"type": "text", "text": "", "citations": None, **more}, *deltas)


def message(*blocks: list[Json], ending: Json | None = None) -> list[Json]:
    head = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    usage = {"input_tokens": 1, "output_tokens": 1}
    return [
        {"type": "message_start", "message": {**head, "stop_sequence": None, "usage": usage}},
        *(event for one in blocks for event in one),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None, **(ending or {})},
            "usage": usage,
        },
        {"type": "message_stop"},
    ]


CITED = {
    "type": "char_location",
    "cited_text": SENTENCE,
    "document_index": 0,
    "start_char_index": 0,
    "end_char_index": 1,
}
RESULT = {
    "type": "web_search_result",
    "title": SENTENCE,
    "url": "https://e.org",
    "encrypted_content": "x",
    "page_age": None,
}
MESSAGES: dict[str, list[Json]] = {
    "plain": message(text_block(0, FINE, f" {HALF}", REST)),
    "over_two_blocks": message(text_block(0, "You zor"), text_block(1, "gle frumpish.")),
    "after_the_block": [
        *message(text_block(0, "You zor"))[:-2],
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "gle frumpish."}},
        *message()[-2:],
    ],
    "thinking": message(
        block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            *({"type": "thinking_delta", "thinking": part} for part in ("You wimbly ", "zorgle frumpish.")),
            {"type": "signature_delta", "signature": "c2ln"},
        )
    ),
    "thinking_under_another_key": message(
        block(0, {"type": "thinking", "thinking": "", "signature": "", "text": SENTENCE})
    ),
    "tool_use": message(
        block(
            0,
            {"type": "tool_use", "id": "t", "name": "send", "input": {}},
            *({"type": "input_json_delta", "partial_json": part} for part in ('{"to": "You zor', 'gle frumpish"}')),
        )
    ),
    "server_tool_use": message(
        block(
            0,
            {"type": "server_tool_use", "id": "t", "name": "web_search", "input": {}},
            {"type": "input_json_delta", "partial_json": json.dumps({"query": SENTENCE})},
        )
    ),
    "search_results": message(block(0, {"type": "web_search_tool_result", "tool_use_id": "t", "content": [RESULT]})),
    "citation": message(block(0, {"type": "text", "text": ""}, {"type": "citations_delta", "citation": CITED})),
    "unknown_key_of_a_block": message(text_block(0, FINE, aside=SENTENCE)),
    "unknown_key_of_a_delta": message(
        block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": FINE, "aside": SENTENCE})
    ),
    "unknown_key_at_the_end": message(text_block(0, FINE), ending={"stop_details": {"explanation": SENTENCE}}),
}
AT = {"item_id": "i", "output_index": 0, "content_index": 0}
ITEM = {"id": "i", "type": "message", "role": "assistant", "status": "completed"}


def part(text: str, **more: Any) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], **more}


def response(*items: Json, **more: Any) -> Json:
    echo = {
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "metadata": {},
    }
    head = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed", "error": None}
    return {**head, **echo, "incomplete_details": None, "instructions": None, "output": list(items), **more}


def said(*deltas: str, done: str | None = None, final: Json | None = None, **more: Any) -> list[Json]:
    """The events of one message; `done` is what the event says that repeats the text, `final` the response at the end."""
    whole = "".join(deltas)
    done = whole if done is None else done
    item = {**ITEM, "content": [part(done)]}
    return [
        {"type": "response.created", "response": response(status="in_progress")},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**ITEM, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **AT, "part": part("")},
        *({"type": "response.output_text.delta", **AT, "delta": delta, "logprobs": [], **more} for delta in deltas),
        {"type": "response.output_text.done", **AT, "text": done, "logprobs": []},
        {"type": "response.content_part.done", **AT, "part": part(done)},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": final or response(item)},
    ]


PICTURE = {
    "id": "g",
    "type": "image_generation_call",
    "status": "completed",
    "result": "aGk=",
    "revised_prompt": SENTENCE,
}
RESPONSES: dict[str, list[Json]] = {
    "plain": said(FINE, f" {HALF}", REST),
    "done_says_something_else": said(FINE, done=SENTENCE),
    "the_end_says_something_else": said(FINE, final=response({**ITEM, "content": [part(SENTENCE)]})),
    "the_end_has_another_key": said(FINE, final=response({**ITEM, "content": [part(FINE)]}, aside={"note": SENTENCE})),
    "a_delta_has_another_key": said(FINE, aside=SENTENCE),
    "log_probabilities": said(
        FINE, final=response({**ITEM, "content": [part(FINE, logprobs=logprobs(SENTENCE)["content"])]})
    ),
    "the_prompt_of_a_picture": [
        {"type": "response.created", "response": response(status="in_progress")},
        {"type": "response.output_item.done", "output_index": 0, "item": PICTURE},
        {"type": "response.completed", "response": response(PICTURE)},
    ],
    "two_messages": [
        *said("You zor")[:-1],
        *({**event, "output_index": 1} for event in said("gle frumpish.")[1:-1]),
        {
            "type": "response.completed",
            "response": response({**ITEM, "content": [part("You zor")]}, {**ITEM, "content": [part("gle frumpish.")]}),
        },
    ],
}
for _at, _event in enumerate(_event for _events in RESPONSES.values() for _event in _events):
    _event["sequence_number"] = _at


def sent(events: list[Json], *, named: bool, end: str = "\n") -> bytes:
    """Events as bytes of an event stream."""
    names = [f"event: {event['type']}{end}" if named else "" for event in events]
    blocks = [
        f"{name}data: {json.dumps(event, ensure_ascii=False)}{end}{end}"
        for name, event in zip(names, events, strict=True)
    ]
    return "".join([*blocks, "" if named else f"data: [DONE]{end}{end}"]).encode()


def openai_chat(client: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}], stream=True, n=2)


def openai_responses(client: Any) -> Any:
    return client.responses.create(model="m", input="Hello", stream=True)


def anthropic_messages(client: Any) -> Any:
    return client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hello"}], stream=True)


APIS = {
    "chat": (CHATS, openai_chat, False),
    "responses": (RESPONSES, openai_responses, True),
    "messages": (MESSAGES, anthropic_messages, True),
}


class Cut:
    """An HTTP transport that answers every call with one body, cut into pieces of a size."""

    def __init__(self, http: Any, data: bytes, size: int) -> None:
        self.http, self.data, self.size = http, data, size

    def parts(self) -> Iterator[bytes]:
        yield from (self.data[at : at + self.size] for at in range(0, len(self.data), self.size))

    def transport(self, *, asynchronous: bool) -> Any:
        http, parts = self.http, self.parts
        kind = "application/json" if self.data.startswith(b"{") else "text/event-stream"

        class Body(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                return parts()

            async def __aiter__(self) -> AsyncIterator[bytes]:
                for piece in parts():
                    await asyncio.sleep(0)
                    yield piece

        def answer(_: Any) -> Any:
            return http.Response(200, headers={"content-type": kind}, stream=Body())

        async def aanswer(request: Any) -> Any:
            return answer(request)

        return http.MockTransport(aanswer if asynchronous else answer)


def http_of(package: Any) -> Any:
    """The package, httpx or httpx2, that a client library uses."""
    import importlib

    return importlib.import_module(
        type(package._base_client.DefaultHttpxClient()).__mro__[1].__module__.partition(".")[0]
    )


def client_of(api: str, guard: Any, data: bytes, size: int, *, asynchronous: bool = False) -> Any:
    """A wrapped client of the package of an API, whose every call is answered with `data`."""
    package = anthropic if api == "messages" else openai
    http = http_of(package)
    transport = Cut(http, data, size).transport(asynchronous=asynchronous)
    kinds = {(False, False): openai.OpenAI, (False, True): openai.AsyncOpenAI, (True, False): anthropic.Anthropic}
    make = kinds.get((api == "messages", asynchronous), anthropic.AsyncAnthropic)
    http_client = (http.AsyncClient if asynchronous else http.Client)(transport=transport)
    return guardrail.wrap(
        make(api_key="none", base_url="http://model.test/v1", http_client=http_client, max_retries=0), guard=guard
    )


def assert_nothing_of_it(heard: list[str]) -> None:
    found = json.dumps(
        [json.loads(event) for event in heard], ensure_ascii=False
    )  # what was escaped reads as it would be
    assert not [word for word in BAD if word in found], found


# `model_dump_json(warnings=False)`: the oldest libraries read kinds of objects that they do not know as others, and warn of it.


def hear(api: str, name: str, guard: Any, size: int, end: str = "\n") -> list[str]:
    """What a client hands over of a stream, event by event, before it ends or is refused."""
    streams, call, named = APIS[api]
    client = client_of(api, guard, sent(streams[name], named=named, end=end), size)
    heard: list[str] = []
    try:
        heard.extend(event.model_dump_json(warnings=False) for event in call(client))
    except GuardrailError:
        heard.append('"refused"')
    return heard


async def ahear(api: str, name: str, guard: Any, size: int) -> list[str]:
    """The same of an asynchronous client."""
    streams, call, named = APIS[api]
    client = client_of(api, guard, sent(streams[name], named=named), size, asynchronous=True)
    heard: list[str] = []
    try:
        async for event in await call(client):
            heard.append(event.model_dump_json(warnings=False))
    except GuardrailError:
        heard.append('"refused"')
    await client.close()
    return heard


def hear_harmless(api: str, name: str, guard: Any) -> str:
    """What a client hands over of a stream whose disallowed word became another one."""
    streams, call, named = APIS[api]
    events = json.loads(json.dumps(streams[name]).replace("zor", "nor").replace("gle ", "mal "))
    return "".join(
        event.model_dump_json(warnings=False) for event in call(client_of(api, guard, sent(events, named=named), 5))
    )


def whole(api: str, document: Json, guard: Any) -> str:
    """What a client hands over of a whole answer."""
    client = client_of(api, guard, json.dumps(document).encode(), 61)
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    try:
        if api == "chat":
            return str(client.chat.completions.create(**asked).model_dump_json(warnings=False))
        if api == "responses":
            return str(client.responses.create(model="m", input="Hello").model_dump_json(warnings=False))
        return str(client.messages.create(**asked, max_tokens=9).model_dump_json(warnings=False))
    except GuardrailError:
        return '"refused"'


def completion(*, message: Json, **more: Any) -> Json:
    one = {"index": 0, "message": {"role": "assistant", "content": FINE, **message}, "finish_reason": "stop", **more}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [one]}


def answered(*blocks: Json, **more: Any) -> Json:
    head = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    return {
        **head,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
        "content": list(blocks),
        **more,
    }


WHOLE: dict[str, dict[str, Json]] = {
    "chat": {
        "another_key": completion(message={"aside": SENTENCE}),
        "inside_a_call": completion(
            message={
                "tool_calls": [
                    {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}", "why": SENTENCE}}
                ]
            }
        ),
        "title_of_a_source": completion(
            message={
                "annotations": [{"type": "url_citation", "url_citation": {"title": SENTENCE, "url": "https://e.org"}}]
            }
        ),
        "log_probabilities": completion(message={}, logprobs=logprobs(SENTENCE)),
        "beside_an_error": {"error": {"message": "no"}, "aside": SENTENCE},
    },
    "responses": {
        "another_key": response({**ITEM, "content": [part(FINE, aside=SENTENCE)]}),
        "over_two_messages": response(
            {**ITEM, "content": [part("You zor")]}, {**ITEM, "content": [part("gle frumpish.")]}
        ),
        "over_two_parts": response({**ITEM, "content": [part("You zor"), part("gle frumpish.")]}),
        "the_prompt_of_a_picture": response(PICTURE),
        "beside_an_error": {
            **response(error={"code": "server_error", "message": "no"}, aside=SENTENCE),
            "output": None,
        },
        "log_probabilities": response({**ITEM, "content": [part(FINE, logprobs=logprobs(SENTENCE)["content"])]}),
    },
    "messages": {
        "another_key": answered({"type": "text", "text": FINE, "aside": SENTENCE}),
        "another_key_of_the_message": answered({"type": "text", "text": FINE}, aside=[SENTENCE]),
        "over_two_blocks": answered({"type": "text", "text": "You zor"}, {"type": "text", "text": "gle frumpish."}),
        "thinking_under_another_key": answered({"type": "thinking", "thinking": "", "signature": "", "text": SENTENCE}),
    },
}
