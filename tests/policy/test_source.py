"""Hot reload: edits are followed, broken ones are said and survived. Time is a number that the test moves."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from guardrail.errors import PolicyError
from guardrail.policy import PolicySource

OLD = 1_000_000_000  # seconds since the epoch: long settled


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def edit(write):
    """Write a file as if it had been edited long ago, at a time of its own."""
    count = 0

    def _edit(name: str, text: str) -> Path:
        nonlocal count
        count += 1
        path = write(name, text)
        os.utime(path, (OLD + count, OLD + count))
        return path

    return _edit


def test_an_edit_is_followed_after_the_interval(edit, minimal, clock) -> None:
    edit("p.yaml", minimal)
    source = PolicySource("p.yaml", clock=clock)
    first = source.current()
    edit("p.yaml", minimal.replace("0.9", "0.95"))
    clock.now += 0.9
    assert source.current() is first
    clock.now += 0.2
    with capture_logs() as logs:
        second = source.current()
    assert second.revision != first.revision
    assert [(log["event"], log["revision"], log["was"]) for log in logs] == [
        ("policy_reloaded", second.revision, first.revision)
    ]


def test_an_untouched_file_is_not_read_again(edit, minimal, clock) -> None:
    edit("p.yaml", minimal)
    source = PolicySource("p.yaml", clock=clock)
    first = source.current()
    clock.now += 60
    assert source.current() is first


def test_a_broken_edit_keeps_the_last_good_policy_and_says_so_once(edit, minimal, clock) -> None:
    edit("p.yaml", minimal)
    source = PolicySource("p.yaml", clock=clock)
    first = source.current()
    assert source.last_error is None
    edit("p.yaml", minimal.replace("0.9", "0.1"))
    with capture_logs() as logs:
        for _ in range(3):
            clock.now += 2
            assert source.current() is first
    assert source.last_error is not None
    assert "p.yaml:8: rules.harassment.thresholds.block: 0.1 is out of order" in str(source.last_error)
    assert [(log["event"], log["log_level"], log["keeps"]) for log in logs] == [
        ("policy_reload_failed", "error", first.revision)
    ]
    edit("p.yaml", minimal.replace("0.9", "0.7"))
    clock.now += 2
    assert source.current().revision != first.revision
    assert source.last_error is None


def test_a_different_mistake_is_said_again(edit, minimal, clock) -> None:
    edit("p.yaml", minimal)
    source = PolicySource("p.yaml", clock=clock)
    source.current()
    with capture_logs() as logs:
        for text in ("policy: p\n", "nonsense", "", minimal):
            edit("p.yaml", text)
            clock.now += 2
            source.current()
    assert [log["event"] for log in logs] == ["policy_reload_failed"] * 3


def test_a_deleted_file_is_survived(edit, minimal, clock) -> None:
    path = edit("p.yaml", minimal)
    source = PolicySource("p.yaml", clock=clock)
    first = source.current()
    path.unlink()
    clock.now += 2
    assert source.current() is first
    assert "no such file" in str(source.last_error)
    edit("p.yaml", minimal)
    clock.now += 2
    assert source.current().revision == first.revision
    assert source.last_error is None


def test_parents_and_lexicons_are_followed(edit, clock) -> None:
    edit("words.txt", "one\n")
    edit(
        "base.yaml",
        "policy: base\nclassifiers: {w: {kind: pattern, lexicon: words.txt}}\n"
        "rules: {r: {weights: {w: 1}, thresholds: {block: 0.5}}}\n",
    )
    edit("p.yaml", "policy: p\nextends: base\n")
    source = PolicySource("p.yaml", clock=clock)
    revisions = [source.current().revision]
    edit("words.txt", "two\n")
    clock.now += 2
    revisions.append(source.current().revision)
    edit("base.yaml", Path("base.yaml").read_text(encoding="utf-8").replace("0.5", "0.6"))
    clock.now += 2
    revisions.append(source.current().revision)
    assert len(set(revisions)) == 3


def test_a_broken_state_that_a_new_file_mends_is_noticed(edit, minimal, clock) -> None:
    edit("p.yaml", minimal)
    source = PolicySource("p.yaml", clock=clock)
    source.current()
    edit("p.yaml", "policy: child\nextends: parent\n")
    clock.now += 2
    assert source.current().name == "p"
    edit("parent.yaml", minimal)
    clock.now += 2
    assert source.current().name == "child"


def test_a_file_that_was_just_written_is_read_once_more(write, minimal, clock) -> None:
    path = write("p.yaml", minimal)  # now: an editor may not be done with it
    source = PolicySource("p.yaml", clock=clock)
    first = source.current()
    before = path.stat()
    write("p.yaml", minimal.replace("0.9", "0.8"))  # same size, and the test makes it the same time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now += 2
    assert source.current().revision != first.revision


def test_the_first_reading_has_nothing_to_fall_back_to(edit, minimal, clock) -> None:
    edit("p.yaml", "policy: p\n")
    source = PolicySource("p.yaml", clock=clock)
    with pytest.raises(PolicyError, match="no rules"):
        source.current()
    edit("p.yaml", minimal)
    assert source.current().name == "p"


def test_making_a_source_reads_nothing() -> None:
    assert PolicySource("gone.yaml").last_error is None


def test_threads_share_one_reading(edit, minimal, clock) -> None:
    edit("p.yaml", minimal)
    source = PolicySource("p.yaml", clock=clock)
    barrier = threading.Barrier(8)
    seen: list[int] = []

    def read() -> None:
        barrier.wait()
        seen.append(id(source.current()))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
