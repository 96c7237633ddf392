"""Thin loops that drive the generators of `exchange` and `stream`: one for threads, one for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from guardrail.clients.exchange import Check, Exchange, Steps
from guardrail.errors import GuardrailError, ModerationError
from guardrail.types import Decision

__all__ = ["adecide", "adrive", "apump", "decide", "drive", "pump"]


def decide(exchange: Exchange, asked: Any) -> Sequence[Decision]:
    """Answer what a generator asks for.

    Raises:
        GuardrailError: nothing was decided, so nothing may leave.
    """
    guard = exchange.guard
    try:
        if isinstance(asked, Check):
            return guard.check_many(asked.passages)
        decisions = guard.moderate(asked, request_id=exchange.ledger.request_id, conversation=exchange.conversation)
    except GuardrailError:
        raise
    except Exception as error:
        raise _failed(error) from error
    exchange.ledger.add(decisions)
    return decisions


async def adecide(exchange: Exchange, asked: Any) -> Sequence[Decision]:
    """Answer what a generator asks for, without blocking the event loop.

    Raises:
        GuardrailError: nothing was decided, so nothing may leave.
    """
    guard = exchange.guard
    try:
        if isinstance(asked, Check):
            return await asyncio.to_thread(guard.check_many, asked.passages)
        decisions = await guard.amoderate(
            asked, request_id=exchange.ledger.request_id, conversation=exchange.conversation
        )
    except GuardrailError:
        raise
    except Exception as error:
        raise _failed(error) from error
    exchange.ledger.add(decisions)
    return decisions


def _failed(error: Exception) -> ModerationError:
    # A client library would take any other exception for a network failure and try again.
    return ModerationError(f"Moderation failed ({type(error).__name__}: {error}), so nothing was passed on.")


def drive(exchange: Exchange, steps: Steps) -> Any:
    """Run a generator that only asks for decisions; return its result."""
    answer = None
    while True:
        try:
            asked = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = decide(exchange, asked)


async def adrive(exchange: Exchange, steps: Steps) -> Any:
    """Run a generator that only asks for decisions; return its result."""
    answer = None
    while True:
        try:
            asked = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = await adecide(exchange, asked)


def pump(exchange: Exchange, steps: Steps) -> Iterator[Any]:
    """Run a generator of a stream; yield the events that may leave."""
    answer = None
    while True:
        try:
            asked = steps.send(answer)
        except StopIteration:
            return
        if isinstance(asked, tuple | Check):
            answer = decide(exchange, asked)
        else:
            answer = None
            yield asked


async def apump(exchange: Exchange, steps: Steps) -> AsyncIterator[Any]:
    """Run a generator of a stream; yield the events that may leave."""
    answer = None
    while True:
        try:
            asked = steps.send(answer)
        except StopIteration:
            return
        if isinstance(asked, tuple | Check):
            answer = await adecide(exchange, asked)
        else:
            answer = None
            yield asked
