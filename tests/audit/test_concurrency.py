"""Many threads, many processes, and processes that die: every decision once, and the chain stays whole."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from guardrail.audit.store import AuditStore, open_store
from guardrail.errors import AuditUnavailable
from guardrail.policy import Policy
from guardrail.types import Decision

Make = Callable[..., Decision]

RECORDER = Path(__file__).parent / "recorder.py"


def start(url: str, community: str, prefix: str, count: int, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(RECORDER), url, community, prefix, str(count), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output.split()


def ids(store: AuditStore) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page = store.list(limit=500, after=after)
        found += [one.id for one in page.items]
        after = page.next
        if after is None:
            return found


def test_eight_threads(store: AuditStore, policy: Policy, decide: Make) -> None:
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for index in range(20):
                made = [decide(id=f"t{thread}-{index}-{part}") for part in range(1 + index % 3)]
                store.record(made, policy=policy, community=f"community-{index % 2}")
        except BaseException as error:  # noqa: BLE001 - reported below, in the thread that can
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = ids(store)
    expected = {
        f"t{thread}-{index}-{part}" for thread in range(8) for index in range(20) for part in range(1 + index % 3)
    }
    assert len(found) == len(expected)
    assert set(found) == expected
    verified = store.verify()
    assert verified.ok, verified.problems
    for thread in range(8):  # what one thread did one after the other stands in that order
        places = [one.sequence for index in range(0, 20, 2) if (one := store.get(f"t{thread}-{index}-0")) is not None]
        assert places == sorted(places)


def test_a_bad_call_does_not_harm_those_committed_with_it(store: AuditStore, policy: Policy, decide: Make) -> None:
    store.record([decide(id="taken")], policy=policy, community="gamers")
    refused: list[str] = []

    def work(number: int) -> None:
        for index in range(10):
            bad = index % 3 == 0
            try:
                store.record([decide(id="taken" if bad else f"{number}-{index}")], policy=policy, community="gamers")
            except Exception as error:  # noqa: BLE001 - counted below
                refused.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 6 * 4
    assert all("'taken' is already on record" in message for message in refused)
    assert len(ids(store)) == 1 + 6 * 6
    assert store.verify().ok


def test_two_processes_on_one_database(url: str) -> None:
    processes = [start(url, "gamers", prefix, 30) for prefix in ("a", "b")]
    printed = [key for process in processes for key in finish(process)]
    assert len(printed) == 60
    with open_store(url) as store:
        assert sorted(ids(store)) == sorted(printed)
        found = store.verify()
        assert found.ok, found.problems
        assert [(one.community, one.sequence) for one in found.chains] == [("gamers", 60)]


def test_a_killed_writer_loses_nothing_that_it_was_told_is_recorded(url: str) -> None:
    for attempt, survivors in enumerate((1, 20)):
        process = start(url, "gamers", f"kill-{attempt}", 100_000)
        assert process.stdout is not None
        printed = [process.stdout.readline().strip() for _ in range(survivors)]
        process.kill()
        printed += process.stdout.read().split("\n")[:-1]  # told before the signal arrived; a last line may be cut
        process.wait()
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()
        with open_store(url) as store:
            recorded = set(ids(store))
            assert len(printed) >= survivors
            assert set(printed) <= recorded
            # At most one more: the call that the signal interrupted between its commit and its return.
            mine = {key for key in recorded if key.startswith(f"kill-{attempt}-")}
            assert len(mine) - len(printed) in {0, 1}
            assert store.verify().ok


def test_a_forked_process_gets_connections_of_its_own(url: str) -> None:
    printed = finish(start(url, "gamers", "fork", 15, "--fork"))
    assert len(printed) == 31
    with open_store(url) as store:
        assert sorted(ids(store)) == sorted(printed)
        assert store.verify().ok


def test_processes_that_open_a_blank_file_at_once_migrate_it_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    processes = [start(url, "gamers", f"p{number}", 2) for number in range(4)]
    assert sum(len(finish(process)) for process in processes) == 8
    with open_store(url) as store:
        assert store.verify().decisions == 8
        assert store.verify().ok


def test_an_id_twice_in_one_call(store: AuditStore, policy: Policy, decide: Make) -> None:
    with pytest.raises(AuditUnavailable, match=r"'twin' is already on record .* or comes twice in one call"):
        store.record([decide(id="twin"), decide(), decide(id="twin")], policy=policy, community="gamers")
    assert ids(store) == []


@pytest.mark.parametrize("count", [1, 1000])
def test_one_call_is_one_transaction(store: AuditStore, policy: Policy, decide: Make, count: int) -> None:
    taken = decide()
    store.record([taken], policy=policy, community="gamers")
    with pytest.raises(Exception, match="already on record"):
        store.record([*(decide() for _ in range(count)), taken], policy=policy, community="gamers")
    assert ids(store) == [taken.id]
