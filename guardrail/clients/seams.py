"""Where two texts of an answer meet: patterns look across, for what begins in one text may end in the next.

Each text is judged by itself, and a reader sees them in a row: the sentences of a stream, the blocks of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from guardrail.clients.asking import Steps
from guardrail.text.channel import Seam
from guardrail.types import Decision, Passage, Stage
from guardrail.wire.pieces import Form, Piece

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

__all__ = ["Seams", "Settled"]

Settled = tuple[Piece, str | None, Decision | None]
"""A text of an answer, what it becomes (None: it is withheld), and the decision that counts."""


class Seams:
    """Looks across the seams of one call.

    Args:
        guard: whose patterns are asked.
    """

    def __init__(self, guard: Guardrail) -> None:
        self._guard = guard
        self._patterns: dict[Stage, Callable[[str], bool] | None] = {}  # made when they are first needed

    def forbidden(self, stage: Stage, text: str) -> bool:
        """Whether the patterns of the policy find something in a text that may not pass at `stage`."""
        if stage not in self._patterns:
            self._patterns[stage] = self._guard.assembly().judge.forbidden(stage)
        finds = self._patterns[stage]
        return finds is not None and finds(text)

    def across(self, settled: Sequence[Settled], context: tuple[str, ...]) -> Steps:
        """Return what must be withheld of one answer because two of its texts make something forbidden.

        Args:
            settled: the texts of the answer, in order.
            context: the conversation before it.
        """
        prose = [entry for entry in settled if entry[1] and _is_prose(entry[0])]
        refused: list[Settled] = []
        seam = Seam()
        for piece, text, _ in prose if len(prose) > 1 else ():
            meeting = seam.meets(text or "", partial(self.forbidden, piece.stage))
            if meeting:
                passage = Passage(meeting, piece.stage, context, editable=False, path=piece.path, fixed=True)
                (decision,) = yield (passage,)
                refused += [(piece, None, decision)] if decision.text is None else []
            seam.add(text or "")
        return refused


def _is_prose(piece: Piece) -> bool:
    """Whether a reader sees the text beside the others: not one that repeats them, as `output_text` of a response does."""
    return piece.form is Form.TEXT and piece.stage is Stage.OUTPUT and len(piece.path) > 1
