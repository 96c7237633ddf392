"""What waits, in which order; filled once, by however many processes."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from guardrail.errors import ConfigurationError
from guardrail.review import accounts, charts, dashboard, filling, queue, tables
from guardrail.review.database import reading, writing
from guardrail.review.diff import beside, compare, mark, shorten
from guardrail.review.priority import assess, sampled, severe
from guardrail.types import Action, State

RULES = {"harassment": {"thresholds": {"flag": 0.4, "rewrite": 0.6, "block": 0.97}}}
PLAIN: dict[str, Any] = {
    "action": Action.ALLOW, "state": State.ALLOWED, "reasons": (), "rewrite": None, "text": "fine", "source": "fine",
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- priority


def test_uncertainty_is_one_on_a_threshold_and_falls_with_the_log_odds() -> None:
    on = assess({"harassment": 0.6}, RULES, Action.REWRITE, 0.6)
    assert (on.uncertainty, on.rule, on.threshold, on.action) == (pytest.approx(1.0), "harassment", 0.6, "rewrite")
    odds = 0.6 / 0.4 * 2.718281828
    off = assess(
        {"harassment": odds / (1 + odds)}, {"harassment": {"thresholds": {"rewrite": 0.6}}}, Action.REWRITE, 0.8
    )
    assert off.uncertainty == pytest.approx(0.3679, abs=1e-3)


@given(risk=st.floats(0, 1), action=st.sampled_from(list(Action)))
def test_priority_stays_between_zero_and_one(risk: float, action: Action) -> None:
    found = assess({"harassment": risk, "unknown": 0.5}, RULES, action, risk)
    assert 0 <= found.priority <= 1
    assert 0 <= found.uncertainty <= 1


def test_a_risk_that_is_no_number_is_as_uncertain_as_can_be() -> None:
    assert assess({"harassment": None}, RULES, Action.BLOCK, 1.0).uncertainty == 1.0
    assert assess({}, RULES, Action.ALLOW, 0.0).priority == 0.0


def test_the_sample_is_the_share_that_it_says() -> None:
    found = sum(sampled(f"id-{at}") for at in range(20_000))
    assert 140 <= found <= 260
    assert severe(Action.BLOCK, 0.1)
    assert severe(Action.FLAG, 0.9)
    assert not severe(Action.REWRITE, 0.5)


# ------------------------------------------------------------------------------------------------------------ queue


def test_what_waits_and_in_which_order(fresh: Callable[..., Any]) -> None:
    office = fresh()
    thresholds = office.policy.document.rules["harassment"].thresholds
    flag, block = thresholds[Action.FLAG], thresholds[Action.BLOCK]
    sure = office.rewritten(risk=0.7, rules={"harassment": 0.7})
    near = office.rewritten(**PLAIN, risk=flag - 0.01, rules={"harassment": flag - 0.01})
    unsure = office.rewritten(risk=block - 0.001, rules={"harassment": block - 0.001})
    boring = office.rewritten(**PLAIN, id="boring-1", risk=0.0, rules={"harassment": 1e-6})
    assert not sampled(boring)
    held = office.held()
    assert office.fill() == 5
    assert office.fill() == 0
    with reading(office.store) as connection:
        items, following = queue.page(connection, "gamers")
        assert queue.counts(connection, "gamers") == {"open": 4, "second": 0, "lead": 0}
    assert following is None
    assert items[0].decision_id == held
    assert {item.decision_id: item.why for item in items} == {
        held: "held",
        unsure: "acted",
        sure: "acted",
        near: "near",
    }
    assert [item.priority for item in items] == sorted((item.priority for item in items), reverse=True)
    assert items.index(next(i for i in items if i.decision_id == unsure)) < items.index(
        next(i for i in items if i.decision_id == sure)
    )


def test_pages_follow_each_other_without_gap_or_repeat(fresh: Callable[..., Any]) -> None:
    office = fresh()
    keys = [office.rewritten(risk=0.7 + at / 1000) for at in range(queue.PAGE + 5)]
    office.fill()
    with reading(office.store) as connection:
        first, following = queue.page(connection, "gamers")
        second, end = queue.page(connection, "gamers", after=following)
        assert len(first) == queue.PAGE
        assert end is None
        assert sorted(item.decision_id for item in (*first, *second)) == sorted(keys)
        assert queue.page(connection, "gamers", rule="violence")[0] == []
        assert len(queue.page(connection, "gamers", rule="harassment")[0]) == queue.PAGE
        for view, after in (("nothing", None), ("open", "not a cursor"), ("done", "x~y")):
            with pytest.raises(ConfigurationError):
                queue.page(connection, "gamers", view, after=after)
    assert office.browser("viewer").get("/queue", community="gamers", view="nothing").status_code == 400


def test_four_fillers_at_once_count_everything_once(fresh: Callable[..., Any]) -> None:
    office = fresh()
    for at in range(40):
        office.rewritten(id=f"d-{at}")
    barrier, failed = threading.Barrier(4), []

    def work() -> None:
        barrier.wait()
        try:
            while filling.fill(office.store, office.desk.policies, "gamers", 7):
                pass
        except BaseException as error:  # noqa: BLE001 - the main thread reports it
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    with reading(office.store) as connection:
        assert connection.scalar(select(func.count()).select_from(tables.queue)) == 40
        assert connection.scalar(select(func.sum(tables.daily.c.decisions))) == 40
        assert connection.scalar(select(func.sum(tables.rule_days.c.acted))) == 40


def test_the_page_says_when_it_is_behind(fresh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from guardrail.review.pages import working

    office = fresh()
    office.rewritten()
    monkeypatch.setattr(working, "_INLINE_FILL", 0)
    assert "1 decisions have not been looked through" in office.browser("viewer").get("/queue", community="gamers").text


def test_the_application_fills_the_queue_by_itself(fresh: Callable[..., Any]) -> None:
    import time

    from fastapi.testclient import TestClient

    from guardrail.review.app import create_app

    office = fresh()
    key = office.rewritten()
    with TestClient(create_app(office.desk)):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with reading(office.store) as connection:
                if queue.item_of(connection, key) is not None:
                    break
            time.sleep(0.02)
    assert office.item(key).status == "open"


def test_an_item_that_was_left_is_handed_out_again(fresh: Callable[..., Any]) -> None:
    office = fresh()
    key = office.rewritten()
    office.fill()
    with writing(office.store) as connection:
        assert queue.claim_next(connection, "gamers", "moderator") == key
        assert queue.claim_next(connection, "gamers", "second") is None
        assert queue.claim_next(connection, "gamers", "moderator") == key
        assert queue.claim_next(connection, "elsewhere", "second") is None
        late = accounts.now() - queue.CLAIM - timedelta(seconds=1)
        connection.execute(update(tables.queue).values(assigned_at=late))
        assert queue.claim_next(connection, "gamers", "second") == key


def test_who_waits_for_a_person_comes_before_all_else(fresh: Callable[..., Any]) -> None:
    office = fresh()
    second, split = office.rewritten(), office.rewritten(risk=0.5)
    held = office.held()
    office.fill()
    with writing(office.store) as connection:
        table = tables.queue
        for key, status in ((second, "second"), (split, "split")):
            connection.execute(update(table).where(table.c.decision_id == key).values(status=status))
        order = []
        for _ in range(4):
            order.append(queue.claim_next(connection, "gamers", "lead", lead=True))
            connection.execute(
                update(table)
                .where(table.c.decision_id == order[-1])
                .values(assigned_to="gone", assigned_at=accounts.now())
            )
        assert order == [held, second, split, None]
        connection.execute(update(table).values(assigned_to=None))
        assert queue.claim_next(connection, "gamers", "moderator", skip=held) == second


def test_a_draft_whose_reader_has_left_waits_like_the_others(fresh: Callable[..., Any]) -> None:
    from guardrail.audit.holds import wait

    office = fresh()
    key, other = office.held(), office.held()
    office.fill()
    viewer = office.browser("viewer")
    assert viewer.get("/queue/urgent", community="gamers").json() == {"held": 2}
    wait(office.store, key, timeout=0)
    with writing(office.store) as connection:
        assert queue.calm(connection, "gamers") == 1
        assert queue.calm(connection, "gamers") == 0
    assert office.item(key).priority < 1 < office.item(other).priority
    assert viewer.get("/queue/urgent", community="gamers").json() == {"held": 1}


def test_decisions_are_found_by_words_and_by_id(fresh: Callable[..., Any]) -> None:
    office = fresh()
    plain: dict[str, Any] = {"reasons": (), "rewrite": None, "text": None, "refusal": "No."}
    key = office.rewritten(id="abcdef123456", source="Where is the zebra?", **plain)
    office.rewritten(id="fedcba654321", source="Nothing to see.", **plain)
    viewer = office.browser("viewer")
    for words in ("zebra", "abcdef12"):
        page = viewer.get("/search", community="gamers", text=words).text
        assert f"/decision?id={key}" in page
        assert "fedcba654321" not in page
    assert "Nothing was found" in viewer.get("/search", community="gamers", text="giraffe").text
    assert "the zebra" not in office.browser("admin").get("/search", community="other", text="zebra").text
    assert "the zebra" not in office.browser("admin").get("/search", community="other", text="abcdef123456").text
    assert viewer.get("/search", community="gamers", text="x" * 5000).status_code in {200, 400}


# -------------------------------------------------------------------------------------------------------- dashboard


def test_the_dashboard_counts_what_happened(fresh: Callable[..., Any]) -> None:
    office = fresh()
    keys = [office.rewritten() for _ in range(4)]
    office.rewritten(**PLAIN, risk=0.0, rules={})
    office.fill()
    for key, verdict in zip(keys, ("uphold", "overturn", "uphold"), strict=False):
        office.browser("moderator").decide(key, verdict)
    with reading(office.store) as connection:
        board = dashboard.gather(connection, "gamers")
    assert (board.decisions, board.acted, board.reviewed, board.overturned) == (5, 4, 3, 1)
    (line,) = board.rules
    assert (line.rule, line.acted, line.reviewed, line.rate) == ("harassment", 4, 3, pytest.approx(1 / 3))
    assert board.waiting["open"] == 1
    assert "5 in 28 days" in board.volume.summary
    page = office.browser("viewer").get("/dashboard", community="gamers").text
    assert "<svg" in page
    assert "33.3%" in page
    assert office.browser("admin").get("/dashboard", community="empty").status_code == 200


@given(st.lists(st.lists(st.integers(0, 10_000), min_size=5, max_size=5), max_size=4))
def test_bars_stand_on_each_other_and_stay_inside(series: list[list[int]]) -> None:
    days = [f"day {at}" for at in range(5)]
    chart = charts.stacked(days, {f"s{at}": counts for at, counts in enumerate(series)})
    for bar in chart.bars:
        assert bar.y >= -0.1
        assert bar.y + bar.height <= chart.height + 0.1
    for day in {bar.x for bar in chart.bars}:
        stack = sorted((bar for bar in chart.bars if bar.x == day), key=lambda bar: -bar.y)
        for lower, upper in itertools.pairwise(stack):
            assert upper.y + upper.height == pytest.approx(lower.y, abs=0.05)


# ------------------------------------------------------------------------------------------------------------- diff

TEXTS = st.text(st.sampled_from("ab é🙂\n."), max_size=40)


@given(before=TEXTS, after=TEXTS)
def test_what_is_not_marked_is_the_same_on_both_sides(before: str, after: str) -> None:
    gone, new = compare(before, after)

    def kept(text: str, spans: list[tuple[int, int]]) -> str:
        for start, end in reversed(spans):
            text = text[:start] + text[end:]
        return text

    assert kept(before, gone) == kept(after, new)
    pieces = mark(before, gone, [("rule", (1, 4)), ("other", (3, 99))])
    assert "".join(piece.text for piece in pieces) == before


def test_changes_are_whole_words() -> None:
    gone, new = compare("You absolute idiot! Bye.", "You can do it. Bye.")
    assert [("You absolute idiot! Bye."[a:b]) for a, b in gone] == ["absolute idiot!"]
    assert [("You can do it. Bye."[a:b]) for a, b in new] == ["can do it."]


def test_a_diff_of_a_megabyte_names_every_change() -> None:
    """The work must not grow with the square: with difflib neither of these comes to an end."""
    generator = random.Random(1)
    words = [f"word{generator.randrange(3000)}" for _ in range(120_000)]
    changed = list(words)
    places = range(50, len(words), 400)
    for at in places:
        changed[at] = "kind"
    before, after = " ".join(words), " ".join(changed)
    gone, new = compare(before, after)
    assert [before[a:b] for a, b in gone] == [words[at] for at in places]
    assert {after[a:b] for a, b in new} == {"kind"}
    gone, new = compare("a " * 250_000 + "x", "a " * 250_000 + "y")
    assert (gone, new) == ([(500_000, 500_001)], [(500_000, 500_001)])
    gone, _ = compare("a b " * 100_000, "b a " * 100_000)
    assert gone


def test_of_a_long_text_the_part_that_matters_is_shown() -> None:
    words = "harmless " * 120_000
    before, after = f"{words}You idiot! {words}", f"{words}You friend! {words}"
    at = len(words) + 4
    sides = beside(before, after, [("harassment", (at, at + 6))], compared=True)
    assert sides.draft_part == sides.delivered_part == (at - 2000, at + 18_000)
    assert [piece.text for piece in sides.draft if piece.rules] == ["idiot", "!"]
    assert [piece.text for piece in sides.draft if piece.changed] == ["idiot"]
    assert [piece.text for piece in sides.delivered if piece.changed] == ["friend"]
    refused = beside(before, "No.", [("harassment", (at, at + 6))], compared=False)
    assert "".join(piece.text for piece in refused.delivered) == "No."
    assert any(piece.rules for piece in refused.draft)
    assert beside(words, words, [], compared=False).draft_part == (0, 20_000)


def test_an_excerpt_is_short_and_on_one_line() -> None:
    assert shorten("a\n b") == "a b"
    assert len(shorten("word " * 100_000)) <= 240


def test_people_work_at_once_and_nothing_is_decided_twice(fresh: Callable[..., Any]) -> None:
    """Four people take and decide until nothing is left: each decision has one verdict, and the record is whole."""
    from guardrail.review.verdicts import Conflict, Given, decide

    office = fresh()
    keys = {office.rewritten(id=f"w-{at}") for at in range(24)}
    office.fill()
    conflicts, failed = [], []

    def work(name: str) -> None:
        try:
            while True:
                with writing(office.store) as connection:
                    key = queue.claim_next(connection, "gamers", name)
                if key is None:
                    return
                try:
                    decide(office.desk, key, Given("uphold", 1, name))
                except Conflict as conflict:
                    conflicts.append(conflict)
        except BaseException as error:  # noqa: BLE001 - the main thread reports it
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("moderator", "second", "lead", "boss")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert conflicts == []  # what is handed out is handed to one
    assert all(len(office.reviews(key)) == 1 for key in keys)
    assert office.store.verify().ok
