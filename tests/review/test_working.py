"""The way of a moderator: take the next item, read it, decide; and all that can come between."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from guardrail.audit.holds import look, wait
from guardrail.audit.tables import events, labels, reviews
from guardrail.review.database import reading
from guardrail.types import Action, Candidate, Reason, Rewrite, Stage, State


@pytest.fixture
def sexual() -> dict[str, Any]:
    """What is decided under the rule that asks for two people."""
    return {"reasons": (Reason("sexual", Stage.OUTPUT, Action.REWRITE, 0.7, 0.6),), "rules": {"sexual": 0.7}}


def test_from_sign_in_to_a_recorded_verdict(office: Any) -> None:
    key = office.rewritten()
    client = office.anybody()
    page = client.get("/", follow_redirects=True)
    assert page.url.path == "/login"
    token = re.search(r'name="form_token" value="([^"]+)"', page.text).group(1)
    form = {"form_token": token, "user": "Moderator ", "password": office.password, "next": "/queue?community=gamers"}
    queue = client.post("/login", data=form)
    assert queue.status_code == 200
    assert f"/decision?id={key}" in queue.text
    token = re.search(r'name="form_token" value="([^"]+)"', queue.text).group(1)
    page = client.post("/next", data={"form_token": token, "community": "gamers"})
    assert page.url.path == "/decision"
    assert "absolute" in page.text
    assert office.item(key).assigned_to == "moderator"
    version = re.search(r'name="version" value="(\d+)"', page.text).group(1)
    form = {"form_token": token, "id": key, "version": version, "verdict": "overturn", "comment": "banter"}
    client.post("/decision/verdict", data=form)
    (review,) = office.reviews(key)
    assert (review.reviewer, review.verdict, review.comment) == ("moderator", "overturn", "banter")
    assert (office.item(key).status, office.item(key).outcome) == ("done", "overturn")
    assert office.store.verify().ok


def test_the_page_explains_the_decision(office: Any) -> None:
    key = office.rewritten(failures={"judge": "TimeoutError: 2 s"})
    text = office.browser("viewer").read(key).text
    assert '<mark title="harassment">You </mark><mark title="harassment"><del>absolute idiot!</del></mark> Bye.' in text
    assert "You <ins>can do it.</ins> Bye." in text
    rule = office.policy.document.rules["harassment"]
    assert rule.description in text
    assert f"block {rule.thresholds[Action.BLOCK]:.2f}" in text
    for shown in ("0.90", "judge failed: TimeoutError", "careful", "meaning kept 0.83"):
        assert shown in text
    assert "Your verdict" not in text  # a viewer only reads


def test_an_edit_is_recorded_with_its_text(office: Any) -> None:
    key = office.rewritten()
    office.browser("moderator").decide(key, "edit", edited_text="Sure, try again.\r\nBye.")
    assert office.reviews(key)[0].edited_text == "Sure, try again.\nBye."


@pytest.mark.parametrize(
    ("verdict", "status", "text"),
    [("uphold", "refused", None), ("overturn", "released", None), ("edit", "released", "I will find your shop.")],
)
def test_a_held_draft_is_released_or_refused(office: Any, verdict: str, status: str, text: str | None) -> None:
    key = office.held()
    page = office.browser("moderator").read(key).text
    assert "its reader is waiting" in page
    fields = {"edited_text": text} if text else {}
    assert office.browser("moderator").decide(key, verdict, **fields).status_code == 303
    settled = look(office.store, key)
    assert settled is not None
    assert (settled.status, settled.text, settled.by) == (status, text, "moderator")
    assert wait(office.store, key, timeout=0).status == status


def test_a_verdict_after_the_time_is_up_delivers_nothing(office: Any) -> None:
    key = office.held()
    assert wait(office.store, key, timeout=0).status == "expired"
    assert "Nobody decided in time" in office.browser("moderator").read(key).text
    assert office.browser("moderator").decide(key, "overturn").status_code == 303
    assert wait(office.store, key, timeout=0).status == "expired"
    assert office.item(key).outcome == "overturn"


def test_the_second_of_two_reviewers_is_told_and_loses_nothing(office: Any) -> None:
    key = office.rewritten()
    office.browser("moderator").decide(key, "uphold")
    answer = office.browser("second").decide(key, "overturn", comment="I took my time over this")
    assert answer.status_code == 409
    assert "settled meanwhile (uphold)" in answer.text
    assert len(office.reviews(key)) == 1


def test_a_page_that_is_old_keeps_what_was_typed(office: Any, sexual: dict[str, Any]) -> None:
    key = office.rewritten(**sexual)
    office.browser("moderator").decide(key, "uphold")
    answer = office.browser("second").decide(key, "edit", comment="mine", edited_text="my <b>text</b>")
    assert answer.status_code == 409
    assert "while you were reading" in answer.text
    assert ">\nmine</textarea>" in answer.text
    assert "my &lt;b&gt;text&lt;/b&gt;" in answer.text
    assert len(office.reviews(key)) == 1


def test_two_people_have_to_agree_where_the_rule_says_so(office: Any, sexual: dict[str, Any]) -> None:
    key = office.rewritten(**sexual)
    first, second = office.browser("moderator"), office.browser("second")
    first.decide(key, "overturn", comment="harmless, see paragraph two")
    assert (office.item(key).status, office.item(key).needs) == ("second", 2)
    page = second.read(key).text
    assert "harmless" not in page  # an opinion of one's own first
    assert "Somebody has decided already" in page
    assert first.decide(key, "overturn", version=2).status_code == 409
    assert second.decide(key, "overturn", version=2).status_code == 303
    assert (office.item(key).status, office.item(key).outcome) == ("done", "overturn")
    assert "harmless" in second.read(key).text


def test_a_disagreement_goes_to_a_lead(office: Any, sexual: dict[str, Any]) -> None:
    key = office.rewritten(**sexual)
    office.browser("moderator").decide(key, "overturn")
    office.browser("second").decide(key, "uphold", version=2)
    assert office.item(key).status == "split"
    assert office.browser("moderator").decide(key, "uphold", version=3).status_code == 409
    assert "settle it" in office.browser("lead").read(key).text
    assert office.browser("lead").decide(key, "uphold", version=3).status_code == 303
    assert office.item(key).outcome == "uphold"


def test_two_edits_agree_only_if_their_words_do(office: Any, sexual: dict[str, Any]) -> None:
    same, other = office.rewritten(**sexual), office.rewritten(**sexual)
    for key, text in ((same, "One way."), (other, "Another way.")):
        office.browser("moderator").decide(key, "edit", edited_text="One way.")
        office.browser("second").decide(key, "edit", version=2, edited_text=text)
    assert (office.item(same).status, office.item(other).status) == ("done", "split")


def test_passing_it_on_and_opening_it_again(office: Any) -> None:
    key = office.rewritten()
    office.browser("moderator").decide(key, "escalate", comment="above me")
    assert office.item(key).status == "split"
    office.browser("lead").decide(key, "uphold", version=2)
    assert office.browser("moderator").post("/decision/reopen", id=key, version="3").status_code == 403
    assert office.browser("lead").post("/decision/reopen", id=key, version="3").status_code == 303
    assert (office.item(key).status, office.item(key).outcome) == ("open", None)
    assert office.browser("lead").post("/decision/reopen", id=key, version="3").status_code == 409


def test_a_script_in_a_comment_is_text(office: Any) -> None:
    key = office.rewritten(source="<script>alert('draft')</script>", reasons=(), rewrite=None)
    script = "<script>alert('comment')</script><img src=x onerror=alert(1)>"
    office.browser("moderator").post("/decision/comment", id=key, comment=script)
    answer = office.browser("second").read(key)
    assert "&lt;script&gt;alert(&#39;comment&#39;)" in answer.text
    assert "alert('" not in answer.text
    assert "<img" not in answer.text
    assert re.findall(r"<script[^>]*>", answer.text) == re.findall(r'<script src="/static/[^>]+ defer>', answer.text)
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_session_that_ends_while_typing_keeps_the_text(office: Any) -> None:
    key = office.rewritten()
    client = office.anybody()
    fields = {"id": key, "version": "1", "verdict": "edit", "back": f"/decision?id={key}", "form_token": "old"}
    typed = {"comment": "An hour's <i>thought</i>", "edited_text": 'Say "this" instead.\n\nBye.'}
    page = client.post("/decision/verdict", data=fields | typed)
    assert page.status_code == 401
    assert "What you typed is kept" in page.text
    form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text))
    held = dict(re.findall(r'<textarea name="([^"]+)" hidden[^>]*>\n?(.*?)</textarea>', page.text, re.DOTALL))
    plain = {name: value.replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'").replace("&#34;", '"')
             for name, value in held.items()}  # fmt: skip
    assert {name: plain[name] for name in typed} == typed
    signed = client.post("/login", data=form | plain | {"user": "moderator", "password": office.password})
    assert signed.status_code == 200
    assert "nothing was sent yet" in signed.text
    assert "An hour&#39;s &lt;i&gt;thought" in signed.text
    assert "Say &#34;this&#34; instead.\n\nBye." in signed.text
    assert office.reviews(key) == []
    # and the page works: the session is there, and the form's token is the new one
    token = re.search(r'name="form_token" value="([^"]+)"', signed.text).group(1)
    client.post("/decision/verdict", data=fields | typed | {"form_token": token})
    assert office.reviews(key)[0].comment == typed["comment"]


def test_another_site_cannot_plant_text_in_a_form(office: Any) -> None:
    key = office.rewritten()
    fields = {"id": key, "comment": "planted", "back": f"/decision?id={key}"}
    answer = office.anybody().post("/decision/verdict", data=fields, headers={"Origin": "https://evil.test"})
    assert answer.status_code == 401
    assert "planted" not in answer.text


def test_labels_comments_and_preferences_are_recorded(office: Any) -> None:
    key = office.rewritten()
    moderator = office.browser("moderator")
    page = moderator.read(key).text
    better, over = re.search(
        r'name="better" value="(\d+)"><input type="hidden" name="over" value="(\d+)"', page
    ).groups()
    assert {better, over} == {"1", "2"}  # the two that pass
    assert moderator.post("/decision/prefer", id=key, better=better, over=over).status_code == 303
    assert "Which rewrite is better?" not in moderator.read(key).text
    assert "Which rewrite is better?" in office.browser("second").read(key).text
    moderator.post("/decision/label", id=key, name="insult", value="no")
    with reading(office.store) as connection:
        label = connection.execute(select(labels).where(labels.c.decision_id == key)).one()
        kept = connection.execute(select(reviews).where(reviews.c.decision_id == key)).one()
        kinds = set(connection.scalars(select(events.c.kind).where(events.c.decision_id == key)))
    assert (label.name, label.value, label.author, label.source) == ("insult", 0.0, "moderator", "review")
    assert (kept.preferred, kept.over) == (int(better), int(over))
    assert {"label", "review"} <= kinds


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/decision/comment", {"comment": "  "}),
        ("/decision/comment", {"comment": "x" * 10_001}),
        ("/decision/label", {"name": "insult", "value": "maybe"}),
        ("/decision/label", {"name": "", "value": "yes"}),
        ("/decision/prefer", {"better": "1", "over": "99"}),
        ("/decision/prefer", {"better": "1", "over": "1"}),
        ("/decision/prefer", {"better": "-1", "over": "x"}),
        ("/decision/verdict", {"verdict": "applaud", "version": "1"}),
        ("/decision/verdict", {"verdict": "edit", "version": "1", "edited_text": " \n"}),
    ],
)
def test_what_makes_no_sense_is_refused(office: Any, path: str, fields: dict[str, str]) -> None:
    key = office.rewritten()
    answer = office.browser("moderator").post(path, id=key, **fields)
    assert answer.status_code == 400
    assert "Not recorded" in answer.text
    assert office.reviews(key) == []


def test_a_draft_of_a_megabyte_is_shown_in_part_and_whole(office: Any) -> None:
    words = "word " * 200_000
    source = f"{words}You idiot!"
    reason = Reason("harassment", Stage.OUTPUT, Action.BLOCK, 0.9, 0.6, {}, ((1_000_000, 1_000_010),))
    key = office.rewritten(
        source=source,
        text=None,
        refusal="No.",
        state=State.BLOCKED,
        action=Action.BLOCK,
        reasons=(reason,),
        rewrite=None,
    )
    viewer = office.browser("viewer")
    page = viewer.read(key)
    assert len(page.text) < 60_000
    assert "Characters 998,000 to 1,000,010 of 1,000,010." in page.text
    assert '<mark title="harassment">You idiot!</mark>' in page.text
    whole = viewer.get("/decision/text", id=key, which="draft")
    assert whole.status_code == 200
    assert '<mark title="harassment">You idiot!</mark>' in whole.text
    edited = office.browser("moderator").decide(key, "edit", edited_text=words)
    assert edited.status_code == 303
    assert office.reviews(key)[0].edited_text == words


def test_a_rewritten_draft_of_a_megabyte_is_compared_and_its_candidates_are_cut(office: Any) -> None:
    words = [f"word{at * 7919 % 3001}" for at in range(120_000)]
    source = " ".join(words)
    texts = [" ".join([*words[:-9], kind, *words[-8:]]) for kind in ("kindly", "gently")]
    candidates = tuple(
        Candidate(text, "dglm", 0.05, True, 0.7, -2.5, 0.6, {"toxicity": 0.05}, seed) for seed, text in enumerate(texts)
    )
    rewrite = Rewrite(source, texts[0], "dglm", 0.8, 0.9, 0.06, candidates, (), 1)
    key = office.rewritten(source=source, text=texts[0], rewrite=rewrite, reasons=())
    page = office.browser("moderator").read(key)
    assert len(page.text) < 120_000
    assert "<ins>kindly</ins>" in page.text
    assert "Which rewrite is better?" in page.text
    assert page.text.count("The first 20,000 of") == 2
    assert "too long to stand here" in page.text


def test_a_held_draft_is_blurred_on_its_own_page_too(office: Any) -> None:
    held = office.rewritten(
        risk=0.5, text=None, refusal="Wait.", state=State.ESCALATED, action=Action.ESCALATE, rewrite=None
    )
    for path in ("/decision", "/decision/text"):
        assert " veil" in office.browser("moderator").get(path, id=held, which="draft").text


def test_a_form_that_is_too_large_is_refused(office: Any) -> None:
    key = office.rewritten()
    answer = office.browser("moderator").post("/decision/comment", id=key, comment="x" * 300_000)
    assert answer.status_code == 413


def test_the_conversation_around_a_text(office: Any) -> None:
    turns = [office.record(_turn(office, f"turn number {at}"), conversation="c-1") for at in range(3)]
    office.record(_turn(office, "another conversation"), conversation="c-2")
    page = office.browser("viewer").read(turns[1]).text
    assert page.index("turn number 0") < page.index("this text") < page.index("turn number 2")
    assert "another conversation" not in page


def _turn(office: Any, text: str) -> Any:
    from guardrail.types import Decision

    return Decision(
        id=f"{text.replace(' ', '-')}", action=Action.ALLOW, state=State.ALLOWED, risk=0.01, stage=Stage.INPUT,
        policy=office.policy.name, revision=office.policy.revision, text=text, source=text, request_id=text,
    )  # fmt: skip


def test_severe_texts_are_blurred_and_counted(fresh: Callable[..., Any]) -> None:
    office = fresh()
    mild, severe = office.rewritten(risk=0.3), office.rewritten(risk=0.97, request_id="another")
    viewer = office.browser("viewer")
    assert "veil" not in viewer.read(mild).text
    page = viewer.read(severe).text
    assert 'class="text veil"' in page
    assert 'id="reveal"' in page
    assert "2 read · 1 severe" in viewer.get("/me").text
    viewer.post("/me", theme="dark", greyscale="on", daily_limit="1")
    page = viewer.read(severe).text
    assert "veil" not in page
    assert 'data-theme="dark" class="grey"' in page
    assert "Take a break" in page


def test_where_texts_are_not_stored_the_page_says_so(office: Any) -> None:
    from guardrail.audit.store import AuditStore

    quiet = AuditStore(office.store.engine, store_text=False)
    key = office.rewritten(id="digest-only", source="secret words", rewrite=None, text="secret word")
    assert "secret" in office.browser("viewer").read(key).text
    quiet.record([_turn(office, "never stored")], policy=office.policy, community="gamers")
    page = office.browser("viewer").read("never-stored")
    assert page.status_code == 200
    assert "Not stored" in page.text
    assert "never stored" not in page.text


def test_lone_surrogates_and_nul_are_shown(office: Any) -> None:
    key = office.rewritten(
        id="odd/id?&\x00", source="cut \ud83d in half, \x00 and more", rewrite=None, text=None, refusal="No."
    )
    answer = office.browser("viewer").read(key)
    assert answer.status_code == 200
    assert "in half" in answer.text


def test_similar_decisions_are_found_by_meaning(fresh: Callable[..., Any]) -> None:
    import numpy as np

    def encode(texts: list[str]) -> Any:
        vectors = np.array([[float(word in text) for word in ("cat", "dog", "sea")] for text in texts]) + 1e-3
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    office = fresh(encode=encode)
    plain: dict[str, Any] = {"reasons": (), "rewrite": None, "text": None, "refusal": "No."}
    cat, sea = office.rewritten(source="a cat", risk=0.95, **plain), office.rewritten(source="the sea", **plain)
    mine = office.rewritten(source="my cat", **plain)
    moderator = office.browser("moderator")
    assert "None in this community so far" in moderator.get("/decision/similar", id=mine, part="1").text
    for key in (cat, sea):
        moderator.decide(key, "overturn")
    part = moderator.get("/decision/similar", id=mine, part="1").text
    assert f"/decision?id={cat}" in part
    assert f"/decision?id={sea}" not in part
    assert "overturned" in part
    assert 'class="veil"' in part  # a severe text is blurred here too, whatever became of it


def test_work_is_handed_out_once(fresh: Callable[..., Any]) -> None:
    office = fresh()
    keys = {office.rewritten() for _ in range(3)}
    office.fill()
    places = [
        office.browser(name).post("/next", community="gamers").headers["location"] for name in ("moderator", "second")
    ]
    assert len(set(places)) == 2
    assert {place.partition("=")[2] for place in places} < keys
    lead = office.browser("lead")
    (left,) = keys - {place.partition("=")[2] for place in places}
    lead.post("/decision/assign", id=left, assignee="second")
    assert office.browser("moderator").post("/next", community="gamers").headers["location"] == places[0]
    assert lead.post("/next", community="gamers").headers["location"] == "/queue?community=gamers"
    assert lead.post("/decision/assign", id=left, assignee="viewer").status_code == 400
    lead.post("/decision/assign", id=left, assignee="")
    assert lead.post("/next", community="gamers").headers["location"] == f"/decision?id={left}"


def test_what_was_erased_or_deleted_leaves_the_pages_whole(fresh: Callable[..., Any]) -> None:
    from guardrail.audit.erasure import erase, retain

    office = fresh()
    deleted, erased = office.rewritten(created_at=1_600_000_000.0), office.rewritten(request_id="its-own")
    office.fill()
    erase(office.store, by="admin", decision_id=erased)
    page = office.browser("viewer").read(erased)
    assert page.status_code == 200
    assert "Erased on" in page.text
    assert "idiot" not in page.text
    retain(office.store, keep_decisions=365)
    viewer = office.browser("viewer")
    assert viewer.read(deleted).status_code == 404
    queue = viewer.get("/queue", community="gamers")
    assert queue.status_code == 200
    assert deleted not in queue.text
    assert office.store.verify().ok
