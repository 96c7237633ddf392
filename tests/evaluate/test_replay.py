"""Replay and reproduction of what the engine really decided, with the embedded encoder and the shipped heads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from guardrail.assembly import assemble
from guardrail.audit.erasure import erase
from guardrail.audit.people import People
from guardrail.audit.query import Filters
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.tables import decisions
from guardrail.cli.app import app
from guardrail.engine import Guardrail
from guardrail.errors import ConfigurationError
from guardrail.evaluate.replay import Replay, replay
from guardrail.evaluate.reproduce import reproduce
from guardrail.policy import Policy, load_policy
from guardrail.settings import Settings, load_settings
from guardrail.types import Action, Passage, Stage

POLICY = """
policy: club
classifiers:
  toxicity: {{kind: linear}}
  insult: {{kind: linear}}
  sprouts: {{kind: pattern, words: [{word}]}}
rules:
  harassment: {{stages: [input, output], weights: {{toxicity: 1.0, insult: 1.0}}, thresholds: {{flag: 0.3, redact: {redact}}}}}
  vegetables: {{stages: [output], weights: {{sprouts: 1.0}}, thresholds: {{block: 0.5}}}}
rewrite: {{order: [redact]}}
"""
TEXTS = [
    "Good morning to all of you.",
    "You are a stupid idiot and nobody likes you.",
    "The meeting is at ten. You complete moron, be there. Thank you.",
    "I do not agree with this at all.",
    "Brussels sprouts again.",
    "y0u 1d10t",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


def policy_file(folder: Path, name: str, word: str = "sprouts", redact: float = 0.6) -> Policy:
    file = folder / f"{name}.yaml"
    file.write_text(POLICY.format(word=word, redact=redact), encoding="utf-8")
    return load_policy(file)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(overrides={"audit.store_embeddings": True}, environ={})


@pytest.fixture(scope="module")
def club(folder: Path) -> Policy:
    return policy_file(folder, "club")


@pytest.fixture(scope="module")
def store(folder: Path, club: Policy, settings: Settings) -> Iterator[AuditStore]:
    with open_store(f"sqlite:///{folder / 'audit.sqlite'}", store_embeddings=True, timeout=60.0) as opened:
        guard = Guardrail(club, settings=settings, community="club", audit=opened)
        made = guard.moderate([Passage(text) for text in TEXTS])
        guard.moderate([Passage(TEXTS[1], Stage.INPUT), Passage("", unscanned="image/png")])
        with People(opened).change() as change:
            change.review(made[1].id, reviewer="ann", verdict="uphold")
            change.review(made[0].id, reviewer="ann", verdict="uphold")
            change.review(made[3].id, reviewer="ann", verdict="overturn")
            change.review(made[3].id, reviewer="ann", verdict="uphold")  # changed her mind
        yield opened


def run(store: AuditStore, policy: Policy, settings: Settings, **options: object) -> Replay:
    with store.engine.connect() as connection:
        return replay(connection, assemble(policy, settings), Filters(), **options)  # type: ignore[arg-type]


def test_the_same_policy_changes_nothing(store: AuditStore, club: Policy, settings: Settings) -> None:
    assert store.verify().ok
    found = run(store, club, settings, from_texts=False, check=10)
    assert found.replayed == 7
    assert found.skipped == {"not a text, or not scanned": 1}
    assert found.changed == 0
    assert found.moved[Action.REDACT, Action.REDACT] >= 2
    assert found.moved[Action.BLOCK, Action.BLOCK] == 1
    assert found.human["before"] == found.human["after"] == {"tp": 1, "tn": 2}
    assert found.check["texts"] == 7
    assert found.check["equal"] == 1.0
    assert found.check["largest_difference"] < 0.01  # half precision


def test_a_stricter_and_a_laxer_draft(store: AuditStore, folder: Path, settings: Settings) -> None:
    laxer = run(store, policy_file(folder, "laxer", redact=0.9999), settings)
    assert laxer.moved[Action.REDACT, Action.FLAG] >= 2
    assert laxer.human["after"]["fn"] == 1
    assert {one.after for one in laxer.examples} == {Action.FLAG}
    stricter = run(store, policy_file(folder, "stricter", redact=0.31), settings)
    assert stricter.changed == sum(n for (a, b), n in stricter.moved.items() if b > a)


def test_another_word_list_is_asked_again(store: AuditStore, folder: Path, settings: Settings) -> None:
    other = policy_file(folder, "other", word="meeting")
    without = run(store, other, settings, from_texts=False)
    assert without.skipped["a classifier that is not linear was another one then"] == 6
    found = run(store, other, settings)
    assert (found.replayed, found.from_texts) == (7, 6)
    assert found.moved[Action.BLOCK, Action.ALLOW] == 1
    assert found.moved[Action.REDACT, Action.BLOCK] == 1


def test_what_was_erased_is_left_out(folder: Path, club: Policy, settings: Settings) -> None:
    with open_store(f"sqlite:///{folder / 'erased.sqlite'}", store_embeddings=True, timeout=60.0) as opened:
        guard = Guardrail(club, settings=settings, community="club", audit=opened)
        guard.moderate([Passage(TEXTS[1])], subject="ann")
        guard.moderate([Passage(TEXTS[0])], subject="bob")
        erase(opened, by="root", subject="ann")
        found = run(opened, club, settings)
        assert (found.replayed, dict(found.skipped)) == (1, {"no embedding is stored": 1})


def test_decisions_are_reproduced_exactly(store: AuditStore, club: Policy, settings: Settings) -> None:
    for one in store.list(stage=Stage.OUTPUT).items:
        found = store.get(one.id)
        assert found is not None
        if found.state != "not_scanned":
            assert reproduce(store, found, settings, club) == []


def test_what_differs_is_named(store: AuditStore, club: Policy, folder: Path, settings: Settings) -> None:
    rude = next(one for one in store.list(stage=Stage.OUTPUT).items if one.source_text == TEXTS[1])
    found = store.get(rude.id)
    assert found is not None
    edited = policy_file(folder, "edited", redact=0.99)
    assert reproduce(store, found, settings, edited) == []  # the revision on record is used, not the edited file
    with store.engine.begin() as connection:
        connection.execute(update(decisions).where(decisions.c.id == rude.id).values(risk=0.123, state="blocked"))
    forged = store.get(rude.id)
    assert forged is not None
    assert {one.what for one in reproduce(store, forged, settings, club)} == {"risk", "state"}
    with store.engine.begin() as connection:
        values = {"risk": found.risk, "state": found.state.value}
        connection.execute(update(decisions).where(decisions.c.id == rude.id).values(values))
    assert store.verify().ok


def test_a_text_that_is_not_stored_cannot_be_reproduced(folder: Path, club: Policy, settings: Settings) -> None:
    with open_store(f"sqlite:///{folder / 'bare.sqlite'}", store_text=False, timeout=60.0) as opened:
        guard = Guardrail(club, settings=settings, audit=opened)
        key = guard.moderate([Passage(TEXTS[0])])[0].id
        found = opened.get(key)
        assert found is not None
        with pytest.raises(ConfigurationError, match="its text is not stored"):
            reproduce(opened, found, settings, club)


def test_the_commands(store: AuditStore, folder: Path) -> None:
    url = f"sqlite:///{folder / 'audit.sqlite'}"
    laxer = str(folder / "laxer.yaml")
    policy_file(folder, "laxer", redact=0.9999)
    done = CliRunner().invoke(app, ["audit", "replay", "--policy", laxer, "--url", url, "--check", "3", "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["replayed"] == 7
    assert shown["changed"] >= 2
    assert shown["examples"][0]["after"] == "flag"
    done = CliRunner().invoke(app, ["audit", "replay", "--policy", laxer, "--url", url])
    assert "would change" in done.stdout
    key = store.list(stage=Stage.INPUT).items[0].id
    command = ["audit", "reproduce", key, "--url", url, "--policy", str(folder / "club.yaml")]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout.strip()) == (0, "equal"), done.output
    done = CliRunner().invoke(app, [*command[:2], "nothing", *command[3:]])
    assert done.exit_code == 2
