"""Upstreams that fail, hang, cut, compress, or answer garbage: a clear error or an audited state, never an unmoderated pass."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import guardrail
from guardrail.errors import AuditUnavailable, GuardrailError, ModerationError, UnsupportedPath
from guardrail.types import State

BAD = "I will zorgle you now."
REFUSAL = "This was withheld."
HELLO = [{"role": "user", "content": "Good morning"}]
TEXT = "Grüße aus Köln 🙂. Это второе предложение. 三つ目の文です。The end."


@pytest.fixture
def client(upstream: Any, guard: Any) -> Iterator[OpenAI]:
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        yield guardrail.wrap(client, guard=guard)


def stream(client: OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=HELLO, stream=True, **options)


def text_of(chunks: Any) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.mark.parametrize("fault", ["", "split", "crlf", "comments", "gzip"])
@pytest.mark.parametrize("api", ["chat", "responses", "completions"])
def test_however_the_stream_is_sent(client: OpenAI, upstream: Any, reply: Any, fault: str, api: str) -> None:
    for text, expected in ((TEXT, TEXT), (f"{TEXT} {BAD}", f"{TEXT} \n\n{REFUSAL}")):
        upstream.reply = reply(texts=(text,), fault=fault, chunk=1 if fault == "split" else 3)
        if api == "chat":
            assert text_of(stream(client)) == expected
        elif api == "completions":
            chunks = client.completions.create(model="m", prompt="hi", stream=True)
            assert "".join(chunk.choices[0].text for chunk in chunks) == expected
        else:
            events = list(client.responses.create(model="m", input="hi", stream=True))
            assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == expected
            assert events[-1].response.output_text == expected


@pytest.mark.parametrize("fault", ["split", "crlf", "comments", "gzip"])
def test_anthropic_however_the_stream_is_sent(upstream: Any, guard: Any, reply: Any, fault: str) -> None:
    upstream.reply = reply(texts=(f"{TEXT} {BAD}",), fault=fault, chunk=3)
    with anthropic.Anthropic(api_key="k", base_url=upstream.url.removesuffix("/v1"), max_retries=0) as client:
        guardrail.wrap(client, guard=guard)
        with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as events:
            assert "".join(events.text_stream) == f"{TEXT} \n\n{REFUSAL}"


def test_a_compressed_answer(client: OpenAI, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=(BAD,), fault="gzip")
    response = client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
    assert response.parse().choices[0].message.content == REFUSAL
    assert "content-encoding" not in response.headers
    assert int(response.headers["content-length"]) == len(response.content)


def test_a_stream_cut_by_the_network_surfaces(client: OpenAI, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=(f"First. Second is longer. {BAD}",), fault="cut")
    delivered = ""
    with pytest.raises((httpx.RemoteProtocolError, httpx2.RemoteProtocolError, openai.APIConnectionError)):
        for chunk in stream(client):
            delivered += text_of([chunk])
    assert delivered.strip() in "First. Second is longer."
    assert delivered.startswith("First.")


def test_a_stream_that_ends_early_is_judged_to_its_end(client: OpenAI, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("First. I will zorgle you, and so on.",), fault="early-end")
    assert text_of(stream(client)) == f"First. \n\n{REFUSAL}"
    upstream.reply = reply(texts=("First. Then something quite long without an end",), fault="early-end")
    assert text_of(stream(client)) == "First. Then something quite "


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"I will zorgle you now", "text/plain"),
        (b"<html>zorgle</html>", "text/html"),
        (b"zorgle\n\nzorgle\n\n", "text/event-stream"),
        (b'["zorgle"]', "application/json"),
        (b'{"words": "zorgle"}', "application/json"),
        (b'{"choices": "zorgle"}', "application/json"),
        (b'{"choices": [{"message": "zorgle"}]}', "application/json"),
        (b'{"choices": [{"message": {"content": {"zorgle": 1}}}]}', "application/json"),
        (b'{"choices": [{"message": {"content": "zorg', "application/json"),
        (b"\xff\xfe\x00z", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"data: zorgle\n\n", "text/event-stream"),
        (b'data: {"words": "zorgle"}\n\n', "text/event-stream"),
        (b'data: {"choices": ["zorgle"]}\n\n', "text/event-stream"),
        (b'data: {"choices": [{"delta": {"content": ["zorgle"]}}]}\n\n', "text/event-stream"),
        (b'data: {"choices": [{"delta": {"poem": {"lines": ["zorgle"]}}}]}\n\n', "text/event-stream"),
    ],
    ids=range(16),
)
@pytest.mark.parametrize("asked_to_stream", [False, True])
def test_garbage_is_never_passed_on(
    client: OpenAI, upstream: Any, reply: Any, body: bytes, content_type: str, asked_to_stream: bool
) -> None:
    upstream.reply = reply(raw=body, content_type=content_type)
    with pytest.raises(ModerationError) as caught:
        answer = client.chat.completions.create(model="m", messages=HELLO, stream=asked_to_stream)
        list(answer)
    assert "zorgle" not in str(caught.value) or isinstance(caught.value, UnsupportedPath)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "application/json"])
def test_an_event_stream_that_says_it_is_something_else(
    client: OpenAI, upstream: Any, reply: Any, content_type: str
) -> None:
    upstream.reply = reply(texts=(f"First. {BAD}",), content_type=content_type, chunk=20)
    with client.chat.completions.with_streaming_response.create(model="m", messages=HELLO, stream=True) as response:
        body = response.read().decode()
    assert "zorgle" not in body
    assert "First." in body
    assert "withheld" in body


def test_comments_and_unknown_fields_do_not_smuggle_text(client: OpenAI, upstream: Any, reply: Any) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Fine."}}]}
    body = f": zorgle\n\nwords: zorgle\ndata: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    upstream.reply = reply(raw=body.encode(), content_type="text/event-stream")
    with client.chat.completions.with_streaming_response.create(model="m", messages=HELLO, stream=True) as response:
        received = response.read().decode()
    assert "zorgle" not in received
    assert "Fine." in received


def test_events_that_nobody_changed_leave_as_they_came(client: OpenAI, upstream: Any, reply: Any) -> None:
    body = b"".join(
        b'data: {"id":"c",  "choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n' % word
        for word in (b"One", b" two.", b" Three", b" four.")
    )
    body += b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    upstream.reply = reply(raw=body, content_type="text/event-stream")
    with client.chat.completions.with_streaming_response.create(model="m", messages=HELLO, stream=True) as response:
        assert response.read() == body


def test_unknown_events_pass_without_text_and_are_refused_with_it(client: OpenAI, upstream: Any, reply: Any) -> None:
    known = 'event: response.new\ndata: {"type":"response.new","sequence_number":1,"count":3}\n\n'
    upstream.reply = reply(raw=known.encode(), content_type="text/event-stream")
    assert [event.type for event in client.responses.create(model="m", input="hi", stream=True)] == ["response.new"]
    unknown = 'data: {"type":"response.new_text.delta","delta":"zorgle"}\n\n'
    upstream.reply = reply(raw=unknown.encode(), content_type="text/event-stream")
    with pytest.raises(UnsupportedPath):
        list(client.responses.create(model="m", input="hi", stream=True))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("where", ["document", "choice", "empty"])
@pytest.mark.parametrize("text", [BAD, "It is sk-abcd1234.", "Fine."])
def test_texts_under_keys_that_nobody_knows(
    client: OpenAI, upstream: Any, reply: Any, streamed: bool, where: str, text: str
) -> None:
    found = {"results": [{"title": "A page", "url": "https://x", "snippet": text}]}
    key = "delta" if streamed else "message"
    said = {"index": 0, key: {"role": "assistant", "content": "Fine."}, "finish_reason": None if streamed else "stop"}
    choices = [{**said, **(found if where == "choice" else {})}]
    head = {"id": "c", "object": f"chat.completion{'.chunk' if streamed else ''}", "created": 1, "model": "m"}
    beside = found if where != "choice" else {}
    documents: list[dict[str, Any]] = [{**head, "choices": choices, **beside}]
    if streamed:
        documents = [{**head, "choices": [], **beside}] if where == "empty" else documents
        documents *= 2
        documents.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    lines = "".join(f"data: {json.dumps(document)}\n\n" for document in documents)
    body = lines if streamed else json.dumps(documents[0])
    upstream.reply = reply(raw=body.encode(), content_type="text/event-stream" if streamed else "application/json")
    raw = client.chat.completions.with_streaming_response
    with raw.create(model="m", messages=HELLO, stream=streamed) as response:
        received = response.read().decode()
    assert "zorgle" not in received
    assert "sk-abcd1234" not in received
    assert (REFUSAL in received) == (text == BAD)
    assert ("snippet" in received) == (text != BAD)


def test_duplicate_ids(client: OpenAI, upstream: Any, reply: Any) -> None:
    message = {"role": "assistant", "content": "Fine."}
    body = {
        "id": "same",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    upstream.reply = reply(raw=json.dumps(body).encode())
    answers = [client.chat.completions.create(model="m", messages=HELLO) for _ in range(2)]
    outcomes = [guardrail.outcome(answer) for answer in answers]
    assert outcomes[0] != outcomes[1]
    assert [outcome.request_id for outcome in outcomes if outcome] == [answer._request_id for answer in answers]


@pytest.mark.parametrize("bad", [False, True])
def test_twenty_megabytes_in_chunks(client: OpenAI, upstream: Any, reply: Any, bad: bool) -> None:
    picture = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "QUJD" * 5_000_000}
    said = {"type": "output_text", "text": BAD if bad else "Here it is.", "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [said]}
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "m",
        "output": [picture, message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    upstream.reply = reply(raw=json.dumps(body).encode(), fault="chunked")
    answer = client.responses.create(model="m", input="Draw a house.")
    assert answer.output_text == (REFUSAL if bad else "Here it is.")
    assert len(answer.output) == (1 if bad else 2)


def test_a_client_that_is_closed_while_it_streams(upstream: Any, guard: Any, reply: Any) -> None:
    upstream.reply = reply(texts=(f"First is fine. {'More of it. ' * 300} {BAD}",), delay=0.005)
    client = guardrail.wrap(OpenAI(api_key="k", base_url=upstream.url, max_retries=0), guard=guard)
    chunks, delivered = stream(client), ""
    for chunk in chunks:
        delivered += text_of([chunk])
        if len(delivered) > 20:
            client.close()
            chunks.close()
            break
    assert delivered.startswith("First is fine.")
    assert client.is_closed()
    assert upstream.hung_up.wait(5)
    with pytest.raises((RuntimeError, openai.APIConnectionError)):
        stream(client)


def test_a_long_answer(client: OpenAI, upstream: Any, reply: Any) -> None:
    text = "All is well here. " * 2_000 + BAD
    upstream.reply = reply(texts=(text,))
    assert client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == REFUSAL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\t ",
        "\x00",
        "\x00 zorgle",
        "\u200fzorgle",
        "x" * 50_000,
        "z\u200borgle",
        "\ud800 zorgle",
        "ｚｏｒｇｌｅ",
    ],
    ids=["empty", "space", "nul", "nul-bad", "rtl", "long", "zero-width", "surrogate", "full-width"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_odd_answers(client: OpenAI, upstream: Any, reply: Any, text: str, streamed: bool) -> None:
    upstream.reply = reply(texts=(text,), chunk=max(4, len(text) // 50))
    if streamed:
        delivered = text_of(stream(client))
    else:
        delivered = client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content
    clean = text in ("", "   \n\t ", "\x00") or text.startswith("xxx")
    assert delivered == (text if clean else REFUSAL)


@pytest.mark.parametrize(
    "content",
    ["", " ", None, [], "\x00", [{"type": "text", "text": ""}], "hello " * 50_000],
    ids=["empty", "space", "none", "no-parts", "nul", "empty-part", "long"],
)
def test_odd_questions_reach_the_model_unchanged(client: OpenAI, upstream: Any, content: Any) -> None:
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
    assert upstream.requests[-1]["messages"] == [{"role": "user", "content": content}]


def test_ten_thousand_messages(client: OpenAI, upstream: Any) -> None:
    messages = [{"role": ("user", "assistant")[n % 2], "content": f"Message {n % 100}"} for n in range(9_999)]
    client.chat.completions.create(model="m", messages=messages)
    assert len(upstream.requests[-1]["messages"]) == 9_999
    answer = client.chat.completions.create(model="m", messages=[*messages[:-1], {"role": "user", "content": BAD}])
    assert answer.choices[0].message.content == REFUSAL


class Broken:
    """A guard whose moderation fails in a way of the test's choosing."""

    def __init__(self, guard: Any, error: Exception, after: int = 0) -> None:
        self.guard, self.error, self.left = guard, error, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guard, name)

    def moderate(self, *args: Any, **kwargs: Any) -> Any:
        if not self.left:
            raise self.error
        self.left -= 1
        return self.guard.moderate(*args, **kwargs)

    async def amoderate(self, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.moderate, *args, **kwargs)


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("error", [AuditUnavailable("the database is away"), RuntimeError("boom")])
def test_when_moderation_fails_nothing_leaves(
    upstream: Any, guard: Any, reply: Any, error: Exception, streamed: bool, after: int
) -> None:
    upstream.reply = reply(texts=("First is fine. Second is fine. Third is fine.",))
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=2) as client:
        guardrail.wrap(client, guard=Broken(guard, error, after))
        delivered = ""
        with (
            pytest.raises(GuardrailError, match="away|boom") if after < 2 or streamed else pytest.MonkeyPatch.context()
        ):
            answer = client.chat.completions.create(model="m", messages=HELLO, stream=streamed)
            for chunk in answer if streamed else ():
                delivered += text_of([chunk])
    assert delivered.strip() == ("First is fine." if streamed and after == 2 else "")
    assert len(upstream.paths) == min(after, 1)


async def test_async_failures_and_cancellation(upstream: Any, guard: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("First is fine. " * 200,), delay=0.01)
    async with AsyncOpenAI(api_key="k", base_url=upstream.url, max_retries=2) as client:
        guardrail.wrap(client, guard=Broken(guard, RuntimeError("boom"), after=2))
        with pytest.raises(ModerationError, match="boom"):
            async for _ in await client.chat.completions.create(model="m", messages=HELLO, stream=True):
                pass
        assert await asyncio.to_thread(upstream.hung_up.wait, 5)
    upstream.hung_up.clear()
    async with AsyncOpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        guardrail.wrap(client, guard=guard)

        async def read() -> None:
            async for _ in await client.chat.completions.create(model="m", messages=HELLO, stream=True):
                pass

        task = asyncio.create_task(read())
        while upstream.sent < 20:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(upstream.hung_up.wait, 5)


async def test_the_event_loop_is_never_blocked(upstream: Any, guard: Any) -> None:
    class Slow(Broken):
        def moderate(self, *args: Any, **kwargs: Any) -> Any:
            time.sleep(0.2)
            return self.guard.moderate(*args, **kwargs)

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with AsyncOpenAI(api_key="k", base_url=upstream.url) as client:
        guardrail.wrap(client, guard=Slow(guard, RuntimeError()))
        system = {"role": "system", "content": f"Be kind {time.time()}"}
        await client.chat.completions.create(model="m", messages=[system, *HELLO])
    ticking.cancel()
    assert ticks >= 5


def test_a_hanging_upstream_has_the_clients_own_timeout(client: OpenAI, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(fault="hang")
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(model="m", messages=HELLO)


def test_unavailable_judging_withholds_and_says_so(
    upstream: Any, make_guard: Any, policy: str, monkeypatch: Any
) -> None:
    guard = make_guard()
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        guardrail.wrap(client, guard=guard)
        client.chat.completions.create(model="m", messages=HELLO)
        judge = guard.assembly().judge

        def fail(*_: Any) -> Any:
            raise RuntimeError("the classifier is gone")

        monkeypatch.setattr(type(judge), "judge", fail)
        answer = client.chat.completions.create(model="m", messages=HELLO)
    outcome = guardrail.outcome(answer)
    assert answer.choices[0].message.content == REFUSAL
    assert outcome is not None
    assert outcome.decisions[0].state is State.BLOCKED_UNAVAILABLE
