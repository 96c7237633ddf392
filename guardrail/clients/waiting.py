"""Waiting for a person: where a policy says so, the caller of a held text gets the verdict on it, or its time-out answer.

A released text goes on as if nothing had been found in it, in the reviewer's words if there are any; a refused one is
withheld. Whoever stops waiting (the time is up, the call is cancelled) leaves the draft marked as expired, so that nobody
releases it to a reader who has left. What cannot be found out (the database is away) is withheld.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from guardrail.errors import AuditUnavailable, ConfigurationError
from guardrail.log import Logger
from guardrail.types import Decision, State

if TYPE_CHECKING:
    from guardrail.audit.holds import Settled
    from guardrail.audit.store import AuditStore
    from guardrail.policy.schema import Hold

__all__ = ["await_people", "held", "wait_for_people"]

log = Logger(__name__)

POLL = 0.25
"""Seconds between two looks at a draft."""

REGISTERED = 2.0
"""Seconds that a draft may take from the spool or from memory into the database, where reviewers see it."""


def held(decisions: Sequence[Decision]) -> list[Decision]:
    """Those of the decisions whose texts wait for a person."""
    return [decision for decision in decisions if decision.state is State.ESCALATED and decision.text is None]


def wait_for_people(store: AuditStore, hold: Hold, waiting: Sequence[Decision]) -> dict[str, Decision]:
    """Wait until all held texts are decided on or the time is up.

    Args:
        store: where they are recorded.
        hold: how long, and the answer of a time-out.
        waiting: what `held` found.

    Returns:
        The id of each decision to how it ended.
    """
    from guardrail.audit.holds import wait

    deadline = time.monotonic() + hold.wait
    ended: dict[str, Decision] = {}
    try:
        store.recorder.flush(REGISTERED)
        for decision in waiting:
            settled = wait(store, decision.id, max(0.0, deadline - time.monotonic()), POLL)
            ended[decision.id] = _ended(decision, settled, hold)
    except (AuditUnavailable, ConfigurationError) as error:
        return ended | _unknown(waiting, ended, error)
    except BaseException:
        _leave(store, [decision for decision in waiting if decision.id not in ended])
        raise
    return ended


async def await_people(store: AuditStore, hold: Hold, waiting: Sequence[Decision]) -> dict[str, Decision]:
    """`wait_for_people` for asyncio: neither the event loop nor a thread is held while nothing happens."""
    from guardrail.audit.holds import await_verdict

    deadline = time.monotonic() + hold.wait
    ended: dict[str, Decision] = {}
    try:
        await asyncio.to_thread(store.recorder.flush, REGISTERED)
        for decision in waiting:
            settled = await await_verdict(store, decision.id, max(0.0, deadline - time.monotonic()), POLL)
            ended[decision.id] = _ended(decision, settled, hold)
    except (AuditUnavailable, ConfigurationError) as error:
        return ended | _unknown(waiting, ended, error)
    except asyncio.CancelledError:
        # Not awaited: whoever cancels must not wait for the database. The loop ends its threads before it closes.
        left = [decision for decision in waiting if decision.id not in ended]
        asyncio.get_running_loop().run_in_executor(None, _leave, store, left)
        raise
    return ended


def _ended(decision: Decision, settled: Settled, hold: Hold) -> Decision:
    from guardrail.audit.holds import resolved

    ended = resolved(decision, settled)
    if settled.status == "expired" and hold.answer is not None:
        return replace(ended, refusal=hold.answer)
    return ended


def _unknown(waiting: Sequence[Decision], ended: dict[str, Any], error: Exception) -> dict[str, Decision]:
    """Those whose verdict could not be found out: they stay as they are, withheld."""
    log.error("the verdict on a held text could not be read, it stays withheld", error=str(error))
    return {decision.id: decision for decision in waiting if decision.id not in ended}


def _leave(store: AuditStore, waiting: Sequence[Decision]) -> None:
    """Nobody waits any more: mark the drafts."""
    from guardrail.audit.holds import expire

    for decision in waiting:
        try:
            expire(store, decision.id)
        except (AuditUnavailable, ConfigurationError) as error:
            log.error("a held text for which nobody waits could not be marked", decision=decision.id, error=str(error))
