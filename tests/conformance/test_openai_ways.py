"""Every way to ask an openai client for text, sync and async: allowed, withheld, repaired; in and out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from pydantic import BaseModel

import guardrail
from guardrail.types import Action, State

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."


class Note(BaseModel):
    text: str


def offered(what: Any, name: str) -> None:
    """Skip where this version of the client has no such call: there is nothing to guard then."""
    if not hasattr(what, name):
        pytest.skip(f"not offered: {getattr(what, '__name__', type(what).__name__)}.{name}")


@dataclass
class Seen:
    """What the caller of a way got."""

    text: str
    finish: str | None
    native: Any  # what `guardrail.outcome` is asked about
    kind: type | tuple[type, ...]  # what the native object must be


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def say(text: str) -> dict[str, Any]:
    return {"model": "m", "input": text}


def of_chat(response: Any) -> Seen:
    message = response.choices[0].message
    return Seen(message.content or message.refusal or "", response.choices[0].finish_reason, response, ChatCompletion)


def of_chunks(chunks: list[Any], native: Any) -> Seen:
    choices = [choice for chunk in chunks for choice in chunk.choices]
    text = "".join(choice.delta.content or choice.delta.refusal or "" for choice in choices)
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    return Seen(
        text, choices[-1].finish_reason, native, (openai.Stream, openai.AsyncStream, httpx.Response, httpx2.Response)
    )


def of_response(response: Any) -> Seen:
    details = response.incomplete_details
    return Seen(response.output_text or refusal_of(response), details.reason if details else "stop", response, Response)


def refusal_of(response: Any) -> str:
    return "".join(getattr(part, "refusal", "") for item in response.output for part in item.content)


def of_response_events(events: list[Any], native: Any) -> Seen:
    types = [event.type for event in events]
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types[-1] == "response.completed"
    numbers = [event.sequence_number for event in events if hasattr(event, "sequence_number")]  # not in all of 1.x
    assert numbers == sorted(set(numbers))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert final.output_text == text
    done = [event.text for event in events if event.type == "response.output_text.done"]
    assert "".join(done) == text
    details = final.incomplete_details
    return Seen(text, details.reason if details else "stop", native, object)


def of_legacy(response: Any) -> Seen:
    return Seen(response.choices[0].text, response.choices[0].finish_reason, response, openai.types.Completion)


def of_legacy_chunks(chunks: list[Any], native: Any) -> Seen:
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return Seen(
        "".join(choice.text for choice in choices),
        choices[-1].finish_reason,
        native,
        (openai.Stream, openai.AsyncStream),
    )


# -- sync ------------------------------------------------------------------------------------------------------------


def create(client: OpenAI, text: str) -> Seen:
    return of_chat(client.chat.completions.create(**ask(text)))


def stream(client: OpenAI, text: str) -> Seen:
    chunks = client.chat.completions.create(**ask(text), stream=True)
    return of_chunks(list(chunks), chunks)


def stream_in_with(client: OpenAI, text: str) -> Seen:
    with client.chat.completions.create(**ask(text), stream=True) as chunks:
        assert chunks.response.status_code == 200
        return of_chunks(list(chunks), chunks)


def stream_helper(client: OpenAI, text: str) -> Seen:
    offered(client.chat.completions, "stream")
    with client.chat.completions.stream(**ask(text)) as events:
        deltas = "".join(event.delta for event in events if event.type == "content.delta")
        final = events.current_completion_snapshot
        if final.choices[0].finish_reason == "content_filter":  # the client's own rule
            with pytest.raises(openai.ContentFilterFinishReasonError):
                events.get_final_completion()
    seen = of_chat(final)
    assert seen.text == deltas
    return Seen(seen.text, seen.finish, events, object)


def raw(client: OpenAI, text: str) -> Seen:
    response = client.chat.completions.with_raw_response.create(**ask(text))
    assert response.headers["x-guardrail-request-id"]
    assert json.loads(response.text)["choices"]
    return of_chat(response.parse())


def streaming_raw(client: OpenAI, text: str) -> Seen:
    with client.chat.completions.with_streaming_response.create(**ask(text)) as response:
        return of_chat(response.parse())


def streaming_raw_stream(client: OpenAI, text: str) -> Seen:
    with client.chat.completions.with_streaming_response.create(**ask(text), stream=True) as response:
        chunks = response.parse()
        return of_chunks(list(chunks), chunks)


def beta_stream_helper(client: OpenAI, text: str) -> Seen:
    offered(client.beta.chat.completions, "stream")
    with client.beta.chat.completions.stream(**ask(text)) as events:
        deltas = "".join(event.delta for event in events if event.type == "content.delta")
        final = events.current_completion_snapshot
    assert of_chat(final).text == deltas
    return Seen(deltas, final.choices[0].finish_reason, events, object)


def client_streaming_lines(client: OpenAI, text: str) -> Seen:
    wrapped = client.with_streaming_response
    with wrapped.chat.completions.create(**ask(text), stream=True) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
    return of_chunks([ChatCompletionChunk.model_validate_json(line) for line in lines], response.http_response)


def post(client: OpenAI, text: str) -> Seen:
    return of_chat(client.post("/chat/completions", body=ask(text), cast_to=ChatCompletion))


def beta_create(client: OpenAI, text: str) -> Seen:
    offered(client.beta.chat.completions, "create")
    return of_chat(client.beta.chat.completions.create(**ask(text)))


def with_options(client: OpenAI, text: str) -> Seen:
    return of_chat(client.with_options(timeout=20).chat.completions.create(**ask(text)))


def copied(client: OpenAI, text: str) -> Seen:
    return of_chat(client.copy(max_retries=1).with_options(max_retries=0).chat.completions.create(**ask(text)))


def legacy(client: OpenAI, text: str) -> Seen:
    return of_legacy(client.completions.create(model="m", prompt=text))


def legacy_stream(client: OpenAI, text: str) -> Seen:
    chunks = client.completions.create(model="m", prompt=text, stream=True)
    return of_legacy_chunks(list(chunks), chunks)


def respond(client: OpenAI, text: str) -> Seen:
    return of_response(client.responses.create(**say(text)))


def respond_stream(client: OpenAI, text: str) -> Seen:
    events = client.responses.create(**say(text), stream=True)
    return of_response_events(list(events), events)


def respond_helper(client: OpenAI, text: str) -> Seen:
    with client.responses.stream(**say(text)) as events:
        seen = of_response_events(list(events), events)
        assert events.get_final_response().output_text == seen.text
    return seen


def respond_raw(client: OpenAI, text: str) -> Seen:
    return of_response(client.responses.with_raw_response.create(**say(text)).parse())


SYNC: list[Callable[..., Seen]] = [
    create,
    stream,
    stream_in_with,
    stream_helper,
    beta_stream_helper,
    raw,
    streaming_raw,
    streaming_raw_stream,
    client_streaming_lines,
    post,
    beta_create,
    with_options,
    copied,
    legacy,
    legacy_stream,
    respond,
    respond_stream,
    respond_helper,
    respond_raw,
]

# -- async -----------------------------------------------------------------------------------------------------------


async def acreate(client: AsyncOpenAI, text: str) -> Seen:
    return of_chat(await client.chat.completions.create(**ask(text)))


async def astream(client: AsyncOpenAI, text: str) -> Seen:
    chunks = await client.chat.completions.create(**ask(text), stream=True)
    return of_chunks([chunk async for chunk in chunks], chunks)


async def astream_in_with(client: AsyncOpenAI, text: str) -> Seen:
    async with await client.chat.completions.create(**ask(text), stream=True) as chunks:
        return of_chunks([chunk async for chunk in chunks], chunks)


async def astream_helper(client: AsyncOpenAI, text: str) -> Seen:
    offered(client.chat.completions, "stream")
    async with client.chat.completions.stream(**ask(text)) as events:
        deltas = "".join([event.delta async for event in events if event.type == "content.delta"])
        final = events.current_completion_snapshot
        if final.choices[0].finish_reason == "content_filter":
            with pytest.raises(openai.ContentFilterFinishReasonError):
                await events.get_final_completion()
    seen = of_chat(final)
    assert seen.text == deltas
    return Seen(seen.text, seen.finish, events, object)


async def araw(client: AsyncOpenAI, text: str) -> Seen:
    response = await client.chat.completions.with_raw_response.create(**ask(text))
    assert response.headers["x-guardrail-request-id"]
    return of_chat(response.parse())


async def astreaming_raw(client: AsyncOpenAI, text: str) -> Seen:
    async with client.chat.completions.with_streaming_response.create(**ask(text)) as response:
        return of_chat(await response.parse())


async def aclient_streaming_lines(client: AsyncOpenAI, text: str) -> Seen:
    wrapped = client.with_streaming_response
    async with wrapped.chat.completions.create(**ask(text), stream=True) as response:
        lines = [line.removeprefix("data: ") async for line in response.iter_lines() if line.startswith("data: {")]
    return of_chunks([ChatCompletionChunk.model_validate_json(line) for line in lines], response.http_response)


async def apost(client: AsyncOpenAI, text: str) -> Seen:
    return of_chat(await client.post("/chat/completions", body=ask(text), cast_to=ChatCompletion))


async def awith_options(client: AsyncOpenAI, text: str) -> Seen:
    return of_chat(await client.with_options(timeout=20).chat.completions.create(**ask(text)))


async def alegacy(client: AsyncOpenAI, text: str) -> Seen:
    return of_legacy(await client.completions.create(model="m", prompt=text))


async def alegacy_stream(client: AsyncOpenAI, text: str) -> Seen:
    chunks = await client.completions.create(model="m", prompt=text, stream=True)
    return of_legacy_chunks([chunk async for chunk in chunks], chunks)


async def astreaming_raw_stream(client: AsyncOpenAI, text: str) -> Seen:
    async with client.chat.completions.with_streaming_response.create(**ask(text), stream=True) as response:
        chunks = await response.parse()
        return of_chunks([chunk async for chunk in chunks], chunks)


async def acopied(client: AsyncOpenAI, text: str) -> Seen:
    return of_chat(await client.copy(max_retries=1).with_options(max_retries=0).chat.completions.create(**ask(text)))


async def arespond_raw(client: AsyncOpenAI, text: str) -> Seen:
    return of_response((await client.responses.with_raw_response.create(**say(text))).parse())


async def arespond(client: AsyncOpenAI, text: str) -> Seen:
    return of_response(await client.responses.create(**say(text)))


async def arespond_stream(client: AsyncOpenAI, text: str) -> Seen:
    events = await client.responses.create(**say(text), stream=True)
    return of_response_events([event async for event in events], events)


async def arespond_helper(client: AsyncOpenAI, text: str) -> Seen:
    async with client.responses.stream(**say(text)) as events:
        seen = of_response_events([event async for event in events], events)
        assert (await events.get_final_response()).output_text == seen.text
    return seen


ASYNC = [
    acreate,
    astream,
    astream_in_with,
    astream_helper,
    araw,
    astreaming_raw,
    astreaming_raw_stream,
    aclient_streaming_lines,
    apost,
    awith_options,
    acopied,
    alegacy,
    alegacy_stream,
    arespond,
    arespond_stream,
    arespond_helper,
    arespond_raw,
]


@pytest.fixture(params=[*SYNC, *ASYNC], ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest, upstream: Any, guard: Any) -> Any:
    """One way to call, on a wrapped client of the right kind: a function of the user's words."""
    function = request.param
    if function in SYNC:
        with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
            wrapped = guardrail.wrap(client, guard=guard)
            assert wrapped is client
            yield lambda text: function(client, text)
        return

    def run(text: str) -> Seen:
        async def call() -> Seen:
            async with AsyncOpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
                return await function(guardrail.wrap(client, guard=guard), text)

        return asyncio.run(call())

    yield run


def test_an_allowed_answer_is_delivered_as_it_is(way: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("Hello there. All is well, and 3.14 is π. 🙂",))
    seen = way("Good morning")
    assert seen.text == "Hello there. All is well, and 3.14 is π. 🙂"
    assert seen.finish == "stop"
    assert isinstance(seen.native, seen.kind)
    outcome = guardrail.outcome(seen.native)
    assert outcome is not None
    assert outcome.action is Action.ALLOW
    assert {decision.stage.value for decision in outcome.decisions} == {"input", "output"}


def test_a_withheld_answer_is_replaced_by_the_refusal(way: Any, upstream: Any, reply: Any, guard: Any) -> None:
    upstream.reply = reply(texts=(f"Hello. {BAD} Goodbye.",))
    seen = way("Good morning")
    assert "zorgle" not in seen.text
    assert seen.text.endswith(REFUSAL)
    assert seen.finish == "content_filter"
    outcome = guardrail.outcome(seen.native)
    assert outcome is not None
    assert outcome.blocked
    stored = guard.audit.get(outcome.decisions[-1].id)
    assert stored.state == State.BLOCKED


def test_a_repaired_answer_keeps_the_rest(way: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=(f"Hello. The key is {SECRET} for you. Goodbye.",))
    seen = way("Good morning")
    assert SECRET not in seen.text
    assert seen.text.startswith("Hello. The key is ")
    assert seen.text.endswith("Goodbye. [edited]")
    assert seen.finish == "stop"
    outcome = guardrail.outcome(seen.native)
    assert outcome is not None
    assert outcome.action is Action.REDACT


def test_a_withheld_question_never_reaches_the_model(way: Any, upstream: Any) -> None:
    seen = way(f"Hello. {BAD}")
    assert upstream.paths == []
    assert seen.text == REFUSAL
    assert seen.finish == "content_filter"
    outcome = guardrail.outcome(seen.native)
    assert outcome is not None
    assert outcome.action is Action.BLOCK


def test_a_repaired_question_reaches_the_model_repaired(way: Any, upstream: Any) -> None:
    seen = way(f"My key is {SECRET}, keep it.")
    assert SECRET not in upstream.seen
    assert "My key is " in upstream.seen
    assert seen.finish == "stop"


def test_an_escalated_answer_names_its_ticket(way: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("Let us quibble.",))
    seen = way("Good morning")
    assert "quibble" not in seen.text
    outcome = guardrail.outcome(seen.native)
    assert outcome is not None
    ticket = next(decision for decision in outcome.decisions if decision.state is State.ESCALATED)
    assert ticket.id in seen.text


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
class TestStructured:
    """`parse`: the answer is JSON for a class."""

    def call(self, upstream: Any, guard: Any, asynchronous: bool, api: str) -> Any:
        keys = {"api_key": "k", "base_url": upstream.url, "max_retries": 0}
        if api == "chat":
            offered(openai.resources.chat.Completions, "parse")
        chosen: Callable[[Any], Any] = {
            "chat": lambda client: client.chat.completions.parse(**ask("hi"), response_format=Note),
            "beta": lambda client: client.beta.chat.completions.parse(**ask("hi"), response_format=Note),
            "responses": lambda client: client.responses.parse(**say("hi"), text_format=Note),
        }[api]
        if not asynchronous:
            with OpenAI(**keys) as client:
                return chosen(guardrail.wrap(client, guard=guard))

        async def acall() -> Any:
            async with AsyncOpenAI(**keys) as client:
                return await chosen(guardrail.wrap(client, guard=guard))

        return asyncio.run(acall())

    @staticmethod
    def parsed(result: Any) -> Any:
        return result.output_parsed if hasattr(result, "output_parsed") else result.choices[0].message.parsed

    @pytest.mark.parametrize("api", ["chat", "beta", "responses"])
    def test_allowed_and_repaired(self, upstream: Any, guard: Any, reply: Any, asynchronous: bool, api: str) -> None:
        upstream.reply = reply(texts=('{"text": "All is well."}',))
        assert self.parsed(self.call(upstream, guard, asynchronous, api)).text == "All is well."
        upstream.reply = reply(texts=(f'{{"text": "The key is {SECRET} here."}}',))
        result = self.call(upstream, guard, asynchronous, api)
        assert SECRET not in self.parsed(result).text
        assert self.parsed(result).text.startswith("The key is ")
        assert "[edited]" not in self.parsed(result).text
        assert guardrail.outcome(result).action is Action.REDACT  # type: ignore[union-attr]

    def test_withheld_chat_is_the_clients_own_error(
        self, upstream: Any, guard: Any, reply: Any, asynchronous: bool
    ) -> None:
        upstream.reply = reply(texts=(f'{{"text": "{BAD}"}}',))
        with pytest.raises(openai.ContentFilterFinishReasonError):
            self.call(upstream, guard, asynchronous, "beta")

    def test_withheld_response_is_a_refusal(self, upstream: Any, guard: Any, reply: Any, asynchronous: bool) -> None:
        upstream.reply = reply(texts=(f'{{"text": "{BAD}"}}',))
        result = self.call(upstream, guard, asynchronous, "responses")
        assert result.output_parsed is None
        assert refusal_of(result) == REFUSAL
        assert result.incomplete_details.reason == "content_filter"
