"""Group commit: who leads, who follows, and who is told what when something goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from guardrail.audit import group as group_module
from guardrail.audit.group import CommitFailed, GroupCommit, QueueTimeout


class Disk:
    """A commit that can be held up, and that remembers what it was given."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.failure: BaseException | None = None

    def commit(self, works: Sequence[str]) -> list[Exception | None]:
        self.entered.set()
        assert self.open.wait(20)
        if self.failure is not None:
            raise self.failure
        self.groups.append(list(works))
        return [ValueError(work) if work.startswith("bad") else None for work in works]


class Caller(threading.Thread):
    def __init__(self, commits: GroupCommit[str], work: str, timeout: float = 20.0) -> None:
        super().__init__(daemon=True)
        self.commits, self.work, self.timeout = commits, work, timeout
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.commits.submit(self.work, self.timeout)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def outcome(self) -> BaseException | None:
        self.join(20)
        assert not self.is_alive()
        return self.error


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def commits(disk: Disk) -> GroupCommit[str]:
    return GroupCommit(disk.commit)


def queue(commits: GroupCommit[str], disk: Disk, works: Sequence[str], timeout: float = 20.0) -> list[Caller]:
    """Hold up a first commit and let `works` queue behind it, in order."""
    disk.entered.clear()
    disk.open.clear()
    callers = [Caller(commits, "first")]
    assert disk.entered.wait(20)
    for number, work in enumerate(works, start=1):
        callers.append(Caller(commits, work, timeout))
        while len(commits._waiting) < number and callers[-1].is_alive():
            threading.Event().wait(0.001)
    return callers


def test_one_after_the_other(commits: GroupCommit[str], disk: Disk) -> None:
    for work in ("a", "b", "c"):
        commits.submit(work, 1.0)
    assert disk.groups == [["a"], ["b"], ["c"]]


def test_what_queues_during_a_commit_goes_into_the_next_one_together(commits: GroupCommit[str], disk: Disk) -> None:
    callers = queue(commits, disk, ["a", "b", "c"])
    disk.open.set()
    assert [caller.outcome() for caller in callers] == [None] * 4
    assert disk.groups == [["first"], ["a", "b", "c"]]


def test_groups_have_a_limit(commits: GroupCommit[str], disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "MAX_GROUP", 2)
    callers = queue(commits, disk, ["a", "b", "c", "d", "e"])
    disk.open.set()
    assert [caller.outcome() for caller in callers] == [None] * 6
    assert disk.groups == [["first"], ["a", "b"], ["c", "d"], ["e"]]


def test_each_caller_gets_the_outcome_of_its_own_work(commits: GroupCommit[str], disk: Disk) -> None:
    callers = queue(commits, disk, ["a", "bad b", "c", "bad d"])
    disk.open.set()
    outcomes = [caller.outcome() for caller in callers]
    assert [str(outcome) for outcome in outcomes] == ["None", "None", "bad b", "None", "bad d"]
    commits.submit("e", 1.0)


def test_a_commit_that_breaks_off_fails_all_of_its_group_and_no_other(commits: GroupCommit[str], disk: Disk) -> None:
    callers = queue(commits, disk, ["a", "b"])
    disk.failure = MemoryError("no room")
    disk.open.set()
    for caller in callers:
        assert isinstance(caller.outcome(), CommitFailed)
    assert "MemoryError: no room" in str(callers[1].error)
    assert callers[1].error is not callers[2].error
    disk.failure = None
    commits.submit("later", 1.0)
    assert disk.groups == [["later"]]


def test_an_interrupt_belongs_to_the_leader_alone(commits: GroupCommit[str], disk: Disk) -> None:
    callers = queue(commits, disk, ["a", "b"])
    disk.failure = KeyboardInterrupt()
    disk.open.set()
    kinds = [type(caller.outcome()) for caller in callers]
    assert kinds[0] is KeyboardInterrupt  # it led its own commit
    assert sorted(kind.__name__ for kind in kinds[1:]) == ["CommitFailed", "KeyboardInterrupt"]
    disk.failure = None
    commits.submit("later", 1.0)
    assert disk.groups == [["later"]]


def test_a_leader_that_is_interrupted_before_its_commit_leaves_the_lead_to_others(
    commits: GroupCommit[str], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for caller in [*queue(commits, disk, ["a", "b"])]:
        disk.open.set()
        assert caller.outcome() is None

    def interrupted(timeout: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(commits._enough, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        commits.submit("lost", 1.0)
    monkeypatch.undo()
    commits.submit("later", 1.0)
    assert disk.groups == [["first"], ["a", "b"], ["later"]]


def test_who_waits_too_long_is_told_and_not_written(commits: GroupCommit[str], disk: Disk) -> None:
    callers = queue(commits, disk, ["late"], timeout=0.05)
    assert isinstance(callers[1].outcome(), QueueTimeout)
    disk.open.set()
    assert callers[0].outcome() is None
    commits.submit("later", 1.0)
    assert disk.groups == [["first"], ["later"]]


def test_the_lead_passes_over_who_has_left(commits: GroupCommit[str], disk: Disk) -> None:
    impatient = queue(commits, disk, ["late"], timeout=0.05)
    assert isinstance(impatient[1].outcome(), QueueTimeout)
    patient = Caller(commits, "patient")
    disk.open.set()
    assert patient.outcome() is None
    assert impatient[0].outcome() is None
    assert disk.groups == [["first"], ["patient"]]


def test_a_leader_does_not_linger_for_company_that_does_not_come(commits: GroupCommit[str], disk: Disk) -> None:
    callers = queue(commits, disk, ["a", "b", "c"])
    disk.open.set()
    for caller in callers:
        assert caller.outcome() is None
    commits.submit("alone", 1.0)  # waits LINGER once, because the last commit had company
    assert disk.groups[-1] == ["alone"]
    assert commits._last == 1
