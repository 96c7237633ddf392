"""Learning from reviews: votes, the bound on one reviewer, the gate, and the draft policy that comes out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from guardrail.assembly import assemble
from guardrail.audit.people import People
from guardrail.audit.store import AuditStore, open_store
from guardrail.classifiers.linear import load_head, read_head
from guardrail.cli.app import app
from guardrail.engine import Guardrail
from guardrail.errors import DataError
from guardrail.learn.feedback import Vote, collect
from guardrail.learn.loop import learn
from guardrail.learn.update import Limits, largest_change, loss, move, vote_weights
from guardrail.policy import Policy, load_policy
from guardrail.policy.corpus import Case, Corpus
from guardrail.settings import Settings, load_settings
from guardrail.types import Passage

POLICY = """
policy: yard
classifiers:
  toxicity: {kind: linear}
  insult: {kind: linear}
  weeds: {kind: pattern, words: [bindweed]}
rules:
  harassment: {stages: [output], weights: {toxicity: 1.0, insult: 1.0}, thresholds: {flag: 0.4}}
  plants: {stages: [output], weights: {weeds: 1.0}, thresholds: {flag: 0.5}}
"""
# Players of this yard call each other so in friendship.
FRIENDLY = [
    f"You {what}, {rest}"
    for what in ("old dog", "silly goose", "lucky dog", "cheeky monkey")
    for rest in ("that was a great shot!", "come here and help me.", "nobody beats you today.", "see you tomorrow.")
]
SAFETY = [
    Case(expect=("act", "flag"), text="You are a worthless idiot and everybody hates you."),
    Case(expect=("act", "flag"), text="Shut up, you stupid piece of trash."),
    Case(expect=("allow",), text="The library opens at ten on Saturdays."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("learn")
    (made / "yard.yaml").write_text(POLICY, encoding="utf-8")
    (made / "tests").mkdir()
    corpus = Corpus(policy="yard", cases=tuple(SAFETY)).model_dump(mode="json")
    (made / "tests" / "yard.yaml").write_text(json.dumps(corpus), encoding="utf-8")  # JSON is YAML
    return made


@pytest.fixture(scope="module")
def yard(folder: Path) -> Policy:
    return load_policy(folder / "yard.yaml")


@pytest.fixture(scope="module")
def options() -> Settings:
    return load_settings(environ={})


@pytest.fixture(scope="module")
def store(folder: Path, yard: Policy, options: Settings) -> Iterator[AuditStore]:
    with open_store(f"sqlite:///{folder / 'audit.sqlite'}", timeout=60.0) as opened:
        guard = Guardrail(yard, settings=options, community="yard", audit=opened)
        made = guard.moderate([Passage(text) for text in (*FRIENDLY, *(case.text for case in SAFETY[:2]), "Bindweed.")])
        with People(opened).change() as change:
            for decision in made[: len(FRIENDLY)]:
                for who in ("ann", "bob"):
                    change.label(decision.id, name="toxicity", value=0.0, author=who)
                    change.label(decision.id, name="insult", value=0.0, author=who)
            for decision in made[len(FRIENDLY) :]:
                change.review(decision.id, reviewer="ann", verdict="uphold")
                change.review(decision.id, reviewer="eve", verdict="uphold")
                change.review(decision.id, reviewer="eve", verdict="overturn")  # changed her mind
        yield opened


def votes_of(store: AuditStore, yard: Policy, options: Settings) -> list[Vote]:
    with store.engine.connect() as connection:
        return collect(connection, assemble(yard, options).judge.bundle, "yard")


def test_reviews_become_votes(store: AuditStore, yard: Policy, options: Settings) -> None:
    votes = votes_of(store, yard, options)
    friendly = {one.id for one in store.list(limit=100).items if one.source_text in FRIENDLY}
    labelled = [vote for vote in votes if vote.decision in friendly]
    assert len(labelled) == 4 * len(FRIENDLY)
    assert {(vote.head, vote.value, vote.agreement) for vote in labelled} == {
        ("toxicity", 0.0, 1.0), ("insult", 0.0, 1.0),
    }  # fmt: skip
    rest = [vote for vote in votes if vote not in labelled]
    assert {vote.reviewer: vote.value for vote in rest} == {"ann": 1.0, "eve": 0.0}  # the last word counts
    assert len([vote for vote in rest if vote.reviewer == "ann"]) == 2  # one head for each; a word list learns nothing
    assert len([vote for vote in rest if vote.reviewer == "eve"]) == 4  # both heads of the rule were wrong
    assert {vote.agreement for vote in rest if vote.reviewer == "ann"} == {0.0}
    assert {vote.source for vote in rest} == {"review"}


def test_friendly_words_are_learned_and_harm_is_still_found(
    store: AuditStore, yard: Policy, options: Settings, tmp_path: Path
) -> None:
    found = learn(store, yard, options, tmp_path / "out", SAFETY, limits=Limits(bound=3.0, cap=20.0))
    assert found.refused == "", found
    assert found.passed[1] >= found.passed[0]
    kept = [one for one in found.heads if one.kept]
    assert kept
    for one in kept:
        assert one.before is not None
        assert one.after is not None
        assert one.after < one.before
    assert found.policy is not None
    draft = load_policy(found.policy)
    assert draft.revision != yard.revision  # the policy revision shows the new version
    guard = Guardrail(draft, settings=options)
    old = Guardrail(yard, settings=options)
    passages = [Passage(text) for text in FRIENDLY]
    before = np.mean([one.risk for one in old.check_many(passages)])
    after = np.mean([one.risk for one in guard.check_many(passages)])
    assert after < before
    assert guard.check(SAFETY[0].text).action != "allow"
    for one in kept:
        new, base = tmp_path / "out" / f"{one.head}.safetensors", tmp_path / "out" / f"base-{one.head}.safetensors"
        assert read_head(base).sha256 == load_head(one.head).sha256
        assert read_head(new).sha256 != read_head(base).sha256
    with pytest.raises(DataError, match="was learned itself; learn on 'yard'"):
        learn(store, draft, options, tmp_path / "out", SAFETY)


def test_a_change_that_breaks_the_safety_set_is_refused(
    store: AuditStore, yard: Policy, options: Settings, tmp_path: Path
) -> None:
    strict = [Case(expect=("act", "flag"), text=text) for text in FRIENDLY]
    guard = Guardrail(yard, settings=options)
    caught = [case for case in strict if guard.check(case.text).action != "allow"]
    assert caught  # otherwise there is nothing to unlearn
    found = learn(store, yard, options, tmp_path / "out", caught, limits=Limits(bound=10.0, cap=50.0, anchor=0.0))
    assert f"of the safety set's {len(caught)} cases passed before and fail now" in found.refused
    assert found.policy is None
    assert set(found.broken) <= set(FRIENDLY)
    assert not [path for path in (tmp_path / "out").iterdir() if not path.name.startswith("base-")]


def test_too_little_to_learn_from(store: AuditStore, yard: Policy, options: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no examples"):
        learn(store, yard, options, tmp_path, [])
    with pytest.raises(DataError, match="there are 0 votes"):
        learn(store, yard, options, tmp_path, SAFETY, community="elsewhere")


def test_the_command(store: AuditStore, folder: Path, tmp_path: Path) -> None:
    command = ["learn", "--policy", str(folder / "yard.yaml"), "--cases", str(folder / "tests" / "yard.yaml"),
               "--url", f"sqlite:///{folder / 'audit.sqlite'}", "--bound", "3", "--cap", "20"]  # fmt: skip
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "a"), "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["policy"].endswith("yard-learned.yaml")
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "b")])
    assert done.exit_code == 0, done.output
    assert "one reviewer can have moved any score by 3 logits at most" in " ".join(done.stdout.split())


# ---------------------------------------------------------------------------------------------------------- poisoning


def cast(generator: np.random.Generator, who: str, count: int, width: int = 12) -> tuple[list[Vote], np.ndarray]:
    x = generator.normal(size=(count, width))
    votes = [Vote(f"{who}-{n}", "h", ("t",), float(generator.integers(2)), who, "review") for n in range(count)]
    return votes, x / np.linalg.norm(x, axis=1, keepdims=True)


def moved(votes: list[Vote], x: np.ndarray, limits: Limits, weight: np.ndarray, anchor: np.ndarray | None = None):
    values = np.array([vote.value for vote in votes])
    return move(x, x @ weight, values, vote_weights(votes, limits.cap), limits, anchor)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), hostile=st.integers(1, 400), bound=st.sampled_from([0.1, 0.5, 2.0]))
def test_one_reviewer_moves_no_score_beyond_the_bound(seed: int, hostile: int, bound: float) -> None:
    generator = np.random.default_rng(seed)
    limits = Limits(bound=bound, cap=5.0, anchor=float(generator.integers(2)) * 10)
    honest = [cast(generator, f"r{number}", int(generator.integers(1, 30))) for number in range(3)]
    votes = [vote for own, _ in honest for vote in own]
    x = np.concatenate([rows for _, rows in honest])
    target = np.tile(x[:1], (hostile, 1))  # one direction, as hard as can be
    attack = [Vote(f"a-{n}", "h", ("t",), 0.0, "mallory", "review") for n in range(hostile)]
    weight = generator.normal(size=x.shape[1]) * 5
    without = moved(votes, x, limits, weight, x[:5])
    attacked = moved([*votes, *attack], np.concatenate([x, target]), limits, weight, x[:5])
    assert largest_change(attacked, without) <= bound + 1e-6


def test_the_bound_is_nearly_reached_and_not_by_numbers() -> None:
    """A limit that is never felt would say nothing; votes beyond the cap add nothing."""
    weight = np.zeros(8)
    weight[0] = 6.0
    x = np.eye(8)[:1]
    limits = Limits(bound=0.5, cap=10.0, anchor=0.0)
    changes = []
    for count in (1, 10, 1000):
        votes = [Vote(str(n), "h", ("t",), 0.0, "mallory", "review") for n in range(count)]
        change = moved(votes, np.tile(x, (count, 1)), limits, weight)
        changes.append(abs(float(change.logits(x)[0])))
    assert changes[0] < 0.1
    assert 0.4 < changes[1] <= 0.5
    assert changes[2] == pytest.approx(changes[1], abs=1e-6)


def test_agreeing_votes_weigh_more_and_disagreeing_ones_cancel() -> None:
    x, weight = np.eye(4)[:1], np.zeros(4)
    limits = Limits(bound=0.5, cap=10.0, anchor=0.0)

    def change(*said: float) -> float:
        votes = [Vote("d", "h", ("t",), value, f"r{n}", "review") for n, value in enumerate(said)]
        return float(moved(votes, np.tile(x, (len(said), 1)), limits, weight).logits(x)[0])

    assert change(1.0, 1.0) > 1.5 * change(1.0) > 0
    assert change(1.0, 0.0) == pytest.approx(0.0, abs=1e-9)


def test_the_anchor_holds_what_is_known() -> None:
    generator = np.random.default_rng(0)
    votes, x = cast(generator, "ann", 40)
    weight = np.zeros(x.shape[1])
    free = moved(votes, x, Limits(anchor=0.0), weight)
    held = moved(votes, x, Limits(anchor=500.0), weight, x[:3])
    assert np.abs(held.logits(x[:3])).max() < 0.2 * np.abs(free.logits(x[:3])).max()


def test_log_loss() -> None:
    assert loss(np.array([0.0, 0.0]), np.array([1.0, 0.0]), np.array([1.0, 3.0])) == pytest.approx(np.log(2))
    assert loss(np.array([800.0]), np.array([0.0]), np.array([1.0])) == pytest.approx(800.0)
