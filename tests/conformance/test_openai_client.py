"""What an openai client stays while it is guarded, which of its calls pass or are refused, and how a block reaches its caller."""

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
from openai_calls import BAD, HELLO, REFUSAL, SECRET, create, offered

import guardrail
from guardrail.clients import unwrap
from guardrail.errors import Blocked, ConfigurationError, UnsupportedPath
from guardrail.types import Action, Stage

ACCEPTED = [httpx] if int(openai.__version__.partition(".")[0]) < 2 else [httpx, httpx2]  # as `http_client`


@pytest.fixture
def client(upstream: Any, guard: Any) -> Iterator[OpenAI]:
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        yield guardrail.wrap(client, guard=guard)


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

    @pytest.mark.parametrize("text", ["Fine.", SECRET, BAD])
    def test_raw_responses_survive_copying(self, client: OpenAI, upstream: Any, reply: Any, text: str) -> None:
        """What was read on the way is a whole response to its caller: body, headers, length, time taken."""
        upstream.reply = reply(texts=(text,), fault="gzip")
        raw = client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
        assert raw.elapsed.total_seconds() > 0
        assert raw.http_response.is_closed
        assert json.loads(raw.content) == json.loads(raw.text) == json.loads(raw.http_response.read())
        expected = {"Fine.": "Fine.", BAD: REFUSAL}.get(text)
        said = pickle.loads(pickle.dumps(raw.parse())).choices[0].message.content
        assert said == expected if expected else SECRET not in said
        assert raw.headers["content-type"] == "application/json"
        assert guardrail.outcome(raw).request_id == raw.headers["x-guardrail-request-id"]  # type: ignore[union-attr]

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
