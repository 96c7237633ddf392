"""The queue and the page of one decision: reading, deciding, labelling, comparing."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from fastapi import Response

from guardrail.audit.people import Change, People
from guardrail.audit.query import StoredDecision
from guardrail.audit.scan import SCANNED
from guardrail.errors import ConfigurationError
from guardrail.review import filling, queue, verdicts
from guardrail.review.access import Denied, Visit
from guardrail.review.accounts import find_user
from guardrail.review.database import reading, writing
from guardrail.review.diff import shorten
from guardrail.review.priority import SEVERE_RISK, severe
from guardrail.review.render import communities_of, document, page, redirect
from guardrail.review.roles import Role, role_in
from guardrail.review.similar import Neighbours
from guardrail.review.statement import statement
from guardrail.review.verdicts import Conflict, Given
from guardrail.review.view import gather, pieces_of
from guardrail.types import State

__all__ = ["assign", "comment", "decision", "home", "label", "prefer", "reopen", "search", "similar", "statement_of", "take_next",
           "text", "urgent", "verdict", "waiting"]  # fmt: skip

_INLINE_FILL = 200  # decisions that a page looks through itself; more is left to the background
_LONGEST_COMMENT = 10_000
_neighbours = Neighbours()


def decision_path(decision_id: str) -> str:
    """The page of a decision."""
    return f"/decision?id={quote(decision_id, safe='')}"


def home(visit: Visit) -> Response:
    """Go to the queue of the first community that the visitor has a role in."""
    with reading(visit.desk.store) as connection:
        mine = communities_of(connection, visit.me)
    return redirect(f"/queue?community={quote(mine[0], safe='')}") if mine else page(visit, "nothing.html")


def waiting(visit: Visit) -> Response:
    """The queue of one community."""
    desk, community = visit.desk, visit.community
    view, rule = visit.given("view", "open"), visit.given("rule")
    with reading(desk.store) as connection:
        behind = filling.backlog(connection, community)
    if 0 < behind <= _INLINE_FILL:
        behind -= filling.fill(desk.store, desk.policies, community, _INLINE_FILL)
    with reading(desk.store) as connection:
        try:
            items, following = queue.page(connection, community, view, rule=rule or None, after=visit.given("after"))
        except ConfigurationError as error:
            raise Denied(400, f"{error}.") from None
        excerpts = queue.excerpts(connection, [item.decision_id for item in items])
        counts = queue.counts(connection, community)
        held = queue.urgent(connection, community)
    return page(
        visit, "queue.html", items=items, following=following, counts=counts, view=view, rule=rule, behind=behind, held=held,
        excerpts=excerpts, severe=grave,
    )  # fmt: skip


def grave(item: queue.Item) -> bool:
    """Whether an excerpt in the list is blurred."""
    return item.state in {State.ESCALATED, State.BLOCKED} or item.risk >= SEVERE_RISK


def urgent(visit: Visit) -> Response:
    """How many drafts are held while their readers wait: the open page of the queue asks from time to time."""
    with reading(visit.desk.store) as connection:
        return document({"held": queue.urgent(connection, visit.community)})


def search(visit: Visit) -> Response:
    """Decisions by words in their texts, or by the beginning of an id."""
    words = visit.given("text").strip()
    found: Sequence[StoredDecision] = ()
    error, partly = "", 0
    if words:
        try:
            first = visit.desk.store.list(community=visit.community, text=words, limit=40)
            found = first.items
            partly = SCANNED if first.next and len(found) < 40 else 0
        except ConfigurationError as problem:
            error = f"{problem}."
        keys = visit.desk.store.find_ids(words, limit=5) if len(words) >= 6 else ()
        named = [one for key in keys if (one := visit.desk.store.get(key)) and one.community == visit.community]
        found = [*named, *(one for one in found if one.id not in {other.id for other in named})]
    return page(
        visit,
        "search.html",
        400 if error else 200,
        text=words,
        found=found,
        error=error,
        partly=partly,
        severe=severe,
        shorten=shorten,
    )


def take_next(visit: Visit) -> Response:
    """Hand the visitor the most urgent item that nobody works on."""
    return _next(visit, skip="")


def _next(visit: Visit, skip: str) -> Response:
    with writing(visit.desk.store) as connection:
        queue.calm(connection, visit.community)
        lead = visit.may(Role.LEAD)
        key = queue.claim_next(connection, visit.community, visit.me.name, skip=skip, lead=lead)
    return redirect(decision_path(key) if key else f"/queue?community={quote(visit.community, safe='')}")


def _stored(visit: Visit) -> StoredDecision:
    found = visit.desk.store.get(visit.decision_id)
    if found is None:
        raise Denied(404, "There is no such decision, or you have no access to its community.")
    return found


def decision(visit: Visit, *, status: int = 200, error: str = "") -> Response:
    """The page of one decision."""
    found = _stored(visit)
    with reading(visit.desk.store) as connection:
        view = gather(connection, visit.desk, found, visit.me.name)
    if visit.request.method == "GET" and not visit.typed:
        visit.exposed = view.severe
    return page(visit, "decision.html", status, view=view, decision=found, error=error, path=decision_path(found.id))


def text(visit: Visit) -> Response:
    """One whole text of a decision, however long."""
    which = visit.given("which", "draft")
    if which not in {"draft", "delivered"}:
        raise Denied(400, "The text is the draft or the delivered one.")
    found = _stored(visit)
    _, pieces = pieces_of(found, which)
    grave = severe(found.action, found.risk)
    path = decision_path(found.id)
    return page(visit, "text.html", decision=found, which=which, pieces=pieces, path=path, severe=grave)


def similar(visit: Visit) -> Response:
    """Past decisions on similar texts; asked for after the page, because an encoder may have to load."""
    with reading(visit.desk.store) as connection:
        found = _neighbours.of(connection, visit.desk, visit.decision_id, visit.community)
    inside = visit.given("part") == "1"
    return page(
        visit, "similar_part.html" if inside else "similar.html", found=found, path=decision_path(visit.decision_id)
    )


def statement_of(visit: Visit) -> Response:
    """The statement of reasons that the author of the text gets."""
    found = _stored(visit)
    with reading(visit.desk.store) as connection:
        rules = visit.desk.policies.rules(connection, found.revision)
        item = queue.item_of(connection, found.id)
        people = [one.reviewer for one in verdicts.opinions(connection, found.id)]
    made = statement(found, rules, outcome=item.outcome if item else None, people=people)
    return page(visit, "statement.html", statement=made, path=decision_path(found.id))


# --------------------------------------------------------------------------------------------------------- deciding


def _again(visit: Visit, status: int, error: str) -> Response:
    """The page once more, with what was typed and what was wrong."""
    visit.typed = dict(visit.fields)
    return decision(visit, status=status, error=error)


def _comment(visit: Visit) -> str:
    written = visit.fields.get("comment", "").strip()
    if len(written) > _LONGEST_COMMENT:
        raise ConfigurationError(f"the comment has {len(written)} characters, at most {_LONGEST_COMMENT} are kept")
    return written


def verdict(visit: Visit) -> Response:
    """Uphold, overturn, edit, or pass to a lead; then on to the next item."""
    version = visit.fields.get("version", "")
    try:
        given = Given(
            verdict=visit.fields.get("verdict", ""),
            version=int(version) if version.isdecimal() else 0,
            reviewer=visit.me.name,
            comment=_comment(visit),
            edited_text=visit.fields.get("edited_text", "").replace("\r\n", "\n"),
            lead=visit.may(Role.LEAD),
        )
        verdicts.decide(visit.desk, visit.decision_id, given)
    except Conflict as conflict:
        return _again(visit, 409, str(conflict))
    except ConfigurationError as error:
        return _again(visit, 400, f"Not recorded: {error}.")
    return _next(visit, skip=visit.decision_id)


def _add(visit: Visit, change: Change) -> None:
    """Add what the route is about; the routes below differ in nothing else."""
    name, fields = visit.me.name, visit.fields
    if visit.route.path.endswith("/comment"):
        written = _comment(visit)
        if not written:
            raise ConfigurationError("the comment is empty")
        change.review(visit.decision_id, reviewer=name, verdict="comment", comment=written)
    elif visit.route.path.endswith("/label"):
        value = {"yes": 1.0, "no": 0.0}.get(fields.get("value", ""))
        label_name = fields.get("name", "").strip()
        if value is None or not 1 <= len(label_name) <= 64:
            raise ConfigurationError("a label is the name of a rule or classifier, and yes or no")
        change.label(visit.decision_id, name=label_name, value=value, author=name)
    else:
        better, over = fields.get("better", ""), fields.get("over", "")
        if not (better.isdecimal() and over.isdecimal()):
            raise ConfigurationError("choose one of the two rewrites")
        found = _stored(visit)
        if not {int(better), int(over)} <= {one.position for one in found.candidates}:
            raise ConfigurationError("there are no such rewrites of this draft")
        change.review(visit.decision_id, reviewer=name, verdict="prefer", preferred=int(better), over=int(over))


def _added(visit: Visit) -> Response:
    try:
        with People(visit.desk.store).change() as change:
            _add(visit, change)
    except ConfigurationError as error:
        return _again(visit, 400, f"Not recorded: {error}.")
    return redirect(decision_path(visit.decision_id))


def comment(visit: Visit) -> Response:
    """Say something without deciding."""
    return _added(visit)


def label(visit: Visit) -> Response:
    """Say what a rule or classifier should have found."""
    return _added(visit)


def prefer(visit: Visit) -> Response:
    """Choose between two rewrites."""
    return _added(visit)


def reopen(visit: Visit) -> Response:
    """Put a settled item back into the queue."""
    version = visit.fields.get("version", "")
    try:
        verdicts.reopen(visit.desk, visit.decision_id, visit.me.name, int(version) if version.isdecimal() else 0)
    except Conflict as conflict:
        return _again(visit, 409, str(conflict))
    return redirect(decision_path(visit.decision_id))


def assign(visit: Visit) -> Response:
    """Give an item to somebody, or to nobody."""
    name = visit.fields.get("assignee", "").strip().lower()
    with writing(visit.desk.store) as connection:
        other = find_user(connection, name) if name else None
        held = role_in(other.roles, visit.community) if other is not None and other.active else None
        fits = held is not None and held.covers(Role.MODERATOR)
        if not name or fits:
            queue.assign(connection, visit.decision_id, name or None)
    if name and not fits:
        return _again(visit, 400, f"{name!r} is no moderator of this community.")
    return redirect(decision_path(visit.decision_id))
