"""Redaction: forbidden words, or the whole stretch where it is the sentence that offends, give way to a mark."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from guardrail.rewrite.base import Proposal, RewriteRequest

if TYPE_CHECKING:
    from guardrail.settings import Settings

MARK = "[removed]"


class Redactor:
    """Replace matches by a mark; where that may not be enough, the whole stretch."""

    name = "redact"
    fingerprint = "sha256:" + hashlib.sha256(MARK.encode()).hexdigest()

    def propose(self, requests: list[RewriteRequest]) -> list[list[Proposal]]:
        """Return, least invasive first: the text with its matches marked (if any), then the mark alone."""
        return [self._proposals(request) for request in requests]

    @staticmethod
    def _proposals(request: RewriteRequest) -> list[Proposal]:
        found = [Proposal(MARK)]
        if request.matches:
            text = request.text
            for start, end in sorted(request.matches, reverse=True):
                text = text[:start] + MARK + text[end:]
            found.insert(0, Proposal(text))
        return found


def build(settings: Settings) -> Redactor:  # noqa: ARG001 (every registry entry is called like this)
    """Registry entry."""
    return Redactor()
