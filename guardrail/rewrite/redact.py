"""Redaction: forbidden words, or the whole stretch where it is the sentence that offends, give way to a mark."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from guardrail.rewrite.base import Proposal, RewriteRequest
from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.settings import Settings

MARK = "[removed]"


class Redactor:
    """Replace matches by a mark, which says what stood there if that is known; or, if need be, the whole stretch."""

    name = "redact"
    rounds = 1
    fingerprint = "sha256:" + hashlib.sha256(MARK.encode()).hexdigest()

    def propose(self, requests: list[RewriteRequest]) -> list[list[Proposal]]:
        """Return, least invasive first: the text with its matches marked (if any), then the mark alone."""
        return [self._proposals(request) for request in requests]

    @staticmethod
    def _proposals(request: RewriteRequest) -> list[Proposal]:
        found = [Proposal(MARK)]
        if request.matches:
            text = request.text
            for (start, end), label in reversed(_apart(request)):
                text = text[:start] + (f"[{label} removed]" if label else MARK) + text[end:]
            found.insert(0, Proposal(text))
        return found


def _apart(request: RewriteRequest) -> list[tuple[Span, str]]:
    """The matches in order with their labels, overlapping ones joined; what is joined of two labels has none."""
    joined: list[tuple[Span, str]] = []
    for span in sorted(request.matches):
        label = request.labels.get(span, "").replace("_", " ")
        if joined and span[0] < joined[-1][0][1]:
            (start, end), before = joined[-1]
            joined[-1] = ((start, max(end, span[1])), before if label in ("", before) else "" if before else label)
        else:
            joined.append((span, label))
    return joined


def build(settings: Settings) -> Redactor:  # noqa: ARG001 (every registry entry is called like this)
    """Registry entry."""
    return Redactor()
