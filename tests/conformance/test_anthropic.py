"""Every way to ask an anthropic client for text, sync and async."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import json
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message
from pydantic import BaseModel

import guardrail
from guardrail.clients import unwrap
from guardrail.errors import Blocked, UnsupportedPath
from guardrail.types import Action, Stage, State

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."


def ask(text: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": text}]}


def offered(what: Any, name: str) -> None:
    """Skip where this version of the client has no such call: there is nothing to guard then."""
    if not hasattr(what, name):
        pytest.skip(f"not offered: {type(what).__name__}.{name}")


def dumped(native: Any) -> str:
    """As JSON; old versions warn of block types that they do not know."""
    return str(native.model_dump_json(warnings=False))


class Note(BaseModel):
    text: str


@dataclass
class Seen:
    text: str
    stop: str | None
    native: Any


def of_message(message: Message) -> Seen:
    assert isinstance(message, Message)
    return Seen("".join(block.text for block in message.content if block.type == "text"), message.stop_reason, message)


def of_events(events: list[Any], native: Any) -> Seen:
    types = [event.type for event in events]
    assert types[0] == "message_start"
    assert types[-1] == "message_stop"
    opened = [event.index for event in events if event.type == "content_block_start"]
    closed = [event.index for event in events if event.type == "content_block_stop"]
    assert opened == closed == sorted(opened)
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    stop = next(event.delta.stop_reason for event in events if event.type == "message_delta")
    return Seen("".join(delta.text for delta in deltas if delta.type == "text_delta"), stop, native)


def create(client: Anthropic, text: Any) -> Seen:
    return of_message(client.messages.create(**ask(text)))


def stream(client: Anthropic, text: Any) -> Seen:
    events = client.messages.create(**ask(text), stream=True)
    return of_events(list(events), events)


def helper(client: Anthropic, text: Any) -> Seen:
    with client.messages.stream(**ask(text)) as events:
        delivered = "".join(events.text_stream)
        seen = of_message(events.get_final_message())
    assert seen.text == delivered
    return Seen(seen.text, seen.stop, events)


def raw(client: Anthropic, text: Any) -> Seen:
    response = client.messages.with_raw_response.create(**ask(text))
    assert response.headers["x-guardrail-request-id"]
    return of_message(response.parse())


def streaming_raw(client: Anthropic, text: Any) -> Seen:
    with client.messages.with_streaming_response.create(**ask(text)) as response:
        return of_message(response.parse())


def post(client: Anthropic, text: Any) -> Seen:
    return of_message(client.post("/v1/messages", body=ask(text), cast_to=Message))


def beta(client: Anthropic, text: Any) -> Seen:
    message = client.beta.messages.create(**ask(text))
    return Seen("".join(block.text for block in message.content if block.type == "text"), message.stop_reason, message)


def with_options(client: Anthropic, text: Any) -> Seen:
    return of_message(client.with_options(timeout=20).messages.create(**ask(text)))


async def acreate(client: AsyncAnthropic, text: Any) -> Seen:
    return of_message(await client.messages.create(**ask(text)))


async def astream(client: AsyncAnthropic, text: Any) -> Seen:
    events = await client.messages.create(**ask(text), stream=True)
    return of_events([event async for event in events], events)


async def ahelper(client: AsyncAnthropic, text: Any) -> Seen:
    async with client.messages.stream(**ask(text)) as events:
        delivered = "".join([part async for part in events.text_stream])
        seen = of_message(await events.get_final_message())
    assert seen.text == delivered
    return Seen(seen.text, seen.stop, events)


async def araw(client: AsyncAnthropic, text: Any) -> Seen:
    parsed: Any = (await client.messages.with_raw_response.create(**ask(text))).parse()
    return of_message(await parsed if inspect.isawaitable(parsed) else parsed)  # a coroutine from 0.41 on


async def astreaming_raw(client: AsyncAnthropic, text: Any) -> Seen:
    async with client.messages.with_streaming_response.create(**ask(text)) as response:
        return of_message(await response.parse())


async def abeta(client: AsyncAnthropic, text: Any) -> Seen:
    message = await client.beta.messages.create(**ask(text))
    return Seen("".join(block.text for block in message.content if block.type == "text"), message.stop_reason, message)


async def apost(client: AsyncAnthropic, text: Any) -> Seen:
    return of_message(await client.post("/v1/messages", body=ask(text), cast_to=Message))


async def awith_options(client: AsyncAnthropic, text: Any) -> Seen:
    return of_message(await client.copy(timeout=20).messages.create(**ask(text)))


SYNC: list[Callable[..., Seen]] = [create, stream, helper, raw, streaming_raw, post, beta, with_options]
ASYNC = [acreate, astream, ahelper, araw, astreaming_raw, apost, abeta, awith_options]


def keys(upstream: Any) -> dict[str, Any]:
    return {"api_key": "k", "base_url": upstream.url.removesuffix("/v1"), "max_retries": 0}


@pytest.fixture(autouse=True)
def _no_leftovers() -> None:
    """Clients that earlier tests dropped close their sockets now, not while a descriptor of theirs is used again."""
    gc.collect()


@pytest.fixture(params=[*SYNC, *ASYNC], ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest, upstream: Any, guard: Any) -> Any:
    function = request.param
    if function in SYNC:
        with Anthropic(**keys(upstream)) as client:
            assert guardrail.wrap(client, guard=guard) is client
            yield lambda text: function(client, text)
        return

    def run(text: Any) -> Seen:
        async def call() -> Seen:
            async with AsyncAnthropic(**keys(upstream)) as client:
                return await function(guardrail.wrap(client, guard=guard), text)

        return asyncio.run(call())

    yield run


@pytest.fixture
def client(upstream: Any, guard: Any) -> Any:
    with Anthropic(**keys(upstream)) as client:
        yield guardrail.wrap(client, guard=guard)


def test_an_allowed_answer_is_delivered_as_it_is(way: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("Hello there. All is well, and 3.14 is π. 🙂",), reasoning="I think. So.")
    seen = way("Good morning")
    assert (seen.text, seen.stop) == ("Hello there. All is well, and 3.14 is π. 🙂", "end_turn")
    outcome = guardrail.outcome(seen.native)
    assert outcome is not None
    assert outcome.action is Action.ALLOW


def test_a_withheld_answer_is_replaced_by_the_refusal(way: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=(f"Hello. {BAD} Goodbye.",), reasoning="I think.")
    seen = way("Good morning")
    assert "zorgle" not in seen.text
    assert seen.text.endswith(REFUSAL)
    assert seen.stop == "refusal"
    assert guardrail.outcome(seen.native).blocked  # type: ignore[union-attr]


def test_a_repaired_answer_keeps_the_rest(way: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=(f"Hello. The key is {SECRET} for you. Goodbye.",))
    seen = way("Good morning")
    assert SECRET not in seen.text
    assert seen.text.startswith("Hello. The key is ")
    assert seen.text.endswith("Goodbye. [edited]")
    assert seen.stop == "end_turn"


def test_questions(way: Any, upstream: Any) -> None:
    seen = way([{"type": "text", "text": "Hello."}, {"type": "text", "text": BAD}])
    assert (seen.text, seen.stop, upstream.paths) == (REFUSAL, "refusal", [])
    assert way(f"My key is {SECRET}.").stop == "end_turn"
    assert SECRET not in upstream.seen


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_use(client: Any, upstream: Any, reply: Any, streamed: bool) -> None:
    def call() -> Any:
        if not streamed:
            return client.messages.create(**ask("hi"))
        with client.messages.stream(**ask("hi")) as events:
            return events.get_final_message()

    upstream.reply = reply(arguments='{"to": "Ann", "n": [1, true]}', reasoning="Well.")
    message = call()
    assert [block.type for block in message.content] == ["thinking", "tool_use"]
    assert message.content[1].input == {"to": "Ann", "n": [1, True]}
    assert message.stop_reason == "tool_use"
    upstream.reply = reply(arguments=json.dumps({"text": f"It is {SECRET}."}))
    assert SECRET not in dumped(call())
    assert call().content[0].type == "tool_use"
    upstream.reply = reply(arguments=json.dumps({"text": BAD}), reasoning="Well.")
    message = call()
    assert "zorgle" not in dumped(message)
    assert message.content[-1].text == REFUSAL
    assert message.stop_reason == "refusal"


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_is_judged(client: Any, upstream: Any, reply: Any, streamed: bool) -> None:
    upstream.reply = reply(reasoning=f"Hm. {BAD} Yes.")
    answer = client.messages.create(**ask("hi"), stream=streamed)
    said = "".join(map(dumped, answer)) if streamed else dumped(answer)
    assert "zorgle" not in said
    assert REFUSAL in said


@pytest.mark.parametrize(
    ("block", "stage"),
    [
        ({"type": "tool_result", "tool_use_id": "t", "content": BAD}, Stage.TOOL_RESULT),
        ({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": BAD}]}, Stage.TOOL_RESULT),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": BAD}}, Stage.RETRIEVED),
        ({"type": "document", "title": BAD, "source": {"type": "url", "url": "https://x"}}, Stage.RETRIEVED),
        (
            {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": BAD}]},
            Stage.RETRIEVED,
        ),
        ({"type": "text", "text": BAD, "guardrail_stage": "retrieved"}, Stage.RETRIEVED),
    ],
)
def test_what_is_brought_in_is_judged_for_what_it_is(client: Any, upstream: Any, block: Any, stage: Stage) -> None:
    message = client.messages.create(**ask([block, {"type": "text", "text": "What does it say?"}]))
    assert message.content[0].text == REFUSAL
    assert upstream.paths == []
    blocked = [decision for decision in guardrail.outcome(message).decisions if decision.text is None]  # type: ignore[union-attr]
    assert [decision.stage for decision in blocked] == [stage]


def test_marks_do_not_reach_the_model(client: Any, upstream: Any) -> None:
    client.messages.create(**ask([{"type": "text", "text": "A page.", "guardrail_stage": "retrieved"}]))
    assert "guardrail_stage" not in upstream.seen
    with pytest.raises(UnsupportedPath, match="must be one of"):
        client.messages.create(**ask([{"type": "text", "text": "A page.", "guardrail_stage": "nowhere"}]))


def test_images_and_files_are_said_to_be_unscanned(client: Any) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    message = client.messages.create(**ask([image, pdf, {"type": "text", "text": "What is this?"}]))
    states = [decision.state for decision in guardrail.outcome(message).decisions]  # type: ignore[union-attr]
    assert states.count(State.NOT_SCANNED) == 2


def test_the_system_prompt_is_judged_and_never_altered(client: Any, upstream: Any) -> None:
    system = f"Be kind. The key is {SECRET}."
    client.messages.create(**ask("Good morning"), system=system)
    assert upstream.requests[-1]["system"] == system
    answer = client.messages.create(**ask("Good morning"), system=BAD)
    assert answer.content[0].text == REFUSAL
    assert len(upstream.requests) == 1


def test_other_paths(client: Any, upstream: Any) -> None:
    messages = client.messages if hasattr(client.messages, "count_tokens") else client.beta.messages
    assert messages.count_tokens(model="m", messages=[{"role": "user", "content": BAD}]).input_tokens == 3
    request = {"custom_id": "a", "params": ask(BAD)}
    with pytest.raises(UnsupportedPath):
        getattr(client.messages, "batches", client.beta.messages.batches).create(requests=[request])
    with pytest.raises(UnsupportedPath):
        client.messages.create(**ask([{"type": "hologram", "words": BAD}]))
    assert len(upstream.paths) == 1


def test_middleware_sees_moderated_answers(upstream: Any, guard: Any, reply: Any) -> None:
    if "middleware" not in inspect.signature(Anthropic.__init__).parameters:
        pytest.skip("not offered: middleware")
    upstream.reply = reply(texts=(BAD,))
    seen = []

    def watch(request: Any, call_next: Any) -> Any:
        response = call_next(request)
        seen.append(response.http_response.text)
        return response

    with Anthropic(**keys(upstream), middleware=[watch]) as client:
        guardrail.wrap(client, guard=guard)
        assert create(client, "hi").text == REFUSAL
    assert len(seen) == 1
    assert "zorgle" not in seen[0]


def test_retries_are_one_call(upstream: Any, guard: Any, reply: Any) -> None:
    upstream.queue = [reply(status=529, headers={"retry-after-ms": "1"})]
    with Anthropic(**{**keys(upstream), "max_retries": 2}) as client:
        seen = create(guardrail.wrap(client, guard=guard), "Good morning")
    assert len(upstream.paths) == 2
    assert len(guardrail.outcome(seen.native).decisions) == 2  # type: ignore[union-attr]


def test_errors_blocks_and_unwrapping(upstream: Any, make_guard: Any, reply: Any) -> None:
    with Anthropic(**{**keys(upstream), "max_retries": 2}) as client:
        guardrail.wrap(client, guard=make_guard(on_block="raise"))
        with pytest.raises(Blocked):
            create(client, BAD)
        assert upstream.paths == []
        upstream.reply = reply(texts=(BAD,))
        with pytest.raises(Blocked):
            stream(client, "hi")
        unwrap(client)
        assert create(client, "hi").text == BAD
        upstream.reply = reply(status=401)
        with pytest.raises(anthropic.AuthenticationError):
            create(client, "hi")


class TestPlatforms:
    """Vertex and Bedrock send the same documents to paths of their own."""

    def test_vertex(self, upstream: Any, guard: Any, reply: Any) -> None:
        from anthropic import AnthropicVertex

        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        options = {"region": "eu", "project_id": "p", "access_token": "t", "base_url": upstream.url, "max_retries": 0}
        with AnthropicVertex(**options) as client:
            guardrail.wrap(client, guard=guard)
            assert client.messages.create(**ask("hi")).content[0].text == REFUSAL
            with client.messages.stream(**ask("hi")) as events:
                assert "".join(events.text_stream) == f"Hello. \n\n{REFUSAL}"
        assert [path.rpartition(":")[2] for path in upstream.paths] == ["rawPredict", "streamRawPredict"]

    def test_bedrock_signs_what_was_altered(self, upstream: Any, guard: Any) -> None:
        from anthropic import AnthropicBedrock

        options = {"aws_region": "eu-west-1", "aws_access_key": "a", "aws_secret_key": "b", "max_retries": 0}
        with AnthropicBedrock(**options, base_url=upstream.url) as client:
            client.messages.create(**ask("My key is safe."))
            guardrail.wrap(client, guard=guard).messages.create(**ask(f"My key is {SECRET}."))
        assert SECRET not in upstream.seen
        signatures = [headers["authorization"].rpartition("=")[2] for headers in upstream.headers]
        assert len(set(signatures)) == 2
        assert [len(signature) for signature in signatures] == [64, 64]

    def test_bedrock(self, upstream: Any, guard: Any, reply: Any) -> None:
        from anthropic import AnthropicBedrock

        if "api_key" not in inspect.signature(AnthropicBedrock.__init__).parameters:
            pytest.skip("not offered: AnthropicBedrock(api_key=...)")
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        options = {"aws_region": "eu-west-1", "api_key": "k", "base_url": upstream.url, "max_retries": 0}
        with AnthropicBedrock(**options) as client:
            guardrail.wrap(client, guard=guard)
            assert client.messages.create(**ask("hi")).content[0].text == REFUSAL
            with pytest.raises(UnsupportedPath, match="Bedrock|not a call"):
                client.messages.create(**ask("hi"), stream=True)
        assert upstream.paths == ["/v1/model/m/invoke"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_structured_output(upstream: Any, guard: Any, reply: Any, asynchronous: bool) -> None:
    def call() -> Any:
        if not asynchronous:
            with Anthropic(**keys(upstream)) as client:
                offered(client.messages, "parse")
                return guardrail.wrap(client, guard=guard).messages.parse(**ask("hi"), output_format=Note)

        async def acall() -> Any:
            async with AsyncAnthropic(**keys(upstream)) as client:
                offered(client.messages, "parse")
                return await guardrail.wrap(client, guard=guard).messages.parse(**ask("hi"), output_format=Note)

        return asyncio.run(acall())

    upstream.reply = reply(texts=('{"text": "All is well."}',))
    assert call().parsed_output.text == "All is well."
    upstream.reply = reply(texts=(f'{{"text": "The key is {SECRET} here."}}',))
    repaired = call().parsed_output.text
    assert SECRET not in repaired
    assert repaired.startswith("The key is ")
    assert "[edited]" not in repaired


class TestTheClientItself:
    def test_it_stays_what_it_was(self, client: Any, guard: Any) -> None:
        assert type(client) is Anthropic
        assert guardrail.wrap(client) is client
        assert isinstance(client.with_options(timeout=1), Anthropic)
        assert "guardrail" not in repr(client)

    def test_messages_survive_copying(self, client: Any) -> None:
        message = client.messages.create(**ask("hi"))
        expected = guardrail.outcome(message)
        assert expected is not None
        assert guardrail.outcome(copy.deepcopy(message)) == expected
        assert guardrail.outcome(pickle.loads(pickle.dumps(message))) == expected
        assert guardrail.outcome(message.model_dump()) == expected

    def test_many_threads(self, client: Any, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        found: list[tuple[str, str]] = []

        def call(number: int) -> None:
            message = client.messages.create(**ask(f"Question {number}"))
            outcome = guardrail.outcome(message)
            assert outcome is not None
            found.append((message.content[0].text, outcome.decisions[0].source))

        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted((REFUSAL, f"Question {number}") for number in range(8))

    def test_an_early_end_closes_the_upstream(self, client: Any, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=("More of it. " * 400,), delay=0.005)
        with client.messages.stream(**ask("hi")) as events:
            for text in events.text_stream:
                if text:
                    break
        assert upstream.hung_up.wait(5)
