"""What the engine really decides, recorded and read back."""

from __future__ import annotations

from pathlib import Path

from guardrail.audit.store import AuditStore
from guardrail.engine import Guardrail
from guardrail.policy import load_policy
from guardrail.settings import load_settings
from guardrail.types import Passage, Stage, State

POLICY = """
policy: garden
classifiers:
  sprouts: {kind: pattern, words: [sprouts]}
  weeds: {kind: pattern, words: [bindweed]}
rules:
  vegetables: {stages: [input, output], weights: {sprouts: 1.0}, thresholds: {redact: 0.5}, description: No sprouts.}
  plants: {stages: [output], weights: {weeds: 1.0}, thresholds: {block: 0.5}}
rewrite: {order: [redact]}
refusal: Not in this garden.
"""


def test_decisions_of_the_engine(store: AuditStore, tmp_path: Path) -> None:
    file = tmp_path / "garden.yaml"
    file.write_text(POLICY, encoding="utf-8")
    guard = Guardrail(load_policy(file), settings=load_settings(environ={}), community="gardeners", audit=store)
    texts = ["More tomatoes, please.", "More bindweed, please.", "\x00 \ud800 bindweed"]
    made = guard.moderate(
        [*(Passage(text) for text in texts), Passage("", unscanned="image/png"), Passage("x", Stage.TOOL_CALL)],
        request_id="call-1",
        conversation="talk-1",
    )
    assert store.verify().ok
    for position, decision in enumerate(made, start=1):
        found = store.get(decision.id)
        assert found is not None
        assert found.sequence == position
        assert (found.request_id, found.conversation, found.community) == ("call-1", "talk-1", "gardeners")
        assert (found.state, found.action, found.note) == (decision.state, decision.action, decision.note)
        assert (found.source_text, found.delivered_text) == (decision.source, decision.delivered)
        assert found.reasons == decision.reasons
        assert dict(found.models) == dict(decision.models)
    states = [decision.state for decision in made]
    assert states == [State.ALLOWED, State.BLOCKED, State.BLOCKED, State.NOT_SCANNED, State.NOT_SCANNED]
    assert [one.id for one in store.list(rule="plants").items] == [made[2].id, made[1].id] or made[
        1
    ].created_at == made[2].created_at
