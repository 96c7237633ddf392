"""Streams while something fails: classifier, rewriter, database, upstream, or the reader who leaves at any moment.

Whatever happens, no word of a disallowed sentence is delivered, what was delivered is on record, and the upstream is closed.
The checks run at every event that leaves (`Case.take`).
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "properties"))
from stream_harness import REFUSAL, Case, Faults, Guards, case, cuts, events_of

from guardrail.clients.transport import _async_stream, _sync_stream
from guardrail.errors import GuardrailError
from guardrail.types import State

SEED = 20261121
QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=3_000, deadline=None, suppress_health_check=list(HealthCheck))
NUMBERS = st.integers(0, 2**32)


class OneVector:
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 1), dtype=np.float32)


@pytest.fixture(scope="module")
def guards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guards]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guardrail.encoder.load_encoder", lambda *_: OneVector())
        yield Guards(tmp_path_factory.mktemp("guards"))


class Suspend:
    """One turn of the event loop."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class SlowGuard:
    """A guard that takes some turns of the loop to answer, before and after it has decided."""

    def __init__(self, guard: Any, random_: random.Random) -> None:
        self.guard, self.random = guard, random_

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guard, name)

    async def amoderate(self, *args: Any, **kwargs: Any) -> Any:
        for _ in range(self.random.randint(0, 2)):
            await Suspend()
        decisions = self.guard.moderate(*args, **kwargs)
        for _ in range(self.random.randint(0, 2)):
            await Suspend()
        return decisions


class Upstream:
    """A model's stream that may break off."""

    def __init__(self, made: Case, number: int, breaks_after: int = -1) -> None:
        self.chunks, self.breaks_after, self.closed = list(cuts(made.data, number)), breaks_after, 0

    def iter_bytes(self) -> Iterator[bytes]:
        for count, chunk in enumerate(self.chunks):
            if count == self.breaks_after:
                raise httpx.ReadError("the connection is gone")
            yield chunk

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        for chunk in self.iter_bytes():
            await Suspend()
            yield chunk

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1
        await Suspend()


def stream_of(made: Case, upstream: Upstream, make: Any) -> Any:
    return make(httpx)(SimpleNamespace(events=events_of(made), exchange=made.exchange, upstream=upstream))


def faults_of(random_: random.Random) -> Faults:
    part = random_.choice(["classifier", "rewriter", "audit"])
    return Faults(**{part: random_.randint(0, 6)})


def failing(guards: Guards, number: int) -> None:
    random_ = random.Random(number)
    made = case(guards, number, faults_of(random_))
    breaks_after = random_.choice([-1, random_.randint(0, 12)])
    upstream = Upstream(made, number, breaks_after)
    try:
        for out in stream_of(made, upstream, _sync_stream):
            made.take(out)
    except GuardrailError:
        assert REFUSAL not in made.delivered
        assert made.exchange.guard.audit.faults.audit < 0  # nothing but the record may end a stream with an error
    except httpx.ReadError:
        assert len(upstream.chunks) > breaks_after >= 0
    assert upstream.closed
    unavailable = [decision for decision in made.records.decisions if decision.state is State.BLOCKED_UNAVAILABLE]
    assert all(decision.text is None for decision in unavailable)
    assert not unavailable or REFUSAL in made.delivered


@seed(SEED)
@QUICK
@given(number=NUMBERS)
def test_parts_that_fail(guards: Guards, number: int) -> None:
    failing(guards, number)


@pytest.mark.slow
@seed(SEED + 1)
@MANY
@given(number=NUMBERS)
def test_thousands_of_parts_that_fail(guards: Guards, number: int) -> None:
    failing(guards, number)


def cancelled(guards: Guards, number: int) -> None:
    """Run the reader by hand; cancel it at an await of the number's choosing; give it all the turns it still wants."""
    random_ = random.Random(number)
    made = case(guards, number)
    made.exchange.guard = SlowGuard(made.exchange.guard, random_)
    upstream = Upstream(made, number)
    stream = stream_of(made, upstream, _async_stream)
    at = random_.randint(1, 1 + 2 * len(upstream.chunks))  # before its first turn a reader has nothing to close

    async def read() -> None:
        async for out in stream:
            made.take(out)

    reading, turn, ended = read(), 0, None
    delivered = ""
    while ended is None:
        try:
            if turn == at:
                delivered = made.delivered
                reading.throw(asyncio.CancelledError())
            else:
                reading.send(None)
        except StopIteration:
            ended = "finished"
        except asyncio.CancelledError:
            ended = "cancelled"
        turn += 1
    assert upstream.closed
    if ended == "cancelled":
        assert made.delivered == delivered
    else:
        assert turn <= at + 1
        assert made.finish is not None


@seed(SEED + 2)
@QUICK
@given(number=NUMBERS)
def test_a_reader_cancelled_at_any_await(guards: Guards, number: int) -> None:
    cancelled(guards, number)


@pytest.mark.slow
@seed(SEED + 3)
@MANY
@given(number=NUMBERS)
def test_thousands_of_readers_cancelled(guards: Guards, number: int) -> None:
    cancelled(guards, number)


@seed(SEED + 4)
@QUICK
@given(number=NUMBERS)
def test_a_reader_who_closes_early(guards: Guards, number: int) -> None:
    made = case(guards, number)
    upstream = Upstream(made, number)
    reading = iter(stream_of(made, upstream, _sync_stream))
    for _ in range(random.Random(number).randint(0, 10)):
        out = next(reading, None)
        if out is None:
            break
        made.take(out)
    started = bool(made.reader.text) or made.records.decisions
    reading.close()  # type: ignore[attr-defined]
    assert upstream.closed or not started
