"""One logical call, moderated: its request, its response, its stream.

No I/O: the methods are generators that yield what they need (`tuple[Passage, ...]` to be moderated, `Check` to be judged
without repair) and are sent the decisions; `guardrail.clients.driving` drives them from threads and from event loops.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from guardrail.clients.asking import Check, Steps
from guardrail.clients.ledger import Ledger
from guardrail.clients.memory import WITHHELD, Memory, Verdict
from guardrail.clients.named import conversation_of, subject_of
from guardrail.clients.reading import readable
from guardrail.clients.seams import Seams, Settled
from guardrail.clients.turns import first_new, runs, units_of
from guardrail.errors import Blocked
from guardrail.stream import StreamModerator
from guardrail.types import Action, Decision, Passage, Stage, State
from guardrail.wire import documents
from guardrail.wire.formats import WireFormat, strip_marks
from guardrail.wire.pieces import Form, Piece, Role, Turn, Unscanned
from guardrail.wire.units import Removed, Unit, unit_of

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

__all__ = ["Admission", "Exchange"]

_CONTEXT_TURNS = 6  # earlier turns that a text is judged with
_CONTEXT_CHARS = 1000  # of each of them, from its end
_PLACEHOLDER = "[withheld by moderation]"


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go upstream. `changed`: its body is no longer what the caller sent."""

    refused: Decision | None
    changed: bool


@dataclass(slots=True)
class _Planned:
    """A unit of a request on its way through; `same` are others with the same texts, which share its verdict."""

    unit: Unit
    role: Role
    new: bool
    key: bytes
    same: list[Unit] = field(default_factory=list)


class Exchange:
    """One logical call.

    Args:
        guard: who moderates.
        form: the wire format of the call.
        body: the parsed request, changed in place where a text is repaired; empty for calls without a conversation.
        memory: earlier verdicts of this client.
        conversation: ties calls together where the caller names one.
    """

    def __init__(
        self,
        guard: Guardrail,
        form: WireFormat,
        body: dict[str, Any],
        memory: Memory,
        *,
        conversation: str | None = None,
    ) -> None:
        self.guard, self.form, self.body, self.memory = guard, form, body, memory
        self.policy = guard.policy
        self.conversation = conversation or conversation_of(body)
        self.subject = subject_of(body)
        self.ledger = Ledger(self.policy.name, self.policy.revision)
        self.context: tuple[str, ...] = ()
        self.changed = False  # whether the admitted body differs from what the caller sent
        self._seams = Seams(guard)
        self._edits: list[tuple[Piece, str | None]] = []  # None: the piece goes
        self._dropped: list[documents.Path] = []  # images and the like of earlier turns that the policy withholds

    # -- the request -----------------------------------------------------------------------------------------------

    def admit(self) -> Generator[Any, Any, Admission]:
        """Judge every turn that is new; repair the request in place.

        A new turn that is blocked refuses the call. An earlier one is replaced by a placeholder, so that it neither
        reaches the model nor blocks the rest of the conversation.
        """
        with readable("The request"):
            turns = self.form.turns(self.body)
            changed = strip_marks(self.body)
            planned, notes = self._plan(turns)
        decisions, noted = yield from self._judged(planned, notes)
        refused = next((decision for decision in noted if decision.text is None), None)
        return self._applied(planned, decisions, changed, refused)

    def _judged(self, planned: Sequence[_Planned], notes: Sequence[Unscanned]) -> Steps:
        """One decision per passage of the units that are not known yet, in order; and one for each of `notes`."""
        system = tuple(p for entry in planned if entry.role is Role.SYSTEM for p in entry.unit.passages)
        found = iter((yield from self._system(system)) if system else ())
        others = tuple(p for entry in planned if entry.role is not Role.SYSTEM for p in entry.unit.passages)
        others += tuple(Passage("", note.stage, path=note.path, unscanned=note.what) for note in notes)
        rest = iter((yield others) if others else ())
        judged = [next(found if entry.role is Role.SYSTEM else rest) for entry in planned for _ in entry.unit.passages]
        return judged, list(rest)

    def _system(self, passages: tuple[Passage, ...]) -> Steps:
        """Judge system prompts without repair: they are never altered, and only a block or an escalation refuses them."""
        checked: Sequence[Decision] = yield Check(passages)
        recorded = [
            index for index, decision in enumerate(checked) if decision.action not in (Action.REDACT, Action.REWRITE)
        ]
        moderated: Sequence[Decision] = (yield tuple(passages[index] for index in recorded)) if recorded else ()
        result = [
            replace(decision, state=State.FLAGGED, text=decision.source, note="a system prompt is never altered")
            for decision in checked
        ]
        for index, decision in zip(recorded, moderated, strict=True):
            # A person may have released it in other words only: then it is not released.
            result[index] = decision if decision.text in (None, decision.source) else replace(decision, text=None)
        self.ledger.add(result[index] for index in range(len(result)) if index not in recorded)
        return result

    def _plan(self, turns: Sequence[Turn]) -> tuple[list[_Planned], list[Unscanned]]:
        """The units that must be judged, oldest first; what is remembered is applied at once."""
        beginning = first_new(turns)
        planned: dict[tuple[bytes, bool], _Planned] = {}
        notes: list[Unscanned] = []
        context: tuple[str, ...] = ()
        for start, end in runs(turns):
            run, new = turns[start:end], end > beginning
            for unit in units_of(run, context):
                self._recall(planned, unit, run[0].role, new)
            if run[0].role is not Role.SYSTEM:
                said = "\n".join(piece.text for turn in run for piece in turn.pieces)
                context = (*context, said[-_CONTEXT_CHARS:])[-_CONTEXT_TURNS:] if said else context
            unscanned = [note for turn in run for note in turn.unscanned]
            if new:
                notes += unscanned
            elif self.policy.document.unscanned == "block" and self.policy.document.mode == "enforce":
                self._dropped += [note.path for note in unscanned]
        self.context = context
        return list(planned.values()), notes

    def _recall(self, planned: dict[tuple[bytes, bool], _Planned], unit: Unit, role: Role, new: bool) -> None:
        """Apply what is remembered of a unit, or plan to judge it.

        A new turn is always judged, and so is a system prompt that was refused before.
        """
        stage = unit.pieces[0].stage
        key = self.memory.key(self.conversation, self.policy.revision, stage, [piece.text for piece in unit.pieces])
        known, verdict = self.memory.get(key)
        slot = (key, role is Role.SYSTEM)
        if slot in planned:
            planned[slot].same.append(unit)
            planned[slot].new |= new
        elif role is Role.SYSTEM and known and verdict is not WITHHELD:
            return
        elif new or not known or role is Role.SYSTEM:
            planned[slot] = _Planned(unit, role, new, key)
        else:
            self._note_edits(unit, verdict)

    def _applied(
        self, planned: Sequence[_Planned], decisions: Sequence[Decision], changed: bool, refused: Decision | None
    ) -> Admission:
        """Settle every unit, remember its verdict, and write what changed into the body."""
        remaining = iter(decisions)
        for entry in planned:
            own = [next(remaining) for _ in entry.unit.passages]
            settled = entry.unit.settle(own)
            verdict = None if settled is None else tuple(None if isinstance(t, Removed) else t for t in settled)
            self.memory.put(entry.key, verdict)
            if settled is None and (entry.new or entry.role is Role.SYSTEM):
                refused = refused or withheld(own)
            elif entry.role is not Role.SYSTEM:
                for unit in (entry.unit, *entry.same):
                    self._note_edits(unit, verdict)
        if refused is None:
            changed = self._write() or changed
        return Admission(refused, changed)

    def _note_edits(self, unit: Unit, verdict: Verdict) -> None:
        if verdict is WITHHELD:
            first, *rest = unit.pieces
            self._edits.append((first, "{}" if first.form in (Form.JSON, Form.ARGUMENTS) else _PLACEHOLDER))
            self._edits += [(piece, None) for piece in rest]
        else:
            pairs = zip(unit.pieces, verdict, strict=True)
            self._edits += [(piece, text) for piece, text in pairs if text != piece.text]

    def _write(self) -> bool:
        """Write the edits into the body; return whether there were any."""
        for piece, text in self._edits:
            if text is not None:
                documents.put(self.body, piece.path, text)
        removed = [piece.remove for piece, text in self._edits if text is None] + self._dropped
        documents.discard(self.body, removed)
        # A message without any part goes; a part of a part (in a tool's result, say) may be empty.
        emptied = {path[:-2] for path in removed if len(path) == 4 and documents.get(self.body, path[:-1]) == []}
        documents.discard(self.body, emptied)
        return bool(self._edits or self._dropped)

    # -- the response ----------------------------------------------------------------------------------------------

    def answer(self, document: dict[str, Any]) -> Generator[Any, Any, bool]:
        """Judge a whole response and repair it in place; return whether it changed.

        Raises:
            Blocked: an answer is withheld and the settings say `on_block: raise`.
        """
        with readable("The upstream's answer"):
            pieces, notes = self.form.answers(document, self.body)
            tidied = self.form.tidy(document)
            units = [unit_of(piece, self.context) for piece in pieces if piece.text]
        passages = tuple(passage for unit in units for passage in unit.passages)
        passages += tuple(Passage("", note.stage, path=note.path, unscanned=note.what) for note in notes)
        decisions: Sequence[Decision] = (yield passages) if passages else ()
        remaining = iter(decisions)
        lanes: dict[int, list[Settled]] = {}
        for unit in units:
            own = [next(remaining) for _ in unit.passages]
            settled = unit.settle(own)
            text = None if settled is None else str(settled[0])
            lanes.setdefault(unit.pieces[0].lane, []).append((unit.pieces[0], text, withheld(own)))
        for note, decision in zip(notes, remaining, strict=True):
            if decision.text is None:
                lanes.setdefault(note.lane, []).append((Piece(note.path, "", note.stage), None, decision))
        for texts in lanes.values():
            texts.extend((yield from self._seams.across(texts, self.context)))
        changed = [self._lane(document, lane, settled) for lane, settled in lanes.items()]  # every lane, changed or not
        return any(changed) or tidied

    def _lane(self, document: dict[str, Any], lane: int, settled: list[Settled]) -> bool:
        refused = [decision for _, text, decision in settled if text is None]
        if refused:
            words = self.refusal_words(refused[0])
            self.form.refuse(document, lane, words, self.body)
            return True
        altered = [(piece, text) for piece, text, _ in settled if text is not None and text != piece.text]
        marked = [piece for piece, _ in altered if piece.form is Form.TEXT]
        for piece, text, _ in settled:
            said = (text or "") + (self.marker if marked and piece is marked[-1] else "")
            if said != piece.text:
                documents.put(document, piece.path, said)
            self._recall_answer(piece.stage, said)
        for piece, _ in altered:
            self.form.forget(document, piece)
        return bool(altered)

    def _recall_answer(self, stage: Stage, text: str) -> None:
        """What was delivered is clean when it comes back as an earlier turn."""
        self.memory.put(self.memory.key(self.conversation, self.policy.revision, stage, [text]), (text,))

    def stream(self) -> StreamModerator:
        """A moderator for the stream of this call; call `finished` with it when the stream has ended."""
        settings = self.guard.settings.stream
        events = self.form.stream(self.body)
        moderator = StreamModerator(
            events,
            unit=unit_of,
            piece=lambda text, form, stage: Piece((), text, stage, Form(form), schema=events.schema),
            refusal=self.refusal_words,
            lanes=self.form.lanes(self.body),
            context=self.context,
            hold=settings.hold,
            max_chars=settings.max_chars,
            marker=self.marker,
            forbidden=self._seams.forbidden,
        )
        self.ledger.timings = moderator.timings.summary
        return moderator

    def finished(self, moderator: StreamModerator) -> None:
        """Remember what a stream delivered."""
        for stage, text in moderator.delivered:
            if text:
                self._recall_answer(stage, text)

    # -- words -----------------------------------------------------------------------------------------------------

    @property
    def marker(self) -> str:
        """What is appended to an altered text; empty where the policy does not disclose by a marker."""
        document = self.policy.document
        return document.marker if document.disclose == "marker" else ""

    @property
    def state(self) -> State:
        """The gravest state of the call so far, for the header."""
        order = list(State)
        states = [decision.state for decision in self.ledger.decisions if decision.state is not State.NOT_SCANNED]
        return max(states, key=order.index, default=State.ALLOWED)

    def refusal_words(self, decision: Decision | None) -> str:
        """What stands in the place of a withheld text; an escalated one names its ticket.

        Raises:
            Blocked: the settings say `on_block: raise`.
        """
        words = (decision.refusal if decision is not None else None) or self.policy.document.refusal
        if decision is not None and decision.state is State.ESCALATED:
            words = f"{words} (held for review: {decision.id})"
        if self.guard.settings.on_block == "raise":
            why = ", ".join(reason.rule for reason in decision.reasons) if decision is not None else ""
            raise Blocked(
                f"The text was withheld by the policy {self.policy.name!r}{why and f': {why}'}.", self.ledger.outcome
            )
        return words


def withheld(decisions: Sequence[Decision]) -> Decision | None:
    """The first decision that delivers nothing, else the first one of all (whose repair could not be put in place)."""
    return next((decision for decision in decisions if decision.text is None), decisions[0] if decisions else None)
