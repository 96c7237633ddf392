"""Nothing disallowed leaves a stream, whatever the cuts, the policy and the verdicts; what is clean leaves as it came."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from stream_harness import MARKER, REFUSAL, Case, Guards, action_of, case, cuts, events_of

from guardrail.clients.driving import pump
from guardrail.types import Action

SEED = 20261121  # with the numbers that it draws, every case can be made again


class OneVector:
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 1), dtype=np.float32)


@pytest.fixture(scope="module")
def guards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guards]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guardrail.encoder.load_encoder", lambda *_: OneVector())
        yield Guards(tmp_path_factory.mktemp("guards"))


def deliver(made: Case, number: int) -> None:
    """The whole stream, cut as the number says."""
    events = events_of(made)
    for data in cuts(made.data, number):
        for out in pump(made.exchange, events.receive(data)):
            made.take(out)
        if events.stopped:
            return
    for out in pump(made.exchange, events.finish()):
        made.take(out)


def check(guards: Guards, number: int) -> None:
    made = case(guards, number)
    deliver(made, number)
    worst = max((action_of(sentence, made.ladder) for sentence in made.batches), default=Action.ALLOW)
    assert made.finish == ("content_filter" if worst >= Action.ESCALATE else "stop")
    if worst < Action.REDACT:
        assert made.delivered == made.text
    elif worst < Action.ESCALATE:
        assert made.delivered.endswith(MARKER) == (made.exchange.marker == MARKER)
    else:
        assert REFUSAL in made.delivered
    judged = "".join("".join(decision.source.split()) for decision in made.records.decisions)
    assert "".join(made.text.split()).startswith(judged)
    if worst < Action.ESCALATE:
        assert judged == "".join(made.text.split())
    outcome = made.exchange.ledger.outcome
    assert [decision.id for decision in outcome.decisions] == [decision.id for decision in made.records.decisions]


@seed(SEED)
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 2**32))
def test_streams(guards: Guards, number: int) -> None:
    check(guards, number)


@pytest.mark.slow
@seed(SEED + 1)
@settings(max_examples=6_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 2**32))
def test_thousands_of_streams(guards: Guards, number: int) -> None:
    check(guards, number)
