"""Wrapped callables: sync, async, yielding; whatever they take messages as."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import guardrail
from guardrail import Guardrail, Message
from guardrail.clients import unwrap
from guardrail.errors import ConfigurationError, UnsupportedPath
from guardrail.types import Action

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."
HELLO = [{"role": "user", "content": "Good morning"}]


def test_a_function(guard: Guardrail) -> None:
    seen: list[Any] = []

    def model(messages: Any, *, temperature: float = 1.0) -> str:
        """Answer."""
        seen.append((messages, temperature))
        return f"Hello. It is {SECRET}." if temperature else BAD

    wrapped = guardrail.wrap(model, guard=guard)
    assert (wrapped.__name__, wrapped.__doc__) == ("model", "Answer.")
    answer = wrapped(HELLO, temperature=0.5)
    assert isinstance(answer, str)
    assert SECRET not in answer
    assert seen == [(HELLO, 0.5)]
    assert seen[0][0] is HELLO
    assert guardrail.outcome(answer).action is Action.REDACT  # type: ignore[union-attr]
    assert wrapped(messages=HELLO, temperature=0) == REFUSAL
    assert len(seen) == 2
    assert wrapped([{"role": "user", "content": BAD}]) == REFUSAL
    assert len(seen) == 2
    assert unwrap(wrapped) is model
    assert guardrail.wrap(wrapped, guard=guard) is wrapped


@pytest.mark.parametrize(
    "messages",
    [
        f"It is {SECRET}.",
        [{"role": "user", "content": f"It is {SECRET}."}],
        ({"role": "user", "content": [{"type": "text", "text": f"It is {SECRET}."}]},),
        [Message("user", f"It is {SECRET}.")],
        [SimpleNamespace(role="user", content=f"It is {SECRET}.")],
        ["Hello", f"It is {SECRET}."],
    ],
)
def test_messages_come_back_repaired_in_the_callers_own_types(guard: Guardrail, messages: Any) -> None:
    seen: list[Any] = []
    guardrail.wrap(lambda prompt: seen.append(prompt) or "ok", guard=guard)(messages)
    assert SECRET not in str(seen)
    assert "It is " in str(seen)
    assert SECRET in str(messages)
    if isinstance(messages, str):
        assert isinstance(seen[0], str)
    else:
        assert [type(message) for message in seen[0]] == [type(message) for message in messages]


def test_a_generator_is_held_and_closed(guard: Guardrail) -> None:
    closed = []

    def model(messages: Any) -> Iterator[str]:
        try:
            yield from ("Hel", "lo the", "re. I will zor", "gle you. ", "Bye.")
        finally:
            closed.append(True)

    stream = guardrail.wrap(model, guard=guard)(HELLO)
    assert "".join(stream) == f"Hello there. \n\n{REFUSAL}"
    assert closed == [True]
    assert guardrail.outcome(stream).blocked  # type: ignore[union-attr]
    with guardrail.wrap(model, guard=guard)(HELLO) as stream:
        assert next(stream) == "Hel"
    assert closed == [True, True]
    assert list(guardrail.wrap(model, guard=guard)(BAD)) == [REFUSAL]
    assert closed == [True, True]


def test_a_function_that_returns_an_iterator(guard: Guardrail) -> None:
    def model(messages: Any, stream: bool = False) -> Any:
        return iter(["Fine. ", "All fine."]) if stream else "Fine. All fine."

    wrapped = guardrail.wrap(model, guard=guard)
    assert wrapped(HELLO) == "Fine. All fine."
    assert "".join(wrapped(HELLO, stream=True)) == "Fine. All fine."
    assert list(wrapped(BAD, stream=True)) == [REFUSAL]


async def test_coroutine_functions(guard: Guardrail) -> None:
    async def model(messages: Any) -> str:
        return BAD if messages == "bad" else "Fine."

    wrapped = guardrail.wrap(model, guard=guard)
    answer = await wrapped("hi")
    assert answer == "Fine."
    assert guardrail.outcome(answer).action is Action.ALLOW  # type: ignore[union-attr]
    assert await wrapped("bad") == REFUSAL
    assert await wrapped(BAD) == REFUSAL
    assert await guardrail.wrap(functools.partial(model), guard=guard)("bad") == REFUSAL


async def test_async_generators(guard: Guardrail) -> None:
    closed = []

    async def model(messages: Any) -> AsyncIterator[str]:
        try:
            for part in ("Hel", "lo. ", "I will zor", "gle you. "):
                yield part
        finally:
            closed.append(True)

    wrapped = guardrail.wrap(model, guard=guard)
    stream = wrapped("hi")
    assert "".join([part async for part in stream]) == f"Hello. \n\n{REFUSAL}"
    assert guardrail.outcome(stream).blocked  # type: ignore[union-attr]
    assert [part async for part in wrapped(BAD)] == [REFUSAL]
    async with wrapped("hi") as stream:
        assert await anext(stream) == "Hel"
    assert closed == [True, True]


def test_objects_and_methods(guard: Guardrail) -> None:
    class Bot:
        def __call__(self, messages: Any) -> str:
            return BAD

        def reply(self, messages: Any) -> str:
            return BAD

    assert guardrail.wrap(Bot(), guard=guard)("hi") == REFUSAL
    assert guardrail.wrap(Bot().reply, guard=guard)("hi") == REFUSAL


@pytest.mark.parametrize("result", [None, 3, {"text": "x"}, [b"bytes"]])
def test_what_is_not_text_is_refused(guard: Guardrail, result: Any) -> None:
    with pytest.raises(UnsupportedPath, match="Only text"):
        guardrail.wrap(lambda messages: result, guard=guard)("hi")
    with pytest.raises(UnsupportedPath, match="Only text"):
        list(guardrail.wrap(lambda messages: iter([result]), guard=guard)("hi"))


def test_messages_that_cannot_be_found_are_refused(guard: Guardrail) -> None:
    with pytest.raises(UnsupportedPath, match="no messages"):
        guardrail.wrap(lambda **_: "x", guard=guard)(temperature=1)
    for messages in (3, [3], object(), [object()]):
        with pytest.raises(UnsupportedPath):
            guardrail.wrap(lambda messages: "x", guard=guard)(messages)


@pytest.mark.parametrize("client", [None, 3, "text", object(), int, pytest])
def test_what_cannot_be_wrapped(guard: Guardrail, client: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be wrapped"):
        guardrail.wrap(client, guard=guard)
