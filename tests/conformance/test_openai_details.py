"""What an openai client can ask for besides plain text, and what it stays while it is guarded."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import sys
import threading
from collections.abc import Iterator
from operator import attrgetter
from types import ModuleType
from typing import Any

import httpx
import httpx2
import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI

import guardrail
from guardrail.clients import unwrap
from guardrail.errors import Blocked, ConfigurationError, UnsupportedPath
from guardrail.types import Action, Stage, State

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."
HELLO = [{"role": "user", "content": "Good morning"}]
RESPONSE = """{"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": [],
"parallel_tool_calls": true, "tool_choice": "auto", "tools": []}"""
ACCEPTED = [httpx] if int(openai.__version__.partition(".")[0]) < 2 else [httpx, httpx2]  # as `http_client`


def offered(what: Any, *names: str) -> None:
    """Skip where this version of the client has no such call: there is nothing to guard then."""
    for name in names:
        if not hasattr(what, name):
            pytest.skip(f"not offered: {type(what).__name__}.{name}")
        what = getattr(what, name)


@pytest.fixture
def client(upstream: Any, guard: Any) -> Iterator[OpenAI]:
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        yield guardrail.wrap(client, guard=guard)


def create(client: OpenAI, messages: Any = HELLO, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=messages, **options)


def tool_turn(arguments: str) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


class TestChoices:
    def test_each_choice_is_judged_by_itself(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=("The first is fine.", f"The second: {BAD}"))
        first, second = create(client, n=2).choices
        assert (first.message.content, first.finish_reason) == ("The first is fine.", "stop")
        assert (second.message.content, second.finish_reason) == (REFUSAL, "content_filter")

    def test_every_choice_is_settled_even_after_one_was_withheld(
        self, client: OpenAI, upstream: Any, reply: Any
    ) -> None:
        upstream.reply = reply(texts=(BAD, f"It is {SECRET}.", BAD, "Fine."))
        first, second, third, fourth = create(client, n=4).choices
        assert first.message.content == third.message.content == REFUSAL
        assert SECRET not in second.message.content
        assert fourth.message.content == "Fine."

    def test_in_a_stream_the_others_go_on(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(f"Oh. {BAD} More of it. And more.", "The second is fine. All of it. Really."))
        texts, finish = {0: "", 1: ""}, {}
        for chunk in create(client, n=2, stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                assert choice.index not in finish
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    finish[choice.index] = choice.finish_reason
        assert texts == {0: f"Oh. \n\n{REFUSAL}", 1: "The second is fine. All of it. Really."}
        assert finish == {0: "content_filter", 1: "stop"}
        assert chunk.usage is not None
        assert chunk.usage.total_tokens == 18

    def test_log_probabilities_go_when_the_text_changed(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=("All is well.",), logprobs=True)
        assert create(client, logprobs=True).choices[0].logprobs is not None
        upstream.reply = reply(texts=(f"It is {SECRET}.",), logprobs=True)
        answer = create(client, logprobs=True)
        assert answer.choices[0].logprobs is None
        assert SECRET not in answer.model_dump_json()

    def test_streamed_log_probabilities_spell_only_what_was_delivered(
        self, client: OpenAI, upstream: Any, reply: Any
    ) -> None:
        upstream.reply = reply(texts=("All is well. It is fine 🙂.",), logprobs=True)
        chunks = [chunk.choices[0] for chunk in create(client, logprobs=True, stream=True)]
        kept = [choice.logprobs for choice in chunks if choice.logprobs]
        assert len(kept) > 4
        upstream.reply = reply(texts=(f"Well. It is {SECRET}. {BAD}",), logprobs=True)
        dumped = "".join(chunk.model_dump_json() for chunk in create(client, logprobs=True, stream=True))
        assert "zor" not in dumped
        assert "sk-" not in dumped

    def test_usage_is_kept(self, client: OpenAI, upstream: Any) -> None:
        assert create(client).usage.total_tokens == 18
        *_, last = create(client, stream=True, stream_options={"include_usage": True})
        assert last.choices == []
        assert last.usage.total_tokens == 18


class TestToolCalls:
    @pytest.mark.parametrize("stream", [False, True])
    def test_clean_arguments_pass(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        arguments = '{"to": "Ann", "text": "All is well.", "times": 2}'
        upstream.reply = reply(arguments=arguments)
        assert tool_arguments(client, stream) == (arguments, "tool_calls")

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        "arguments",
        [
            json.dumps({"to": "Ann", "text": BAD}),
            json.dumps({"deep": [{"er": ["x", "zorgle"]}]}),
            json.dumps({"zorgle": 1}),
            '{"text": "zorgle", "cut',
            '{"text": "\\u007aorgle"}',
        ],
    )
    def test_bad_arguments_are_withheld(
        self, client: OpenAI, upstream: Any, reply: Any, stream: bool, arguments: str
    ) -> None:
        upstream.reply = reply(arguments=arguments)
        assert tool_arguments(client, stream) == (None, "content_filter")

    @pytest.mark.parametrize("stream", [False, True])
    def test_arguments_are_redacted_and_stay_json(
        self, client: OpenAI, upstream: Any, reply: Any, stream: bool
    ) -> None:
        upstream.reply = reply(arguments=json.dumps({"key": f"It is {SECRET}.", "n": [1, None, True]}))
        arguments, finish = tool_arguments(client, stream)
        assert finish == "tool_calls"
        assert arguments is not None
        parsed = json.loads(arguments)
        assert SECRET not in arguments
        assert parsed["key"].startswith("It is ")
        assert parsed["n"] == [1, None, True]

    def test_they_are_judged_as_tool_calls(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(arguments='{"text": "fine"}')
        outcome = guardrail.outcome(create(client))
        assert outcome is not None
        assert {decision.stage for decision in outcome.decisions} == {Stage.INPUT, Stage.TOOL_CALL}

    def test_a_bad_tool_result_never_reaches_the_model(self, client: OpenAI, upstream: Any) -> None:
        messages = [*HELLO, tool_turn("{}"), {"role": "tool", "tool_call_id": "c", "content": BAD}]
        answer = create(client, messages)
        assert answer.choices[0].message.content == REFUSAL
        assert upstream.paths == []
        outcome = guardrail.outcome(answer)
        assert outcome is not None
        assert outcome.decisions[-1].stage is Stage.TOOL_RESULT


def tool_arguments(client: OpenAI, stream: bool) -> tuple[str | None, str | None]:
    """(arguments of the tool call, None if there is none; finish reason)."""
    if not stream:
        choice = create(client).choices[0]
        calls = choice.message.tool_calls
        assert (choice.message.content == REFUSAL) == (not calls)
        return (calls[0].function.arguments if calls else None), choice.finish_reason
    arguments, content, finish = None, "", None
    for chunk in create(client, stream=True):
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            arguments = (arguments or "") + (call.function.arguments or "")
        finish = choice.finish_reason or finish
    assert (content == REFUSAL) == (arguments is None)
    return arguments, finish


class TestOtherTexts:
    @pytest.mark.parametrize("stream", [False, True])
    def test_reasoning_is_judged(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        upstream.reply = reply(reasoning=f"Hm. {BAD} Yes.")
        answer = create(client, stream=stream)
        dumped = "".join(chunk.model_dump_json() for chunk in answer) if stream else answer.model_dump_json()
        assert "zorgle" not in dumped
        assert REFUSAL in dumped

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_models_own_refusal_is_judged(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        upstream.reply = reply(refusal=f"No. {BAD}")
        answer = create(client, stream=stream)
        dumped = "".join(chunk.model_dump_json() for chunk in answer) if stream else answer.model_dump_json()
        assert "zorgle" not in dumped

    def test_a_reasoning_summary_of_responses_is_judged(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(reasoning=f"Hm. {BAD} Yes.")
        dumped = "".join(
            event.model_dump_json() for event in client.responses.create(model="m", input="hi", stream=True)
        )
        assert "zorgle" not in dumped
        upstream.reply = reply(reasoning="Hm. Yes.")
        *_, last = client.responses.create(model="m", input="hi", stream=True)
        assert last.response.output[0].summary[0].text == "Hm. Yes."

    @pytest.mark.parametrize("stream", [False, True])
    def test_function_calls_of_responses(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        for arguments, delivered in (('{"a": "fine"}', True), (json.dumps({"a": BAD}), False)):
            upstream.reply = reply(arguments=arguments)
            answer = client.responses.create(model="m", input="hi", stream=stream)
            if stream:
                events = list(answer)
                assert ("response.function_call_arguments.done" in [event.type for event in events]) == delivered
                answer = events[-1].response
            assert [item.type for item in answer.output] == (["function_call"] if delivered else ["message"])
            assert "zorgle" not in answer.model_dump_json()

    def test_a_schema_s_fixed_values_are_never_altered(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        schema = {"type": "object", "properties": {"kind": {"enum": [SECRET, "other"]}, "text": {"type": "string"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        upstream.reply = reply(texts=(json.dumps({"kind": "other", "text": f"It is {SECRET}."}),))
        answer = json.loads(create(client, response_format=wanted).choices[0].message.content)
        assert answer["kind"] == "other"
        assert SECRET not in answer["text"]

    @pytest.mark.parametrize("stream", [False, True])
    def test_json_stays_json(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        upstream.reply = reply(texts=(json.dumps({"items": [f"A {SECRET}.", "b"], "n": 1}),))
        answer = create(client, response_format={"type": "json_object"}, stream=stream)
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            if stream
            else answer.choices[0].message.content
        )
        assert SECRET not in text
        assert json.loads(text)["items"][1] == "b"


class TestTheClientItself:
    def test_type_and_identity_stay(self, upstream: Any, guard: Any) -> None:
        with OpenAI(api_key="k", base_url=upstream.url) as client:
            before = (type(client), repr(client.chat.completions)[:40], client.base_url)
            assert guardrail.wrap(client, guard=guard) is client
            assert (type(client), repr(client.chat.completions)[:40], client.base_url) == before
            assert isinstance(client.with_options(timeout=1), OpenAI)

    def test_wrapping_twice_changes_nothing(self, client: OpenAI, guard: Any, upstream: Any) -> None:
        transport = client._client
        assert guardrail.wrap(client, guard=guard)._client is transport
        assert guardrail.wrap(client)._client is transport
        outcome = guardrail.outcome(create(client))
        assert outcome is not None
        assert len(outcome.decisions) == 2

    def test_wrapping_with_another_policy_is_refused(self, client: OpenAI, make_guard: Any) -> None:
        with pytest.raises(ConfigurationError, match="unwrap"):
            guardrail.wrap(client, guard=make_guard())
        with pytest.raises(ConfigurationError, match="Give either"):
            guardrail.wrap(client, policy="general", guard=make_guard())

    def test_unwrap_restores_it(self, upstream: Any, guard: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(BAD,))
        with OpenAI(api_key="k", base_url=upstream.url) as client:
            attributes, transport = set(vars(client)), client._client
            guardrail.wrap(client, guard=guard)
            assert create(client).choices[0].message.content == REFUSAL
            assert unwrap(client) is client
            assert client._client is transport
            assert create(client).choices[0].message.content == BAD
            assert set(vars(client)) - {"chat"} == attributes - {"chat"}

    @pytest.mark.parametrize("package", ACCEPTED)
    def test_a_custom_http_client_is_not_changed(self, upstream: Any, guard: Any, reply: Any, package: Any) -> None:
        upstream.reply = reply(texts=(BAD,))
        seen: list[str] = []
        with package.Client(
            event_hooks={"response": [lambda response: seen.append(response.headers["content-type"])]}
        ) as own:
            transport = own._transport
            client = guardrail.wrap(OpenAI(api_key="k", base_url=upstream.url, http_client=own), guard=guard)
            assert isinstance(client._client, package.Client)
            assert create(client).choices[0].message.content == REFUSAL
            assert own._transport is transport
            assert seen == ["application/json"]
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in create(client, stream=True))
            assert streamed == REFUSAL

    def test_a_copy_with_its_own_http_client_is_guarded(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(BAD,))
        with httpx.Client() as own:
            assert create(client.with_options(http_client=own)).choices[0].message.content == REFUSAL

    @pytest.mark.parametrize("package", ACCEPTED)
    async def test_async_with_a_custom_http_client(self, upstream: Any, guard: Any, reply: Any, package: Any) -> None:
        upstream.reply = reply(texts=(BAD,))
        async with package.AsyncClient() as own:
            client = guardrail.wrap(AsyncOpenAI(api_key="k", base_url=upstream.url, http_client=own), guard=guard)
            answer = await client.chat.completions.create(model="m", messages=HELLO)
            assert answer.choices[0].message.content == REFUSAL

    def test_azure(self, upstream: Any, guard: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(BAD,))
        with AzureOpenAI(
            api_key="k", api_version="2025-01-01", azure_endpoint=upstream.url.removesuffix("/v1")
        ) as client:
            answer = create(guardrail.wrap(client, guard=guard))
        assert answer.choices[0].message.content == REFUSAL
        assert upstream.paths == ["/openai/deployments/m/chat/completions?api-version=2025-01-01"]

    def test_responses_survive_copying(self, client: OpenAI) -> None:
        answer = create(client)
        expected = guardrail.outcome(answer)
        assert expected is not None
        assert guardrail.outcome(copy.deepcopy(answer)) == expected
        assert guardrail.outcome(pickle.loads(pickle.dumps(answer))) == expected
        assert dict(answer)["id"] == answer.id
        assert guardrail.outcome(answer.model_dump()) == expected
        assert guardrail.outcome(object()) is None

    def test_many_threads(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        found: list[tuple[str, str]] = []

        def call(number: int) -> None:
            answer = create(client, [{"role": "user", "content": f"Question {number}"}])
            outcome = guardrail.outcome(answer)
            assert outcome is not None
            found.append((answer.choices[0].message.content, outcome.decisions[0].source))

        threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted((REFUSAL, f"Question {number}") for number in range(16))


class TestPaths:
    def test_calls_that_generate_nothing_pass(self, client: OpenAI, upstream: Any) -> None:
        assert client.embeddings.create(model="e", input=BAD, encoding_format="float").data[0].embedding == [0.5, 0.25]
        assert client.moderations.create(input=BAD).results == []
        assert [model.id for model in client.models.list()] == ["m"]
        assert client.files.create(file=b"x", purpose="batch").id == "file-1"
        assert client.responses.input_items.list("resp_1").data == []
        client.responses.delete("resp_1")
        assert guardrail.outcome(client.models.list()) is None

    @pytest.mark.parametrize(
        "call",
        [
            lambda client: client.images.generate(prompt="x"),
            lambda client: client.audio.speech.create(input="x", model="m", voice="alloy"),
            lambda client: client.audio.transcriptions.create(file=b"x", model="m"),
            lambda client: client.batches.create(input_file_id="f", endpoint="/v1/responses", completion_window="24h"),
            lambda client: client.post("/threads/runs", body={"assistant_id": "a"}, cast_to=object),
            lambda client: client.post("/some/new/generate", body={"prompt": BAD}, cast_to=object),
            lambda client: client.post("/realtime/client_secrets", body={}, cast_to=object),
            lambda client: create(client, [{"role": "user", "content": [{"type": "hologram", "text": BAD}]}]),
            lambda client: create(client, [{"role": "oracle", "content": BAD}]),
            lambda client: create(client, [{"role": "user", "content": {"text": BAD}}]),
            lambda client: client.responses.create(model="m", input=[{"type": "new_thing", "words": BAD}]),
            lambda client: client.completions.create(model="m", prompt=[1, 2, 3]),
            lambda client: client.post("/chat/completions", body="not an object", cast_to=object),
        ],
    )
    def test_what_cannot_be_judged_is_refused_before_it_is_sent(self, upstream: Any, guard: Any, call: Any) -> None:
        with OpenAI(api_key="k", base_url=upstream.url, max_retries=3) as client:
            with pytest.raises(UnsupportedPath, match="guardrail|judged|moderated"):
                call(guardrail.wrap(client, guard=guard))
        assert upstream.paths == []

    @pytest.mark.parametrize("where", ["realtime", "beta.realtime", "responses"])
    def test_web_sockets_are_refused(self, upstream: Any, guard: Any, monkeypatch: Any, where: str) -> None:
        opened: list[Any] = []
        for name in ("websockets", "websockets.sync", "websockets.sync.client", "websockets.exceptions"):
            module = ModuleType(name)
            module.connect = lambda *a, **k: opened.append(a)  # type: ignore[attr-defined]
            module.ConnectionClosedError = module.ConnectionClosedOK = OSError  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, name, module)

        def connect(client: OpenAI) -> Any:
            offered(client, *where.split("."), "connect")
            options = {} if where == "responses" else {"model": "m"}
            return attrgetter(where)(client).connect(**options)

        with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
            with pytest.raises(UnsupportedPath, match="web socket"):
                connect(guardrail.wrap(client, guard=guard)).__enter__()
            with pytest.raises(UnsupportedPath, match="web socket"):
                connect(client.with_options(timeout=3)).__enter__()
        assert opened == []

    def test_a_stored_response_is_moderated_when_it_is_fetched(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        assert client.responses.retrieve("resp_1").output_text == REFUSAL
        if "stream" not in inspect.signature(client.responses.retrieve).parameters:
            return  # the oldest versions fetch a response whole
        events = list(client.responses.retrieve("resp_1", stream=True))
        assert "zorgle" not in "".join(event.model_dump_json() for event in events)
        assert events[-1].response.output_text == f"Hello. \n\n{REFUSAL}"

    def test_background_and_previous_responses(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        more = {"background": True}
        client.responses.create(model="m", input="hi", previous_response_id="resp_0", extra_body=more)
        assert upstream.requests[-1]["previous_response_id"] == "resp_0"
        assert upstream.requests[-1]["background"] is True


class TestBlocking:
    @pytest.mark.parametrize("stream", [False, True])
    def test_an_exception_instead_of_a_refusal(self, upstream: Any, make_guard: Any, reply: Any, stream: bool) -> None:
        guard = make_guard(on_block="raise")
        with OpenAI(api_key="k", base_url=upstream.url, max_retries=3) as client:
            guardrail.wrap(client, guard=guard)
            with pytest.raises(Blocked, match="no-zorgle") as caught:
                create(client, [{"role": "user", "content": BAD}], stream=stream)
            assert guardrail.outcome(caught.value).action is Action.BLOCK  # type: ignore[union-attr]
            assert upstream.paths == []
            upstream.reply = reply(texts=(f"Hello. {BAD}",))
            delivered = []
            with pytest.raises(Blocked):
                for chunk in create(client, stream=stream) if stream else [create(client)]:
                    delivered.append(chunk.model_dump_json())
            assert "zorgle" not in "".join(delivered)

    def test_the_upstream_is_closed_on_a_block(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(f"Oh. {BAD} {'More of it. ' * 400}",), delay=0.005)
        chunks = list(create(client, stream=True))
        assert chunks[-1].choices[0].finish_reason == "content_filter"
        assert upstream.hung_up.wait(5)
        assert upstream.sent < 100

    def test_the_upstream_is_closed_on_an_early_break(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=("More of it. " * 400,), delay=0.005)
        with create(client, stream=True) as chunks:
            for chunk in chunks:
                if chunk.choices[0].delta.content:
                    break
        assert upstream.hung_up.wait(5)

    def test_states_in_the_header(self, upstream: Any, make_guard: Any, reply: Any) -> None:
        with OpenAI(api_key="k", base_url=upstream.url) as client:
            guardrail.wrap(client, guard=make_guard(disclose="header"))
            raw = client.chat.completions.with_raw_response
            for text, state in (
                ("Fine.", "allowed"),
                ("Hmph, fine.", "flagged"),
                (SECRET, "redacted"),
                (BAD, "blocked"),
            ):
                upstream.reply = reply(texts=(text,))
                response = raw.create(model="m", messages=HELLO)
                assert response.headers["x-guardrail-state"] == state
                assert "[edited]" not in response.text
            assert (
                raw.create(model="m", messages=[{"role": "user", "content": BAD}]).headers["x-guardrail-state"]
                == "blocked"
            )

    def test_no_disclosure(self, upstream: Any, make_guard: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(f"It is {SECRET}.",))
        with OpenAI(api_key="k", base_url=upstream.url) as client:
            guardrail.wrap(client, guard=make_guard(disclose="none"))
            response = client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
        assert "x-guardrail-state" not in response.headers
        assert "[edited]" not in response.text
        assert SECRET not in response.text

    def test_shadow_mode_delivers_and_records(self, upstream: Any, make_guard: Any, reply: Any, policy: str) -> None:
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        with OpenAI(api_key="k", base_url=upstream.url) as client:
            guardrail.wrap(client, guard=make_guard(policy=policy + "mode: shadow\n"))
            answer = create(client, [{"role": "user", "content": BAD}])
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in create(client, stream=True))
        assert answer.choices[0].message.content == f"Hello. {BAD}" == streamed
        outcome = guardrail.outcome(answer)
        assert outcome is not None
        assert [decision.action for decision in outcome.decisions] == [Action.BLOCK, Action.BLOCK]
        assert all(decision.shadow for decision in outcome.decisions)


def test_images_are_said_to_be_unscanned(client: OpenAI, upstream: Any, guard: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = create(client, [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}])
    outcome = guardrail.outcome(answer)
    assert outcome is not None
    unscanned = [decision for decision in outcome.decisions if decision.state is State.NOT_SCANNED]
    assert len(unscanned) == 1
    assert "image_url" in unscanned[0].note
    assert guard.audit.get(unscanned[0].id).state == State.NOT_SCANNED
    assert upstream.requests[-1]["messages"][0]["content"][1] == image


def test_the_policy_decides_about_what_is_unscanned(upstream: Any, make_guard: Any, reply: Any, policy: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    picture = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "AAAA"}
    guard = make_guard(policy=policy + "unscanned: block\n")
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        guardrail.wrap(client, guard=guard)
        question = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}
        answer = create(client, [question])
        assert answer.choices[0].message.content == REFUSAL
        assert upstream.paths == []
        withheld = guardrail.outcome(answer).decisions[-1]  # type: ignore[union-attr]
        assert guard.audit.get(withheld.id).state == State.BLOCKED
        create(client, [question, {"role": "assistant", "content": REFUSAL}, *HELLO])  # later it does not go along
        assert upstream.requests[-1]["messages"][0]["content"] == question["content"][:1]

        document = {**json.loads(RESPONSE), "output": [picture]}
        upstream.reply = reply(raw=json.dumps(document).encode())
        assert client.responses.create(model="m", input="Draw").output_text == REFUSAL
        events = [
            {"type": "response.created", "sequence_number": 0, "response": json.loads(RESPONSE)},
            {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": picture},
            {"type": "response.completed", "sequence_number": 2, "response": document},
        ]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        upstream.reply = reply(raw=body.encode(), content_type="text/event-stream")
        streamed = list(client.responses.create(model="m", input="Draw", stream=True))
        assert streamed[-1].response.output_text == REFUSAL
        assert "AAAA" not in "".join(event.model_dump_json() for event in streamed)


def test_pictures_in_a_stream_are_said_to_be_unscanned(client: OpenAI, upstream: Any, reply: Any) -> None:
    delta = {"content": "Here it is.", "images": [{"type": "image_url", "image_url": {"url": "data:image/png,A"}}]}
    chunks = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        for choice in ({"index": 0, "delta": delta}, {"index": 0, "delta": {}, "finish_reason": "stop"})
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    upstream.reply = reply(raw=body.encode(), content_type="text/event-stream")
    answer = create(client, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == "Here it is."
    states = [decision.state for decision in guardrail.outcome(answer).decisions]  # type: ignore[union-attr]
    assert states.count(State.NOT_SCANNED) == 1


def test_how_long_a_stream_was_held_is_reported(client: OpenAI, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("The first sentence. The second. The third.",), delay=0.002)
    answer = create(client, stream=True)
    list(answer)
    held = guardrail.outcome(answer).stream_ms  # type: ignore[union-attr]
    assert held["batches"] == 3
    assert 0 < held["first_text_upstream"] < held["first_text"]
    assert 0 < held["delay_mean"] <= held["delay_max"]
    assert guardrail.outcome(create(client)).stream_ms == {}  # type: ignore[union-attr]


def test_retries_are_one_call(upstream: Any, guard: Any, reply: Any) -> None:
    upstream.queue = [
        reply(status=500, headers={"retry-after-ms": "1"}),
        reply(status=429, headers={"retry-after-ms": "1"}),
    ]
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=3) as client:
        answer = create(guardrail.wrap(client, guard=guard), [{"role": "user", "content": f"My key is {SECRET}."}])
    assert len(upstream.paths) == 3
    assert SECRET not in upstream.seen
    outcome = guardrail.outcome(answer)
    assert outcome is not None
    assert [decision.stage for decision in outcome.decisions] == [Stage.INPUT, Stage.OUTPUT]


def test_the_upstreams_errors_are_the_clients_own(client: OpenAI, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(status=401)
    with pytest.raises(openai.AuthenticationError):
        create(client)
    upstream.reply = reply(fault="hang")
    with pytest.raises(openai.APITimeoutError):
        create(client.with_options(timeout=0.2))
