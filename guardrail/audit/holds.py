"""Drafts that wait for a person: look, or wait until somebody has released or refused one, or the time is up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from guardrail.audit.database import unavailable
from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.people import People
from guardrail.audit.sealing import must_be_open
from guardrail.audit.tables import holds
from guardrail.errors import ConfigurationError
from guardrail.types import Decision, State

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore

__all__ = ["Settled", "await_verdict", "expire", "look", "resolved", "wait"]

NOBODY = "time-out"
"""Stands for who settled a draft that nobody looked at in time."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How a held draft stands.

    Attributes:
        status: held | released | refused | expired.
        text: what to deliver where it was released in other words; None: the draft as it was.
        by: who settled it.
    """

    status: str
    text: str | None = None
    by: str | None = None

    @property
    def released(self) -> bool:
        """Whether something may be delivered."""
        return self.status == "released"


def look(store: AuditStore, decision_id: str) -> Settled | None:
    """Return how a draft stands; None where it was never held.

    Raises:
        AuditUnavailable: the database cannot be read.
        ConfigurationError: the text that was released is encrypted with a key that is not configured.
    """
    try:
        with store.engine.connect() as connection:
            query = select(holds).where(holds.c.decision_id == identifier(decision_id))
            row = connection.execute(query).first()
    except SQLAlchemyError as error:
        raise unavailable(error, store.engine.url, "read") from error
    if row is None:
        return None
    stored = must_be_open(row.text, f"the text released for {decision_id!r}")
    text = None if stored is None else unescape(stored)
    return Settled(row.status, text, None if row.settled_by is None else unescape(row.settled_by))


def wait(store: AuditStore, decision_id: str, timeout: float = 60.0, poll: float = 0.25) -> Settled:
    """Return the verdict on a held draft, as soon as there is one.

    When the time is up the draft is marked `expired`, so that nobody releases a text to a reader who has left.

    Args:
        timeout: seconds to wait; 0 looks once.
        poll: seconds between two looks.

    Raises:
        ConfigurationError: the draft was never held.
        AuditUnavailable: the database cannot be used.
    """
    deadline = time.monotonic() + timeout
    while True:
        settled = _known(store, decision_id)
        if settled.status != "held":
            return settled
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return expire(store, decision_id)
        time.sleep(min(poll, remaining))


async def await_verdict(store: AuditStore, decision_id: str, timeout: float = 60.0, poll: float = 0.25) -> Settled:  # noqa: ASYNC109
    """`wait` for asyncio: no thread is held while nothing happens."""
    deadline = time.monotonic() + timeout
    while True:
        settled = await asyncio.to_thread(_known, store, decision_id)
        if settled.status != "held":
            return settled
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return await asyncio.to_thread(expire, store, decision_id)
        await asyncio.sleep(min(poll, remaining))


def resolved(decision: Decision, settled: Settled) -> Decision:
    """Return a held decision as it may be delivered: released, in the reviewer's words if there are any, or refused.

    One that a person has refused is blocked; one that nobody has decided on, or that was released, stays escalated. The
    record stays as it is: the verdict is an event of its own.
    """
    if not settled.released:
        state = State.BLOCKED if settled.status == "refused" else decision.state
        return replace(decision, state=state, note=f"held for a person: {settled.status}")
    text = decision.source if settled.text is None else settled.text
    return replace(decision, text=text, note=f"released by {settled.by}")


def _known(store: AuditStore, decision_id: str) -> Settled:
    settled = look(store, decision_id)
    if settled is None:
        raise ConfigurationError(f"decision {decision_id!r} is not held")
    return settled


def expire(store: AuditStore, decision_id: str) -> Settled:
    """Mark a draft for which nobody waits any more, so that it cannot be released; return how it stands then.

    Raises:
        ConfigurationError: the draft was never held.
        AuditUnavailable: the database cannot be used.
    """
    try:
        with People(store).change() as change:
            change.settle(decision_id, status="expired", by=NOBODY)
    except ConfigurationError:  # a person was quicker by a moment
        return _known(store, decision_id)
    return Settled("expired", None, NOBODY)
