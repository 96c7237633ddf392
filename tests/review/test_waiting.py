"""A client waits for a person: what a moderator does on the review pages reaches the caller, or its time-out answer does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

import guardrail
from guardrail.audit.holds import look
from guardrail.clients.transport import http_module
from guardrail.engine import Guardrail
from guardrail.errors import Blocked
from guardrail.settings import Settings
from guardrail.types import State

POLICY = """
policy: careful-clients
classifiers: {{doubtful: {{kind: pattern, words: [doubtful]}}}}
rules: {{doubt: {{stages: [input, output], weights: {{doubtful: 1.0}}, thresholds: {{escalate: 0.5}}}}}}
refusal: This was withheld.
hold: {{wait: {wait}, answer: Nobody has looked at it yet.}}
"""
DRAFT = "This is a doubtful reply."
VERDICTS = [
    ("overturn", {}, DRAFT, "released", State.ESCALATED),
    ("edit", {"edited_text": "This is a better reply."}, "This is a better reply.", "released", State.ESCALATED),
    ("uphold", {}, "This was withheld.", "refused", State.BLOCKED),
]
Guarding = Callable[..., Guardrail]


@pytest.fixture
def guarding(office: Any, tmp_path: Path) -> Guarding:
    """Makes a guard that records where the office looks."""

    def make(wait: float = 60.0, **settings: Any) -> Guardrail:
        file = tmp_path / "careful.yaml"
        file.write_text(POLICY.format(wait=wait), encoding="utf8")
        return Guardrail(
            file, settings=Settings.model_validate(settings), community=office.community, audit=office.store
        )

    return make


@pytest.fixture
def moderator(office: Any) -> Iterator[Callable[..., Future[str]]]:
    """Somebody who takes the next held draft from the pages and decides on it; the future is its id."""
    seen = {one.id for one in office.store.list(state="escalated", limit=500).items}
    pool = ThreadPoolExecutor(1)

    def work(verdict: str, fields: dict[str, str]) -> str:
        browser = office.browser("moderator")
        for _ in range(600):
            new = [one.id for one in office.store.list(state="escalated").items if one.id not in seen]
            if new:
                assert "its reader is waiting" in browser.read(new[0]).text
                assert browser.decide(new[0], verdict, **fields).status_code == 303
                return str(new[0])
            time.sleep(0.05)
        raise AssertionError("no draft was held")

    yield lambda verdict, **fields: pool.submit(work, verdict, fields)
    pool.shutdown()


def openai_client(guard: Guardrail, make: Any = openai.OpenAI, reply: str = DRAFT) -> Any:
    """A wrapped client whose model answers with `reply`, streamed by words where that is asked for."""
    plain = make(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
    http: Any = http_module(plain._client)

    def answer(request: Any) -> Any:
        if not json.loads(request.content).get("stream"):
            message = {"role": "assistant", "content": reply}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
            return http.Response(200, json={**head, "choices": [choice]})
        deltas = [{"content": word} for word in reply.replace(" ", "\0 ").split("\0")]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        lines = [f"data: {json.dumps({**head, 'choices': [choice]})}\n\n" for choice in choices]
        return http.Response(
            200, headers={"content-type": "text/event-stream"}, text="".join(lines) + "data: [DONE]\n\n"
        )

    is_async = make is openai.AsyncOpenAI
    transport = http.MockTransport(answer)
    client = http.AsyncClient(transport=transport) if is_async else http.Client(transport=transport)
    made = make(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0, http_client=client)
    return guardrail.wrap(made, guard=guard)


def question(text: str = "What now?") -> Any:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(("verdict", "fields", "delivered", "status", "state"), VERDICTS)
def test_the_verdict_reaches_the_caller(
    office: Any,
    guarding: Guarding,
    moderator: Any,
    verdict: str,
    fields: Any,
    delivered: str,
    status: str,
    state: State,
) -> None:
    client = openai_client(guarding())
    person = moderator(verdict, **fields)
    reply = client.chat.completions.create(model="m", messages=question())
    key = person.result()
    assert reply.choices[0].message.content.startswith(delivered)
    assert "held for review" not in reply.choices[0].message.content
    assert look(office.store, key).status == status
    (decision,) = [one for one in guardrail.outcome(reply).decisions if one.id == key]
    assert (decision.state, decision.delivered) == (state, delivered)
    assert office.store.get(key).state == "escalated"  # the record of the moment; the verdict is an event after it
    assert office.store.verify(office.community).ok


@pytest.mark.parametrize(("verdict", "fields", "delivered", "status", "state"), VERDICTS)
async def test_a_stream_goes_on_after_the_verdict_and_the_loop_is_free(
    office: Any,
    guarding: Guarding,
    moderator: Any,
    verdict: str,
    fields: Any,
    delivered: str,
    status: str,
    state: State,
) -> None:
    client = openai_client(guarding(), openai.AsyncOpenAI, f"It rains. {DRAFT} It is late.")
    person = moderator(verdict, **fields)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    stream = await client.chat.completions.create(model="m", messages=question(), stream=True)
    parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    ticking.cancel()
    await asyncio.wrap_future(person)
    text = "".join(parts)
    assert text.startswith("It rains.")
    assert delivered in text
    assert ("It is late." in text) == (status == "released")
    assert ticks > 0
    outcome = guardrail.outcome(stream)
    assert outcome.decisions[-1 if status == "refused" else -2].state is state


def test_a_request_waits_too_and_goes_upstream_as_it_was_released(guarding: Guarding, moderator: Any) -> None:
    asked: list[str] = []

    def model(messages: list[dict[str, str]]) -> str:
        asked.append(messages[-1]["content"])
        return "Fine."

    person = moderator("edit", edited_text="A plain question?")
    assert guardrail.wrap(model, guard=guarding())(question("A doubtful question?")) == "Fine."
    person.result()
    assert asked == ["A plain question?"]


def test_a_refused_request_never_goes_upstream(guarding: Guarding, moderator: Any) -> None:
    def model(messages: list[dict[str, str]]) -> str:
        raise AssertionError(messages)

    person = moderator("uphold")
    assert guardrail.wrap(model, guard=guarding())(question("A doubtful question?")) == "This was withheld."
    person.result()


def test_a_system_prompt_released_in_other_words_is_not_released(guarding: Guarding, moderator: Any) -> None:
    def model(messages: list[dict[str, str]]) -> str:
        raise AssertionError(messages)

    person = moderator("edit", edited_text="You are sure of everything.")
    messages = [{"role": "system", "content": "You are doubtful."}, *question()]
    assert "This was withheld." in guardrail.wrap(model, guard=guarding())(messages)
    person.result()


def test_the_time_out_answer(office: Any, guarding: Guarding) -> None:
    client = openai_client(guarding(wait=0.1))
    reply = client.chat.completions.create(model="m", messages=question())
    (decision,) = [one for one in guardrail.outcome(reply).decisions if one.state is State.ESCALATED]
    assert reply.choices[0].message.content.startswith("Nobody has looked at it yet.")
    assert decision.id in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "content_filter"
    assert look(office.store, decision.id).status == "expired"
    assert (
        office.browser("moderator").decide(decision.id, "overturn").status_code == 303
    )  # too late to deliver anything
    assert look(office.store, decision.id).status == "expired"


def test_without_a_wait_the_ticket_comes_at_once(office: Any, guarding: Guarding) -> None:
    reply = openai_client(guarding(wait=0.0)).chat.completions.create(model="m", messages=question())
    (decision,) = [one for one in guardrail.outcome(reply).decisions if one.state is State.ESCALATED]
    assert reply.choices[0].message.content == f"This was withheld. (held for review: {decision.id})"
    assert look(office.store, decision.id).status == "held"


def test_raising_waits_as_well(guarding: Guarding, moderator: Any) -> None:
    client = openai_client(guarding(on_block="raise"))
    person = moderator("uphold")
    with pytest.raises(Blocked) as raised:
        client.chat.completions.create(model="m", messages=question())
    person.result()
    assert raised.value.outcome.decisions[-1].state is State.BLOCKED


async def test_who_cancels_leaves_a_draft_that_cannot_be_released(office: Any, guarding: Guarding) -> None:
    begun = threading.Event()

    async def model(messages: Any) -> AsyncIterator[str]:
        begun.set()
        yield DRAFT

    before = {one.id for one in office.store.list(state="escalated", limit=500).items}
    stream = guardrail.wrap(model, guard=guarding())(question())
    task = asyncio.create_task(anext(stream))
    key = ""
    while not key:
        await asyncio.sleep(0.02)
        page = office.store.list(state="escalated")
        key = next((one.id for one in page.items if one.id not in before), "")
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(500):
        if look(office.store, key).status != "held":
            break
        await asyncio.sleep(0.02)
    assert begun.is_set()
    assert look(office.store, key).status == "expired"


def test_a_record_that_cannot_be_read_withholds(
    office: Any, guarding: Guarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardrail.audit import holds
    from guardrail.errors import AuditUnavailable

    def away(*_: Any) -> None:
        raise AuditUnavailable("the database is away")

    monkeypatch.setattr(holds, "look", away)
    reply = openai_client(guarding()).chat.completions.create(model="m", messages=question())
    assert reply.choices[0].message.content.startswith("This was withheld.")
    assert reply.choices[0].finish_reason == "content_filter"
