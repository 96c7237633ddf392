"""Random kills and outages: `run(url, spool, mode, faults, seed)` -> what was acknowledged, what is on record.

Children are forked from one warm process, so that a thousand of them take minutes, not hours. Each records one decision
after the other and says which ones were acknowledged; its database fails at random before, during and after a commit; at
a random moment it is killed with SIGKILL, which nothing can catch.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from guardrail.audit import durability
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.writer import Writer
from guardrail.errors import AuditUnavailable
from guardrail.policy import Policy
from guardrail.types import Decision


@dataclass
class Found:
    """What the faults have left."""

    acknowledged: list[str] = field(default_factory=list)
    recorded: list[tuple[str, int]] = field(default_factory=list)  # id, place in the chain
    kills: int = 0
    outages: int = 0
    left_over: int = 0  # bytes in the spool at the end

    @property
    def lost(self) -> set[str]:
        return set(self.acknowledged) - {key for key, _ in self.recorded}

    @property
    def out_of_order(self) -> list[tuple[str, str]]:
        """Decisions of one process that stand in the chain in another order than they were made in."""
        wrong, last = [], {}
        for key, _ in sorted(self.recorded, key=lambda one: one[1]):
            process, number = key.rsplit("-", 1)
            if process in last and int(last[process].rsplit("-", 1)[1]) > int(number):
                wrong.append((last[process], key))
            last[process] = key
        return wrong


def run(
    url: str, spool: Path, mode: str, faults: int, seed: int, policy: Policy, decide: Callable[..., Decision]
) -> Found:
    generator = random.Random(seed)
    found = Found()
    for number in range(faults):
        kill(lambda send, number=number: child(url, spool, mode, f"p{seed}.{number}", seed + number, policy, decide, send),
             generator, found)  # fmt: skip
    with open_store(url, timeout=60.0, spool=spool, durability=mode) as store:
        store.record([decide(id="last-0")], policy=policy, community="gamers")
        assert store.recorder.flush(120.0)
        found.recorded = everything(store)
        verified = store.verify()
        assert verified.ok, verified.problems
    found.left_over = sum(path.stat().st_size for path in spool.glob("*")) if spool.exists() else 0
    return found


def kill(work: Callable[[Callable[[str], None]], None], generator: random.Random, found: Found, least: int = 1) -> None:
    """Fork, let the child work until it has acknowledged `least` records, kill it, and read what it said."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            work(lambda line: os.write(writing, f"{line}\n".encode()))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        lines: list[bytes] = []
        while sum(not line.startswith(b"outage") for line in lines) < least and (line := stream.readline()):
            lines.append(line)
        time.sleep(generator.random() * 0.03)
        os.kill(process, signal.SIGKILL)
        lines += stream.readlines()
    os.waitpid(process, 0)
    found.kills += 1
    for line in lines:
        text = line.decode()
        if text.endswith("\n"):  # a torn last line was not said
            if text.startswith("outage"):
                found.outages += 1
            else:
                found.acknowledged.append(text.strip())


def child(
    url: str, spool: Path, mode: str, prefix: str, seed: int, policy: Policy, decide: Any, send: Callable[[str], None]
) -> None:
    generator = random.Random(seed)
    original = Writer._transaction

    def failing(self: Writer, batches: Any) -> None:
        fault = generator.random()
        if fault < 0.1:
            send("outage before")
            raise OperationalError("BEGIN", {}, OSError("gone"))
        original(self, batches)
        if fault < 0.2:  # the commit happened, its answer was lost
            send("outage after")
            raise OperationalError("COMMIT", {}, OSError("gone"))

    Writer._transaction = failing  # type: ignore[method-assign]
    store = open_store(url, timeout=30.0, spool=spool, durability=mode)
    for number in range(100_000):
        key = f"{prefix}-{number}"
        try:
            store.record([decide(id=key)], policy=policy, community="gamers")
        except AuditUnavailable:
            continue
        send(key)


def hasty(url: str, prefix: str, limit: int, policy: Policy, decide: Any, send: Callable[[str], None]) -> None:
    """A child that records under `async` as fast as it may, with at most `limit` decisions in memory."""
    durability.ASYNC_LIMIT = limit
    store = open_store(url, timeout=60.0, durability="async")
    for number in range(100_000):
        store.record([decide(id=f"{prefix}-{number}")], policy=policy, community="gamers")
        send(f"{prefix}-{number}")


def everything(store: AuditStore) -> list[tuple[str, int]]:
    from sqlalchemy import select

    from guardrail.audit.tables import decisions

    with store.engine.connect() as connection:
        return [(row.id, row.sequence) for row in connection.execute(select(decisions.c.id, decisions.c.sequence))]
