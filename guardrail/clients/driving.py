"""Thin loops that drive the generators of `exchange` and `stream`: one for threads, one for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from guardrail.clients.asking import Check, Steps
from guardrail.clients.exchange import Exchange
from guardrail.clients.waiting import await_people, held, wait_for_people
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
        decisions = guard.moderate(asked, **_of(exchange))
        exchange.ledger.add(decisions)
        waiting = held(decisions)
        if waiting and exchange.policy.document.hold.wait:
            return _ended(exchange, decisions, wait_for_people(guard.audit, exchange.policy.document.hold, waiting))
    except GuardrailError:
        raise
    except Exception as error:
        raise _failed(error) from error
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
        decisions = await guard.amoderate(asked, **_of(exchange))
        exchange.ledger.add(decisions)
        waiting = held(decisions)
        if waiting and exchange.policy.document.hold.wait:
            return _ended(exchange, decisions, await await_people(guard.audit, exchange.policy.document.hold, waiting))
    except GuardrailError:
        raise
    except Exception as error:
        raise _failed(error) from error
    return decisions


def _of(exchange: Exchange) -> dict[str, str]:
    """What is known of a call besides its texts."""
    known = {"request_id": exchange.ledger.request_id}
    if exchange.conversation is not None:
        known["conversation"] = exchange.conversation
    if exchange.subject is not None:
        known["subject"] = exchange.subject
    return known


def _ended(exchange: Exchange, decisions: Sequence[Decision], ended: Mapping[str, Decision]) -> list[Decision]:
    """The decisions with those that waited for a person as they ended."""
    exchange.ledger.settle(ended.values())
    return [ended.get(decision.id, decision) for decision in decisions]


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
