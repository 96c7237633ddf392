"""Texts to passages and verdicts back to texts.

A unit is what is judged together: one text, the leaves of one JSON text, or consecutive turns of one speaker. It says
which passages to judge and, given one decision for each, what each of its texts becomes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from guardrail.errors import ModerationError
from guardrail.text.segment import fenced_code
from guardrail.types import Decision, Passage, Span
from guardrail.wire import documents
from guardrail.wire.json_schema import is_free_text
from guardrail.wire.pieces import Form, Piece

__all__ = ["REMOVED", "JoinedUnit", "JsonUnit", "TextUnit", "Unit", "unit_of"]

_MOST_LEAVES = 64  # a JSON text with more leaves is judged in this many packs; a pack is never repaired, only blocked
_JOIN = "\n"  # between consecutive turns: they are read as one text, lines apart


class Removed:
    """The type of `REMOVED`."""

    def __repr__(self) -> str:
        return "REMOVED"


REMOVED = Removed()
"""The text of this piece now stands in an earlier piece of the unit; take the piece out of the document."""

Result = str | Removed


class Unit(Protocol):
    """One thing to judge."""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The texts concerned, in document order."""

    @property
    def passages(self) -> tuple[Passage, ...]:
        """What to judge; empty where there is nothing (no text)."""

    def settle(self, decisions: Sequence[Decision]) -> list[Result] | None:
        """What each piece becomes, given one decision per passage; None if the unit is withheld."""


def unit_of(piece: Piece, context: tuple[str, ...] = ()) -> Unit:
    """The unit for one text by itself."""
    if piece.form in (Form.JSON, Form.ARGUMENTS):
        return JsonUnit(piece, context)
    return TextUnit(piece, context)


class TextUnit:
    """One text. Fenced code in it is judged apart from the prose and never repaired."""

    def __init__(self, piece: Piece, context: tuple[str, ...] = ()) -> None:
        self.pieces, self._context = (piece,), context

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """The runs of prose and of code."""
        (piece,) = self.pieces
        runs = _runs(piece.text) if piece.form is Form.TEXT else [(piece.text, False)]
        return tuple(
            Passage(text, piece.stage, self._context, editable=editable, path=piece.path)
            for text, editable in runs
            if text
        )

    def settle(self, decisions: Sequence[Decision]) -> list[Result] | None:
        """Put the repaired runs together again."""
        texts = [decision.text for decision in decisions]
        if any(text is None for text in texts):
            return None
        return ["".join(text for text in texts if text is not None)]


class JoinedUnit:
    """Consecutive texts of one speaker, judged as one, so that nothing hides by being split over turns or parts."""

    def __init__(self, pieces: Sequence[Piece], context: tuple[str, ...] = ()) -> None:
        self.pieces, self._context = tuple(pieces), context

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """All texts as one."""
        text = _JOIN.join(piece.text for piece in self.pieces)
        first = self.pieces[0]
        return (Passage(text, first.stage, self._context, path=first.path),) if text else ()

    def settle(self, decisions: Sequence[Decision]) -> list[Result] | None:
        """Each text with its own edits; where an edit crosses a border, everything moves into the first text."""
        if not decisions:
            return [piece.text for piece in self.pieces]
        decision = decisions[0]
        if decision.text is None:
            return None
        if decision.text == decision.source:
            return [piece.text for piece in self.pieces]
        apart = self._apart(decision)
        if apart is not None:
            return list(apart)
        return [decision.text, *(REMOVED for _ in self.pieces[1:])]

    def _apart(self, decision: Decision) -> list[str] | None:
        if len(self.pieces) == 1:
            return [decision.delivered]
        edits = sorted(decision.rewrite.edits) if decision.rewrite else []
        if not edits or _edited(decision.source, edits) != decision.text:
            return None
        texts, start = [], 0
        for piece in self.pieces:
            end = start + len(piece.text)
            own = [((a - start, b - start), new) for (a, b), new in edits if start <= a and b <= end]
            texts.append(_edited(piece.text, own))
            start = end + len(_JOIN)
        return texts if _JOIN.join(texts) == decision.text else None


@dataclass(frozen=True, slots=True)
class _Leaf:
    path: documents.Path  # in the parsed text; () for the text as a whole
    text: str
    editable: bool
    is_key: bool = False


class JsonUnit:
    """A text that is JSON: its strings are judged one by one, and it stays JSON, whatever happens to them.

    Keys are judged and never altered; neither is a string that its schema ties to a list of values, a pattern or a
    format. A text that turns out not to be JSON (cut off, say) is judged whole and not repaired.
    """

    def __init__(self, piece: Piece, context: tuple[str, ...] = ()) -> None:
        self.pieces, self._context = (piece,), context

    @cached_property
    def _read_once(self) -> tuple[Any, list[_Leaf]]:
        document, leaves = self._read(self.pieces[0])
        return document, _packed(leaves) if len(leaves) > _MOST_LEAVES else leaves

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """The leaves."""
        (piece,) = self.pieces
        return tuple(
            Passage(leaf.text, piece.stage, self._context, editable=leaf.editable, path=(*piece.path, *leaf.path))
            for leaf in self._read_once[1]
        )

    @staticmethod
    def _read(piece: Piece) -> tuple[Any, list[_Leaf]]:
        try:
            document = documents.parse(piece.text, "text")
        except ModerationError:
            whole = [_Leaf((), piece.text, editable=False)] if piece.text else []
            return None, whole
        leaves = [
            _Leaf(path, text, piece.form is Form.JSON and is_free_text(piece.schema, path))
            for path, text in documents.string_leaves(document)
        ]
        keys = [_Leaf(path, key, editable=False, is_key=True) for path, key in _keys(document, piece.schema is None)]
        return document, leaves + keys

    def settle(self, decisions: Sequence[Decision]) -> list[Result] | None:
        """The JSON with its repaired leaves; exactly the original text if none changed."""
        document, leaves = self._read_once
        changed = False
        for leaf, decision in zip(leaves, decisions, strict=True):
            if decision.text is None:
                return None
            if decision.text == leaf.text:
                continue
            changed = True
            if leaf.path and not leaf.is_key:
                documents.put(document, leaf.path, decision.text)
            elif isinstance(document, str):
                document = decision.text
            else:
                return None  # a key, several leaves at once, or no JSON at all: cannot be repaired in place
        return [json.dumps(document, ensure_ascii=False) if changed else self.pieces[0].text]


def _runs(text: str) -> list[tuple[str, bool]]:
    """Split into (text, editable) runs: prose is editable, fenced code is not."""
    runs: list[tuple[str, bool]] = []
    at = 0
    for start, end in fenced_code(text):
        runs += [(text[at:start], True), (text[start:end], False)]
        at = end
    return [*runs, (text[at:], True)]


def _edited(text: str, edits: Sequence[tuple[Span, str]]) -> str:
    parts, at = [], 0
    for (start, end), replacement in edits:
        parts += [text[at:start], replacement]
        at = end
    return "".join([*parts, text[at:]])


def _keys(document: Any, free: bool) -> list[tuple[documents.Path, str]]:
    """The keys of a free-form object, each once. With a schema, the caller chose them."""
    if not free:
        return []
    found: dict[str, documents.Path] = {}
    pending: list[tuple[documents.Path, Any]] = [((), document)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, dict):
            for key, item in node.items():
                if key:
                    found.setdefault(key, path)
                pending.append(((*path, key), item))
        elif isinstance(node, list):
            pending.extend(((*path, index), item) for index, item in enumerate(node))
    return [(path, key) for key, path in found.items()]


def _packed(leaves: list[_Leaf]) -> list[_Leaf]:
    size = -(-len(leaves) // _MOST_LEAVES)
    packs = [leaves[at : at + size] for at in range(0, len(leaves), size)]
    return [_Leaf(pack[0].path, _JOIN.join(leaf.text for leaf in pack), editable=False, is_key=True) for pack in packs]
