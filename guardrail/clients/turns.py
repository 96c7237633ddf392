"""The turns of a request: which of them are new, and what of them is judged together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from guardrail.types import Stage
from guardrail.wire.pieces import Form, Role, Turn
from guardrail.wire.units import JoinedUnit, TextUnit, Unit, unit_of

__all__ = ["first_new", "runs", "units_of"]


def first_new(turns: Sequence[Turn]) -> int:
    """Index of the first turn after the last answer. A last assistant turn is a beginning that the caller wants continued."""
    for index in range(len(turns) - 1, 0, -1):
        if turns[index].role is not Role.ASSISTANT and turns[index - 1].role is Role.ASSISTANT:
            return index
    return 0


def runs(turns: Sequence[Turn]) -> Iterator[tuple[int, int]]:
    """Consecutive turns of the user together, every other turn by itself."""
    start = 0
    for index in range(1, len(turns) + 1):
        joined = index < len(turns) and turns[index].role is Role.USER and turns[start].role is Role.USER
        if not joined:
            if index > start:
                yield start, index
            start = index


def units_of(run: Sequence[Turn], context: tuple[str, ...]) -> list[Unit]:
    """The user's plain words as one unit, every other text by itself."""
    pieces = [piece for turn in run for piece in turn.pieces if piece.text]
    role = run[0].role
    if role is Role.SYSTEM:
        return [TextUnit(replace(piece, form=Form.OPAQUE), context) for piece in pieces]
    joined = [p for p in pieces if role is Role.USER and p.form is Form.TEXT and p.stage is Stage.INPUT and p.remove]
    found: list[Unit] = [JoinedUnit(joined, context)] if joined else []
    return found + [unit_of(piece, context) for piece in pieces if piece not in joined]
