"""`commit`, `spool` and `async`: what is safe when, what takes over in an outage, and what a crash leaves behind."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from guardrail.audit import durability
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.writer import Writer
from guardrail.errors import AuditUnavailable, ConfigurationError
from guardrail.policy import Policy
from guardrail.types import Decision, Evidence

Make = Callable[..., Decision]

_spec = importlib.util.spec_from_file_location("faults", Path(__file__).parent / "faults.py")
assert _spec is not None
assert _spec.loader is not None
faults: Any = importlib.util.module_from_spec(_spec)
sys.modules["faults"] = faults
_spec.loader.exec_module(faults)


class Outage:
    """Switches a database off: before a commit, or after it, so that only its answer is lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kind = ""
        original = Writer._transaction

        def transaction(writer: Writer, batches: Any) -> None:
            if self.kind == "before":
                raise OperationalError("BEGIN", {}, OSError("gone"))
            original(writer, batches)
            if self.kind == "after":
                raise OperationalError("COMMIT", {}, OSError("gone"))

        monkeypatch.setattr(Writer, "_transaction", transaction)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    monkeypatch.setattr(durability, "RETRY", 0.05)
    return Outage(monkeypatch)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spooling(url: str, spool: Path) -> Iterator[AuditStore]:
    with open_store(url, timeout=20.0, spool=spool) as opened:
        yield opened


def ids(store: AuditStore) -> list[str]:
    found = sorted(store.list(limit=500).items, key=lambda one: one.sequence)
    assert store.verify().ok
    return [one.id for one in found]


def record(store: AuditStore, policy: Policy, *decisions: Decision) -> None:
    for decision in decisions:
        store.record([decision], policy=policy, community="gamers", conversation="talk", subject="ann")


@pytest.mark.parametrize("kind", ["before", "after"])
def test_the_spool_bridges_an_outage(
    spooling: AuditStore, outage: Outage, policy: Policy, decide: Make, rewritten: Make, spool: Path, kind: str
) -> None:
    record(spooling, policy, decide(id="a"))
    outage.kind = kind
    record(spooling, policy, rewritten(id="b"), decide(id="c", source="\x00 \ud800 text"))
    assert sum(path.stat().st_size for path in spool.iterdir()) > 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in [spool, *spool.iterdir()])  # texts: for their owner only
    outage.kind = ""
    record(spooling, policy, decide(id="d"))
    assert spooling.recorder.flush(60)
    assert ids(spooling) == ["a", "b", "c", "d"]
    found = spooling.get("b")
    assert found is not None
    assert (found.conversation, found.subject, len(found.candidates)) == ("talk", "ann", 2)
    assert found.reasons == rewritten(id="x").reasons
    record(spooling, policy, decide(id="e"))  # straight into the database again
    assert ids(spooling)[-1] == "e"
    spooling.close()
    assert list(spool.iterdir()) == []


def test_without_a_spool_an_outage_withholds(
    sqlite_store: AuditStore, outage: Outage, policy: Policy, decide: Make
) -> None:
    outage.kind = "before"
    with pytest.raises(AuditUnavailable, match="nothing was recorded"):
        record(sqlite_store, policy, decide())


def test_what_contradicts_the_record_is_refused_and_not_spooled(
    spooling: AuditStore, policy: Policy, decide: Make, spool: Path
) -> None:
    record(spooling, policy, decide(id="a"))
    with pytest.raises(AuditUnavailable, match="'a' is already on record"):
        record(spooling, policy, decide(id="a"))
    assert not spool.exists()


def test_an_id_that_was_taken_meanwhile_is_kept_aside(
    spooling: AuditStore, outage: Outage, policy: Policy, decide: Make, spool: Path, url: str
) -> None:
    outage.kind = "before"
    record(spooling, policy, decide(id="a"), decide(id="b"))
    outage.kind = ""
    other = AuditStore(spooling.engine)
    try:
        record(other, policy, decide(id="a", source="Another."))
    except AuditUnavailable as error:  # the spool was quicker
        assert "'a' is already on record" in str(error)
        return
    assert spooling.recorder.flush(60)
    assert set(ids(spooling)) == {"a", "b"}
    assert [path.suffix for path in spool.iterdir() if path.stat().st_size] == [".rejected"]


def test_a_database_that_is_away_from_the_start(tmp_path: Path, policy: Policy, decide: Make) -> None:
    folder = tmp_path / "later"
    url = f"sqlite:///{folder / 'audit.sqlite'}"
    with pytest.raises(AuditUnavailable, match="does not exist"):
        open_store(url)
    with open_store(url, timeout=0.2, spool=tmp_path / "spool") as store:
        record(store, policy, decide(id="a"), decide(id="b"))
    with open_store(url, timeout=0.2, spool=tmp_path / "spool") as store:  # a process later, still away
        record(store, policy, decide(id="c"))
        folder.mkdir()
        assert store.recorder.flush(60)
        assert ids(store) == ["a", "b", "c"]


def test_what_an_earlier_version_spooled_is_drained(
    url: str, outage: Outage, policy: Policy, rewritten: Make, spool: Path
) -> None:
    """Until migrations 0006 and 0007 a reason did not say whose and when its decision was, and what became of it."""
    outage.kind = "before"
    store = open_store(url, timeout=1.0, spool=spool)
    record(store, policy, rewritten(id="a"))
    store.close()
    (file,) = spool.iterdir()
    head, body = file.read_bytes().splitlines()
    call = json.loads(body.partition(b" ")[2])
    for reason in call["rows"][0]["reasons"]:
        for name in ("community", "created_at", "decision_state", "decision_action", "decision_risk"):
            del reason[name]
    body = json.dumps(call).encode()
    file.write_bytes(head + b"\n%08x %s\n" % (zlib.crc32(body), body))
    outage.kind = ""
    with open_store(url, timeout=20.0, spool=spool) as again:
        record(again, policy, rewritten(id="b"))  # from then on files of processes that are gone are looked for
        assert again.recorder.flush(60)
        assert set(ids(again)) == {"a", "b"}
        assert again.verify().ok


@pytest.mark.parametrize("damage", ["torn", "middle"])
def test_a_damaged_spool(url: str, outage: Outage, policy: Policy, decide: Make, spool: Path, damage: str) -> None:
    outage.kind = "before"
    store = open_store(url, timeout=1.0, spool=spool)
    record(store, policy, decide(id="a"), decide(id="b"), decide(id="c"))
    store.close()
    (file,) = spool.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4  # the policy, and three decisions
    if damage == "torn":
        lines[3] = lines[3][:-10]
    else:
        lines[2] = lines[2][:50] + b"X" + lines[2][51:]
    file.write_bytes(b"".join(lines))
    outage.kind = ""
    with open_store(url, timeout=20.0, spool=spool) as again:
        record(again, policy, decide(id="d"))
        assert again.recorder.flush(60)
        assert set(ids(again)) == {"a", "d"} | ({"b"} if damage == "torn" else {"c"})
    kept = [path for path in spool.iterdir() if path.suffix == ".damaged"]
    assert [path.read_bytes() for path in kept] == ([] if damage == "torn" else [lines[2]])


def test_a_full_disk_under_the_spool(
    spooling: AuditStore, outage: Outage, policy: Policy, decide: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage.kind = "before"
    record(spooling, policy, decide(id="a"))
    write, room = os.write, [100]

    def full(file: int, data: Any) -> int:
        part = bytes(data)[: room[0]]
        room[0] -= len(part)
        if not part:
            raise OSError(28, "No space left on device")
        return write(file, part)

    monkeypatch.setattr("guardrail.audit.spool.os.write", full)
    with pytest.raises(AuditUnavailable, match=r"spool in .* cannot be written \(No space left on device\)"):
        record(spooling, policy, decide(id="b"))
    monkeypatch.setattr("guardrail.audit.spool.os.write", write)
    record(spooling, policy, decide(id="c"))
    outage.kind = ""
    assert spooling.recorder.flush(60)
    assert ids(spooling) == ["a", "c"]


def test_spool_mode_answers_before_the_database_does(url: str, policy: Policy, decide: Make, spool: Path) -> None:
    evidence = Evidence("sha256:e", 2, b"\x00\x3c\x00\x00", b"\0\0\0\0\5\0\0\0", {"x": (1.5,)})
    with open_store(url, timeout=20.0, spool=spool, durability="spool", store_embeddings=True) as store:
        threads = [
            threading.Thread(target=record, args=(store, policy, *(decide(evidence=evidence) for _ in range(10))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert store.recorder.flush(60)
        assert len(ids(store)) == 40
    assert list(spool.iterdir()) == []


def test_async_mode_writes_soon_and_at_the_end(url: str, policy: Policy, decide: Make) -> None:
    store = open_store(url, timeout=20.0, durability="async")
    record(store, policy, *(decide(id=f"d{number}") for number in range(20)))
    deadline = time.monotonic() + 60
    while len(store.list().items) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    record(store, policy, decide(id="last"))
    store.close()
    with open_store(url) as again:
        assert ids(again) == [*(f"d{number}" for number in range(20)), "last"]


def test_async_mode_has_a_bound(
    tmp_path: Path, outage: Outage, policy: Policy, decide: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "ASYNC_LIMIT", 5)
    store = open_store(f"sqlite:///{tmp_path / 'a.sqlite'}", timeout=0.2, durability="async")
    outage.kind = "before"
    record(store, policy, *(decide() for _ in range(5)))
    with pytest.raises(AuditUnavailable, match="5 decisions wait in memory"):
        record(store, policy, decide())
    outage.kind = ""
    assert store.recorder.flush(60)
    assert len(ids(store)) == 5
    store.close()


def test_async_mode_is_flushed_when_the_interpreter_ends(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); import recorder\n"
        "from guardrail.audit.store import open_store\n"
        "store = open_store(sys.argv[1], durability='async', timeout=30.0)\n"
        "recorder.record(store, recorder.Policy(), 'gamers', 'p', 30)\n"
    )
    subprocess.run([sys.executable, "-c", code, url, str(Path(__file__).parent)], check=True, stdout=subprocess.DEVNULL)
    with open_store(url) as store:
        assert len(ids(store)) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [({"durability": "never"}, "expected one of commit, spool, async"), ({"durability": "spool"}, "needs a folder")],
)
def test_modes_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_store(f"sqlite:///{tmp_path / 'a.sqlite'}", **options)


def test_a_fork_leaves_the_parents_spool_to_the_parent(
    url: str, outage: Outage, policy: Policy, decide: Make, spool: Path
) -> None:
    outage.kind = "before"
    with open_store(url, timeout=20.0, spool=spool) as store:
        record(store, policy, decide(id="parent-1"))
        child = os.fork()
        if child == 0:
            try:
                record(store, policy, decide(id="child"))
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        record(store, policy, decide(id="parent-2"))
        outage.kind = ""
        assert store.recorder.flush(60)
        assert set(ids(store)) == {"parent-1", "child", "parent-2"}


@pytest.mark.parametrize("mode", ["commit", "spool"])
def test_kills_and_outages(url: str, spool: Path, policy: Policy, decide: Make, mode: str) -> None:
    open_store(url).close()
    found = faults.run(url, spool, mode, 6, 1, policy, decide)
    assert found.lost == set()
    assert found.out_of_order == []
    assert found.left_over == 0
    assert (found.kills, len(found.acknowledged) >= 6) == (6, True)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "kills"), [("commit", 300), ("spool", 200)])
def test_a_thousand_kills(url: str, spool: Path, policy: Policy, decide: Make, mode: str, kills: int) -> None:
    open_store(url).close()
    found = faults.run(url, spool, mode, kills, 7, policy, decide)
    assert found.lost == set()
    assert found.out_of_order == []
    assert found.left_over == 0
    print(f"\n{mode}: {found.kills} kills, {found.outages} outages, {len(found.acknowledged)} acknowledged")  # noqa: T201


def test_async_loses_no_more_than_what_is_in_memory(url: str, policy: Policy, decide: Make) -> None:
    open_store(url).close()
    check_hasty(url, policy, decide, kills=4, limit=40)


@pytest.mark.slow
def test_async_over_fifty_kills(url: str, policy: Policy, decide: Make) -> None:
    open_store(url).close()
    check_hasty(url, policy, decide, kills=50, limit=200)


def check_hasty(url: str, policy: Policy, decide: Make, kills: int, limit: int) -> None:
    """Kill processes that record under `async`: what is on record of each is a beginning of what it recorded, and nothing
    twice."""
    generator = random.Random(11)
    found = faults.Found()
    for number in range(kills):

        def work(send: Callable[[str], None], prefix: str = f"p{number}") -> None:
            faults.hasty(url, prefix, limit, policy, decide, send)

        faults.kill(work, generator, found, least=generator.randint(limit + 1, 3 * limit))
    with open_store(url, timeout=60.0) as store:
        recorded = [key for key, _ in faults.everything(store)]
        assert store.verify().ok
    assert len(recorded) == len(set(recorded))
    for number in range(kills):
        kept = sorted(int(key.split("-")[1]) for key in recorded if key.startswith(f"p{number}-"))
        said = sum(key.startswith(f"p{number}-") for key in found.acknowledged)
        assert kept == list(range(len(kept)))
        assert said - len(kept) <= limit
        assert kept  # more were acknowledged than memory holds
