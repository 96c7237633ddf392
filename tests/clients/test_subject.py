"""Whose texts a call carries: the record knows, whoever said it, and erases them by that name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guardrail import Guardrail, wrap
from guardrail.audit.erasure import erase
from guardrail.clients import subject
from guardrail.clients.driving import drive
from guardrail.clients.exchange import Exchange
from guardrail.clients.memory import Memory
from guardrail.clients.named import subject_of
from guardrail.settings import Settings
from guardrail.wire.routes import FORMATS

POLICY = """
policy: own
classifiers: {banned: {kind: pattern, words: [zorgle]}}
rules: {no-zorgle: {stages: [input, output], weights: {banned: 1.0}, thresholds: {block: 0.9}}}
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Guardrail]:
    (tmp_path / "own.yaml").write_text(POLICY)
    settings = Settings.model_validate({"audit": {"url": f"sqlite:///{tmp_path / 'audit.sqlite'}"}})
    with Guardrail(tmp_path / "own.yaml", settings=settings) as guard:
        yield guard


def texts_of(guard: Guardrail, name: str) -> set[str | None]:
    return {one.source_text for one in guard.audit.list(subject=name).items}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"user": "ann"}, "ann"),
        ({"safety_identifier": "hash-1", "user": "ann"}, "hash-1"),
        ({"metadata": {"user_id": "ännchen \u0000 🙂"}}, "ännchen \u0000 🙂"),
        ({"user": ""}, None),
        ({"user": 7, "metadata": "text"}, None),
        ({}, None),
    ],
)
def test_a_request_names_its_person(body: dict[str, Any], found: str | None) -> None:
    assert subject_of(body) == found


def test_the_caller_goes_before_the_request() -> None:
    with subject("bob"):
        assert subject_of({"user": "ann"}) == "bob"
        with subject(None):
            assert subject_of({"user": "ann"}) is None
    assert subject_of({"user": "ann"}) == "ann"


@pytest.mark.parametrize(
    ("form", "field"),
    [("chat_completions", "user"), ("chat_completions", "safety_identifier"), ("messages", "metadata")],
)
def test_the_record_knows_whose_texts_they_are(own: Guardrail, form: str, field: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hello."}], field: "ann"}
    if field == "metadata":
        body[field] = {"user_id": "ann"}
    exchange = Exchange(own, FORMATS[form], body, Memory())
    drive(exchange, exchange.admit())
    assert texts_of(own, "ann") == {"Hello."}
    assert texts_of(own, "bob") == set()


def test_erasing_a_person_finds_the_texts_of_wrapped_calls(own: Guardrail) -> None:
    guarded = wrap(lambda messages: f"You said: {messages}", guard=own)
    with subject("ann"):
        guarded("I live at the sea.")
    with subject("bob"):
        guarded("I live in the hills.")
    assert texts_of(own, "ann") == {"I live at the sea.", "You said: I live at the sea."}
    erase(own.audit, subject="ann", by="test")
    kept = {one.source_text for one in own.audit.list(limit=10).items}
    assert not any("sea" in (text or "") for text in kept)
    assert "I live in the hills." in kept
    assert texts_of(own, "ann") == set()
    assert own.audit.verify().ok


async def test_tasks_do_not_mix_their_people(own: Guardrail) -> None:
    async def model(messages: Any) -> str:
        await asyncio.sleep(0)
        return f"To {messages}"

    guarded = wrap(model, guard=own)

    async def one(name: str) -> None:
        with subject(name):
            await asyncio.sleep(0)
            await guarded(f"I am {name}.")

    await asyncio.gather(*(one(f"p{number}") for number in range(8)))
    for number in range(8):
        assert texts_of(own, f"p{number}") == {f"I am p{number}.", f"To I am p{number}."}
