"""`learn --diffusion` on the shipped checkpoint: from choices on record to a checkpoint, or a refusal."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail.audit.people import People
from guardrail.audit.store import AuditStore, open_store
from guardrail.cli.app import app
from guardrail.dglm import checkpoint
from guardrail.dglm.diffusion_checkpoint import FILE, load_diffusion, read_diffusion_metadata
from guardrail.dglm.pipeline import load_pipeline
from guardrail.encoder import load_encoder
from guardrail.errors import DataError
from guardrail.learn import preferred
from guardrail.learn.choices import choices_of
from guardrail.learn.preference import Tuning
from guardrail.learn.preferred import learn_diffusion
from guardrail.learn.preferred_card import Limits, PreferenceLearned
from guardrail.policy import Policy, load_policy
from guardrail.policy.corpus import Case
from guardrail.settings import Settings
from guardrail.types import Action, Candidate, Decision, Reason, Rewrite, Stage, State

TASKS = (
    "restart the router", "read the manual", "check the cable", "open the window", "close the ticket", "call the office",
    "write a letter", "feed the cat", "wash the car", "fix the bug", "clean the room", "paint the wall",
)  # fmt: skip
TIMES = ("first", "today", "again", "soon", "later")
QUICK = Tuning(steps=20)
MADE = len(TASKS) * len(TIMES)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy("general")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    texts = ("You are a worthless idiot.", "Shut up, you stupid moron.", "You are pathetic and everybody hates you.")
    return [Case(text=text, expect=("act",), rule="harassment") for text in texts]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}", timeout=60.0) as opened:
        yield opened


def decide(policy: Policy, number: int, what: str, when: str) -> Decision:
    """A rewritten draft with a polite candidate (1) and a curt one (2)."""
    source = f"Listen. You idiot, {what} {when}."
    polite, curt = f"Could you please {what} {when}?", f"Just {what} {when}, will you."
    candidates = (
        Candidate(polite, "dglm", 0.05, True, 0.7, -2.5, 0.6, {}, 1),
        Candidate(curt, "dglm", 0.06, True, 0.7, -2.5, 0.6, {}, 2),
    )
    rewrite = Rewrite(source, f"Listen. {polite}", "dglm", 0.8, 0.9, 0.05, candidates, (((8, len(source)), polite),), 1)
    reason = Reason("harassment", Stage.OUTPUT, Action.REWRITE, 0.9, 0.6, {"toxicity": 1.7}, ((8, len(source)),), "")
    return Decision(
        id=f"choice-{number:03d}", action=Action.REWRITE, state=State.REWRITTEN, risk=0.9, stage=Stage.OUTPUT,
        policy=policy.name, revision=policy.revision, text=f"Listen. {polite}", source=source, reasons=(reason,),
        rewrite=rewrite, request_id="r", created_at=time.time(),
    )  # fmt: skip


def choose(store: AuditStore, policy: Policy, who: dict[str, Callable[[int], int]]) -> None:
    """Record drafts and what reviewers prefer: 1 the polite rewrite, 2 the curt one, 0 neither."""
    made = [decide(policy, number, *both) for number, both in enumerate(itertools.product(TASKS, TIMES))]
    store.record(made, policy=policy, community="c")
    with People(store).change() as change:
        for number, decision in enumerate(made):
            for reviewer, preference in who.items():
                if better := preference(number):
                    change.review(decision.id, reviewer=reviewer, verdict="prefer", preferred=better, over=3 - better)


def polite(number: int) -> int:
    return 1


def pointing_to(folder: Path) -> Settings:
    return Settings.model_validate({"rewriter": {"checkpoint": str(folder)}})


def learned(
    store: AuditStore, policy: Policy, out: Path, cases: Sequence[Case], settings: Settings | None = None, **limits: Any
) -> PreferenceLearned:
    limits = {"tuning": QUICK} | limits
    return learn_diffusion(store, policy, settings or Settings(), out, cases, limits=Limits(**limits))


def test_choices_are_read_with_what_stood_before_and_the_last_word_counts(store: AuditStore, policy: Policy) -> None:
    choose(store, policy, {"a": polite})
    with People(store).change() as change:
        change.review("choice-000", reviewer="a", verdict="prefer", preferred=2, over=1)
    with store.engine.connect() as connection:
        found = {one.decision: one for one in choices_of(connection)}
        assert choices_of(connection, "elsewhere") == []
    assert len(found) == MADE
    assert found["choice-000"].chosen == "Just restart the router first, will you."
    assert found["choice-001"].chosen == "Could you please restart the router today?"
    assert found["choice-001"].before == "Listen. "


def test_a_checkpoint_is_written_that_prefers_what_people_chose(
    store: AuditStore, policy: Policy, cases: list[Case], tmp_path: Path
) -> None:
    shipped = checkpoint.locate("mini")
    before = hashlib.sha256((shipped / FILE).read_bytes()).hexdigest()
    choose(store, policy, {"a": polite, "b": polite, "c": polite})
    found = learned(store, policy, tmp_path / "new", cases)
    assert found.refused == ""
    assert (found.choices, found.reviewers) == (3 * MADE, 3)
    assert found.pairs + found.aside == MADE
    assert found.accuracy[1] > found.accuracy[0]
    assert found.loss < 0.6
    assert 0 < found.divergence <= QUICK.bound
    assert set(found.control) == {"edit", "continue"}

    metadata = read_diffusion_metadata(tmp_path / "new")
    assert metadata["recipe"]["preference"]["parent_sha256"] == before
    assert before in (tmp_path / "new" / "DIFFUSION.md").read_text(encoding="utf-8")
    assert hashlib.sha256((shipped / FILE).read_bytes()).hexdigest() == before
    encoder = load_encoder(device="cpu")
    written = load_diffusion(tmp_path / "new", encoder.sha256, "cpu")
    assert written.sha256 != before
    assert written.student is None
    pipeline = load_pipeline(str(tmp_path / "new"), "all-MiniLM-L6-v2", "cpu")  # what `rewriter.checkpoint` points to
    assert pipeline.diffusion.sha256 == written.sha256

    # The next round starts at the base again, not at what it has learned: the same choices, the same network.
    again = learned(store, policy, tmp_path / "next", cases, pointing_to(tmp_path / "new"))
    assert again.divergence == pytest.approx(found.divergence, rel=1e-3)
    assert read_diffusion_metadata(tmp_path / "next")["recipe"]["preference"]["parent_sha256"] == before
    with pytest.raises(DataError, match="learned from"):
        learned(store, policy, tmp_path / "next", cases, pointing_to(tmp_path / "next"))


def test_one_reviewer_against_three_changes_nothing_in_the_outcome(
    store: AuditStore, policy: Policy, cases: list[Case], tmp_path: Path
) -> None:
    """The attacker says the opposite of everything, also where nobody else has spoken."""
    half = lambda number: 1 if number % 2 else 0  # noqa: E731
    choose(store, policy, {"a": half, "b": half, "c": half, "attacker": lambda _number: 2})
    found = learned(store, policy, tmp_path / "new", cases)
    honest = learned_margin(store, policy, tmp_path / "new" if not found.refused else None)
    assert honest >= learned_margin(store, policy, None)


def learned_margin(store: AuditStore, policy: Policy, folder: Path | None) -> float:
    """Share of all drafts' pairs that a checkpoint denoises in favour of the polite text."""
    from guardrail.learn.choices import Pair
    from guardrail.learn.preference import accuracy, margins

    encoder = load_encoder(device="cpu")
    diffusion = load_diffusion(folder or checkpoint.locate("mini"), encoder.sha256, "cpu")
    made = [
        Pair("d", f"Could you please {what} {when}?", f"Just {what} {when}, will you.", "Listen. ", 1.0)
        for what, when in itertools.product(TASKS, TIMES)
    ]
    latents = preferred._latents(made, encoder, diffusion.statistics)
    assert diffusion.network is not None
    return accuracy(margins(diffusion.network, latents), latents.weight)


def test_control_that_gets_worse_is_refused_and_nothing_is_written(
    store: AuditStore, policy: Policy, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(store, policy, {"a": polite, "b": polite, "c": polite})
    measured = iter((0.9, 0.8, 0.9, 0.9))  # edit before and after, continue before and after
    monkeypatch.setattr(preferred, "_control", lambda *_: next(measured))
    found = learned(store, policy, tmp_path / "new", cases)
    assert found.refused == "control on the safety set got worse: edit"
    assert found.checkpoint is None
    assert not (tmp_path / "new").exists()


def test_a_coin_is_no_preference(store: AuditStore, policy: Policy, cases: list[Case], tmp_path: Path) -> None:
    """Choices without a pattern: what was learned does not hold on those kept aside, or hardly moves anything."""
    coin = lambda salt: lambda number: 1 + hashlib.sha256(f"{salt}{number}".encode()).digest()[0] % 2  # noqa: E731
    choose(store, policy, dict.fromkeys("abc", coin("same")))
    found = learned(store, policy, tmp_path / "new", cases)
    assert found.refused or abs(found.accuracy[1] - found.accuracy[0]) < 0.5


@pytest.mark.parametrize(
    ("who", "message"),
    [
        ({}, "0 reviewers"),
        ({"a": polite, "b": polite}, "2 reviewers"),
        ({n: (lambda k: int(k < 9)) for n in "abc"}, "pairs"),
    ],
)
def test_too_little_is_said(
    store: AuditStore, policy: Policy, cases: list[Case], tmp_path: Path, who: Any, message: str
) -> None:
    choose(store, policy, who)
    with pytest.raises(DataError, match=message):
        learned(store, policy, tmp_path / "new", cases)


def test_examples_without_a_rule_show_nothing(
    store: AuditStore, policy: Policy, cases: list[Case], tmp_path: Path
) -> None:
    choose(store, policy, {"a": polite, "b": polite, "c": polite})
    with pytest.raises(DataError, match="nothing shows"):
        learned(store, policy, tmp_path / "new", [case.model_copy(update={"rule": None}) for case in cases])


def test_the_command_writes_a_checkpoint(store: AuditStore, policy: Policy, tmp_path: Path) -> None:
    choose(store, policy, {"a": polite, "b": polite, "c": polite})
    url = store.engine.url.render_as_string(hide_password=False)
    words = ["learn", "--diffusion", "--policy", "general", "--out", str(tmp_path / "new"), "--url", url, "--json"]
    done = CliRunner().invoke(app, [*words, "--kl", "0.3"])
    said = json.loads(done.stdout)
    assert said["divergence"] <= 0.3
    assert done.exit_code == (1 if said["refused"] else 0), done.output
    assert (tmp_path / "new" / FILE).is_file() == (not said["refused"])
