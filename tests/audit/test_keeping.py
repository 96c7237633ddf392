"""What must not be kept is erased, what must be kept is verifiable: masking, erasure, retention, checkpoints."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select, update

from guardrail.audit import checkpoint
from guardrail.audit.erasure import Retained, erase, retain
from guardrail.audit.evidence import similar, spans_of, vectors_of
from guardrail.audit.masking import BLANK, Masker
from guardrail.audit.people import People
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.tables import appeals, chain_heads, decisions, embeddings, events
from guardrail.errors import ConfigurationError
from guardrail.policy import Policy
from guardrail.types import Candidate, Decision, Evidence

Make = Callable[..., Decision]

SECRET = "zebra"


def evidence(*rows: list[float]) -> Evidence:
    vectors = np.array(rows, dtype="<f2")
    layout = np.array([[4 * row, 4 * row + 3] for row in range(len(rows))], dtype="<u4")
    return Evidence("sha256:e", vectors.shape[1], vectors.tobytes(), layout.tobytes(), {"words": (1e-7,) * len(rows)})


@pytest.fixture
def keeping(url: str, policy: Policy, decide: Make, rewritten: Make) -> AuditStore:
    store = open_store(url, timeout=60.0, store_embeddings=True)
    made = [
        decide(id="ann-1", source=f"My {SECRET} is at home.", evidence=evidence([1.0, 0.0])),
        rewritten(id="ann-2", source=f"You {SECRET}!"),
    ]
    store.record(made, policy=policy, community="gamers", conversation="talk-1", subject="ann")
    store.record([decide(id="bob-1")], policy=policy, community="gamers", subject="bob")
    store.record([decide(id="ann-3", source=f"A {SECRET} at work.")], policy=policy, community="workers", subject="ann")
    with People(store).change() as change:
        change.review(
            "ann-2", reviewer="eve", verdict="edit", comment=f"The {SECRET} again.", edited_text=f"Dear {SECRET}"
        )
        ticket = change.appeal("ann-2", appellant="ann", statement=f"I have a {SECRET}.")
        change.answer(ticket, status="granted", answer=f"Keep your {SECRET}.", answered_by="eve")
    assert store.verify().ok, store.verify().problems
    return store


def test_one_person_is_erased_and_the_chain_stays_whole(keeping: AuditStore, url: str) -> None:
    assert len(keeping.list(text=SECRET).items) == 3
    assert erase(keeping, by="root", subject="ann", reason="Article 17") == 3
    verified = keeping.verify()
    assert verified.ok, verified.problems
    assert keeping.list(text=SECRET).items == ()
    assert keeping.list(subject="ann").items == ()
    found = keeping.get("ann-2")
    assert found is not None
    assert (found.source_text, found.delivered_text, found.salt, found.subject) == (None, None, "", None)
    assert found.risk == 0.9
    assert [one.text for one in found.candidates] == [None, None]
    assert found.erased_at is not None
    kept = keeping.get("bob-1")
    assert kept is not None
    assert (kept.source_text, kept.subject, kept.erased_at) == ("A harmless sentence.", "bob", None)
    assert erase(keeping, by="root", subject="ann") == 0
    with keeping.engine.connect() as connection:
        assert connection.scalars(select(events.c.kind).where(events.c.author == "root")).all() == ["erasure"] * 2
    keeping.close()
    if url.startswith("sqlite"):  # nor in a free page, in the index or in the log
        file = Path(url.removeprefix("sqlite:///"))
        for path in file.parent.glob(file.name + "*"):
            assert SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("what", "ids"),
    [
        ({"conversation": "talk-1"}, {"ann-1", "ann-2"}),
        ({"decision_id": "bob-1"}, {"bob-1"}),
        ({"request_id": "request-1"}, {"ann-1", "ann-2", "ann-3", "bob-1"}),
        ({"subject": "nobody"}, set()),
    ],
)
def test_what_can_be_erased(keeping: AuditStore, what: dict[str, str], ids: set[str]) -> None:
    assert erase(keeping, by="root", **what) == len(ids)  # type: ignore[arg-type]
    assert {one.id for one in keeping.list().items if one.erased_at is not None} == ids
    assert keeping.verify().ok
    keeping.close()


@pytest.mark.parametrize("what", [{}, {"subject": "a", "decision_id": "b"}])
def test_what_to_erase_must_be_clear(keeping: AuditStore, what: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="one of them"):
        erase(keeping, by="root", **what)  # type: ignore[arg-type]
    keeping.close()


def test_texts_that_were_erased_without_an_event_are_found(keeping: AuditStore) -> None:
    values = {"source_text": None, "delivered_text": None, "salt": "", "erased_at": datetime.now(UTC), "subject": None}
    with keeping.engine.begin() as connection:
        connection.execute(update(decisions).where(decisions.c.id == "ann-1").values(values))
        connection.execute(delete(embeddings))
    details = {one.detail for one in keeping.verify().problems}
    assert "its source text is missing" in details
    assert "its subject is not the one that was recorded" in details
    assert "its embedding is missing" in details
    keeping.close()


def test_an_erased_row_that_is_filled_again_is_found(keeping: AuditStore) -> None:
    erase(keeping, by="root", subject="ann")
    with keeping.engine.begin() as connection:
        connection.execute(update(decisions).where(decisions.c.id == "ann-1").values(source_text="Forged."))
    assert [one.detail for one in keeping.verify().problems] == ["it was erased, but holds a text"]
    keeping.close()


def test_a_changed_embedding_is_found(keeping: AuditStore) -> None:
    with keeping.engine.begin() as connection:
        connection.execute(update(embeddings).values(vectors=b"\0\0\0\0"))
    assert [one.detail for one in keeping.verify().problems] == ["its embedding is not the one that was recorded"]
    keeping.close()


def test_texts_go_sooner_than_decisions(store: AuditStore, policy: Policy, decide: Make, rewritten: Make) -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    for age in (100, 60, 20, 1):  # days
        moment = (now - timedelta(days=age)).timestamp()
        made = [decide(id=f"d{age}", created_at=moment), rewritten(id=f"r{age}", created_at=moment)]
        store.record(made, policy=policy, community="gamers")
    with People(store).change() as change:
        change.review("d100", reviewer="eve", verdict="uphold", comment="Yes.")
        change.label("d100", name="harassment", value=1.0, author="eve")
        ticket = change.appeal("d60", appellant="ann", statement="Why?")
    assert retain(store, keep_text=30, keep_decisions=90, now=now) == Retained(texts=1, decisions=2)
    assert store.verify().ok, store.verify().problems
    assert {one.id for one in store.list().items} == {"d60", "r60", "d20", "r20", "d1", "r1"}
    texts = {one.id: one.source_text for one in store.list().items}
    assert texts["r60"] is None
    assert texts["d60"] is not None  # its appeal is open
    with People(store).change() as change:
        change.answer(ticket, status="refused", answer="So it is.", answered_by="eve")
    assert retain(store, keep_text=30, keep_decisions=50, now=now) == Retained(texts=0, decisions=2)
    assert retain(store, keep_text=10, now=now) == Retained(texts=2)
    store.record([decide(id="later")], policy=policy, community="gamers")
    verified = store.verify()
    assert verified.ok, verified.problems
    assert (verified.decisions, verified.chains[0].sequence) == (5, 9)
    with store.engine.begin() as connection:  # what no event speaks of is still missed
        connection.execute(delete(decisions).where(decisions.c.id == "no such"))
        connection.execute(update(events).where(events.c.kind == "retention").values(details={"texts_before": "x"}))
    assert not store.verify().ok


# ------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def problems(store: AuditStore, document: bytes) -> list[tuple[str, str, int]]:
    with store.engine.connect() as connection:
        return [
            (one.kind, str(one.community), one.sequence or 0)
            for one in checkpoint.check(connection, checkpoint.read(document))
        ]


def test_a_checkpoint_shows_what_the_chain_alone_cannot(keeping: AuditStore) -> None:
    with keeping.engine.connect() as connection:
        document = checkpoint.make(connection)
    assert problems(keeping, document) == []
    with keeping.engine.begin() as connection:  # cut the newest decision off and set the head back
        row = connection.execute(select(decisions).where(decisions.c.id == "ann-3")).mappings().one()
        for table in ("scores", "reasons", "rewrites", "embeddings"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE decision_id = 'ann-3'")  # noqa: S608
        connection.execute(delete(decisions).where(decisions.c.id == "ann-3"))
        head = update(chain_heads).where(chain_heads.c.community == "workers")
        connection.execute(head.values(sequence=0, hash=row["previous_hash"]))
    assert keeping.verify("workers").ok
    assert problems(keeping, document) == [("removed", "workers", 1)]
    keeping.close()


def test_a_chain_that_was_written_anew_is_found(keeping: AuditStore) -> None:
    with keeping.engine.connect() as connection:
        content = json.loads(checkpoint.make(connection))
    content["chains"][0]["hash"] = "sha256:" + "1" * 64
    assert problems(keeping, json.dumps(content).encode()) == [("altered", "gamers", 3)]
    keeping.close()


def test_signatures_are_those_of_standard_tools(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    document = b'{"format": "guardrail-checkpoint/1"}\n'
    signature = checkpoint.sign(document, private)
    assert checkpoint.verify_signature(document, signature, public)
    assert not checkpoint.verify_signature(document + b" ", signature, public)
    (tmp_path / "c.json").write_bytes(document)
    (tmp_path / "c.json.sig").write_bytes(signature)
    command = "openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in c.json -sigfile c.json.sig"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verified Successfully" in done.stdout, done.stderr


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff\xfe"])
def test_keys_that_are_none(tmp_path: Path, content: bytes, keys: tuple[Path, Path]) -> None:
    file = tmp_path / "bad.pem"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"bad\.pem: no usable key"):
        checkpoint.sign(b"x", file)
    with pytest.raises(ConfigurationError, match=r"none\.pem: no usable key"):
        checkpoint.sign(b"x", tmp_path / "none.pem")


@pytest.mark.parametrize("document", [b"", b"[]", b'{"format": "x"}', b'{"format": "guardrail-checkpoint/1"}'])
def test_checkpoints_that_are_none(document: bytes) -> None:
    with pytest.raises(ConfigurationError, match="checkpoint"):
        checkpoint.read(document)


# ----------------------------------------------------------------------------------------------------------- masking


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to Ann.Lee+x@mail.example.org, please", ["email"]),
        ("é\U0001f600 a@b.io und c@d.de", ["email", "email"]),
        ("Call +49 (30) 901820 or 555-123-4567", ["phone", "phone"]),
        ("Card 4111 1111 1111 1111, not 4111 1111 1111 1112", ["card"]),
        ("DE89 3704 0044 0532 0130 00", ["iban"]),
        ("from 192.168.1.254 and 2001:0db8:0000:0000:0000:ff00:0042:8329", ["ip", "ip"]),
        ("In 2026, 300 people; version 1.2.3; 10:30; 12345; \ud800 a@", []),
    ],
)
def test_what_is_masked(text: str, kinds: list[str]) -> None:
    masked, found = Masker(("email", "phone", "card", "iban", "ip")).mask(text)
    assert [kind for kind, _, _ in found] == kinds
    assert len(masked) == len(text)
    for _, start, end in found:
        assert masked[start:end] == BLANK * (end - start)
    assert Masker(()).mask(text) == (text, [])


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(KeyError, match="shoes is not one of"):
        Masker(("shoes",))


def test_a_megabyte_is_masked_in_linear_time() -> None:
    text = "a@b.io 4111 1111 1111 1111 " * 40_000
    masked, found = Masker(("email", "card", "phone", "ip", "iban")).mask(text)
    assert len(found) == 80_000
    assert "@" not in masked


def test_masking_reaches_every_text(url: str, policy: Policy, rewritten: Make) -> None:
    mail = "me@example.org"
    made = rewritten(id="m", source=f"Sure. You {mail} idiot! Bye.", note=f"no {mail}", evidence=evidence([1.0, 0.0]))
    assert made.rewrite is not None
    tried = (Candidate(f"Ask {mail}", "dglm", 0.1, True, 0.5),)
    made = replace(
        made,
        text=f"Sure. Ask {mail}. Bye.",
        rewrite=replace(made.rewrite, source=made.source, text=f"Sure. Ask {mail}. Bye.", candidates=tried, edits=()),
        failures={"judge": f"ValueError: {mail}"},
        reasons=(replace(made.reasons[0], error=f"at {mail}"),),
    )
    with open_store(url, timeout=60.0, mask=("email",), store_embeddings=True) as store:
        store.record([made], policy=policy, community="gamers")
        found = store.get("m")
        assert found is not None
        assert mail not in repr(found)
        assert found.masked is not None
        assert set(found.masked) == {
            "source", "delivered", "rewrites.0", "rewrites.1", "note", "failures.judge", "reasons.0.error",
        }  # fmt: skip
        assert found.masked["source"] == [["email", 10, 24]]
        assert found.embedding_digest is None  # a vector would still tell
        assert store.verify().ok


# -------------------------------------------------------------------------------------------------------- embeddings


def test_similar_decisions(url: str, policy: Policy, decide: Make) -> None:
    with open_store(url, timeout=60.0, store_embeddings=True) as store:
        rows: dict[str, Any] = {
            "same": ([3.0, 0.0],), "near": ([1.0, 0.2], [1.0, 0.0]), "far": ([0.0, 1.0],), "asked": ([1.0, 0.0],),
        }  # fmt: skip
        for key, vectors in rows.items():
            community = "workers" if key == "same" else "gamers"
            store.record([decide(id=key, evidence=evidence(*vectors))], policy=policy, community=community)
        store.record([decide(id="none")], policy=policy, community="gamers")
        with store.engine.connect() as connection:
            assert [key for key, _ in similar(connection, "asked")] == ["same", "near", "far"]
            assert similar(connection, "asked", limit=1)[0][1] == pytest.approx(1.0, abs=1e-3)
            assert [key for key, _ in similar(connection, "asked", community="gamers")] == ["near", "far"]
            assert similar(connection, "none") == []
            assert similar(connection, "nothing") == []
            row = connection.execute(select(embeddings).where(embeddings.c.decision_id == "near")).mappings().one()
            assert vectors_of(row).tolist() == pytest.approx(np.array(rows["near"]), abs=1e-3)
            assert spans_of(row).tolist() == [[0, 3], [4, 7]]
        assert store.verify().ok


def test_embeddings_are_kept_only_where_asked_for(store: AuditStore, policy: Policy, decide: Make) -> None:
    store.record([decide(evidence=evidence([1.0, 0.0]))], policy=policy, community="gamers")
    with store.engine.connect() as connection:
        assert connection.execute(select(embeddings)).all() == []


def test_a_draft_of_a_megabyte(store: AuditStore, policy: Policy, decide: Make) -> None:
    long = "".join(f"wörd{number} " for number in range(100_000))
    store.record([decide(id="long", source=long)], policy=policy, community="gamers")
    found = store.get("long")
    assert found is not None
    assert found.source_text == long
    assert [one.id for one in store.list(text="wörd77").items] == ["long"]
    assert store.verify().ok


def test_a_clock_that_goes_backwards(store: AuditStore, policy: Policy, decide: Make) -> None:
    for key, moment in (("a", 2e9), ("b", 1e9), ("c", 1.5e9)):
        store.record([decide(id=key, created_at=moment)], policy=policy, community="gamers")
    assert [one.id for one in store.list().items] == ["a", "c", "b"]  # by their own times
    places = {one.id: one.sequence for one in store.list().items}
    assert places == {"a": 1, "b": 2, "c": 3}  # the chain knows what came after what
    assert store.verify().ok


def test_answered_appeals_lose_their_texts_and_open_ones_keep_them(
    store: AuditStore, policy: Policy, decide: Make
) -> None:
    made = [decide(id=f"appealed-{number}") for number in range(3)]
    store.record(made, policy=policy, community="gamers")
    with People(store).change() as change:
        tickets = [change.appeal(one.id, appellant="ann", statement=f"I have a {SECRET}.") for one in made]
        for ticket in tickets[:2]:
            change.answer(ticket, status="granted", answer=f"So you have a {SECRET}.", answered_by="eve")
    later = datetime.now(UTC) + timedelta(days=31)
    assert retain(store, keep_appeals=30, now=datetime.now(UTC)) == Retained()
    assert retain(store, keep_appeals=30, now=later) == Retained(appeals=2)
    assert retain(store, keep_appeals=30, now=later) == Retained()
    with store.engine.connect() as connection:
        rows = {row.id: row for row in connection.execute(select(appeals))}
    assert [(rows[key].appellant, rows[key].statement, rows[key].answer) for key in tickets[:2]] == [("", "", "")] * 2
    assert {rows[key].status for key in tickets[:2]} == {"granted"}
    assert rows[tickets[2]].statement == f"I have a {SECRET}."
    found = store.get("appealed-0")
    assert found is not None
    assert found.source_text is not None  # the decision's own text is another matter
    assert store.verify().ok, store.verify().problems
    with store.engine.begin() as connection:
        connection.execute(update(appeals).where(appeals.c.id == tickets[0]).values(statement="Forged."))
    assert [one.id for one in store.verify().problems] == [tickets[0]]
