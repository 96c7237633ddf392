"""Personal data blanked out before a text is written: e-mail addresses, telephone, card and account numbers, IPs.

Each masked character becomes U+2588, so that lengths, spans and edits stay what they were; what was masked, and where,
stands in the decision. Patterns run in RE2: linear time on any text. Numbers count only with a valid check digit where
their kind has one (ISO/IEC 7812 for cards, ISO 13616 for IBANs).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import re2

from guardrail.types import Candidate, Decision

__all__ = ["BLANK", "KINDS", "Masker", "blank", "mask_decision"]

BLANK = "\u2588"

_SURROGATE = re.compile("[\ud800-\udfff]")

Found = list[list[Any]]
"""[kind, start, end] of each masked part, sorted."""


def _luhn(text: str) -> bool:
    digits = [int(sign) for sign in reversed(text) if sign.isdigit()]
    total = sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return 13 <= len(digits) <= 19 and total % 10 == 0


def _mod97(text: str) -> bool:
    compact = "".join(sign for sign in text.upper() if sign.isalnum())
    return 15 <= len(compact) <= 34 and int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


def _phone(text: str) -> bool:
    return 7 <= sum(sign.isdigit() for sign in text) <= 15


def _always(_text: str) -> bool:
    return True


_OCTET = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_IP = rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b|\b(?:[0-9a-fA-F]{{1,4}}:){{7}}[0-9a-fA-F]{{1,4}}\b"
_PHONE = (
    r"\+[0-9](?:[ ().\-]{0,2}[0-9]){6,14}\b|\(?\b0[0-9]{1,4}\)?[ /.\-](?:[0-9][ /.\-]?){4,10}[0-9]\b"
    r"|\(?\b[0-9]{3}\)?[ .\-][0-9]{3}[ .\-][0-9]{4}\b"
)
_PATTERNS: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "email": (r"[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9.\-]{1,255}\.[A-Za-z]{2,24}", _always),
    "iban": (r"\b[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]{2,4}){3,8}\b", _mod97),
    "card": (r"\b[0-9](?:[ \-]?[0-9]){12,18}\b", _luhn),
    "ip": (_IP, _always),
    "phone": (_PHONE, _phone),
}

KINDS = tuple(_PATTERNS)


@cache
def _compiled(kind: str) -> Any:
    return re2.compile(_PATTERNS[kind][0])


class Masker:
    """Masks the kinds of personal data that it was made for.

    Args:
        kinds: of `KINDS`; none masks nothing.

    Raises:
        KeyError: an unknown kind.
    """

    def __init__(self, kinds: Iterable[str] = ()) -> None:
        wanted = set(kinds)
        self._patterns = [(kind, _compiled(kind), check) for kind, (_, check) in _PATTERNS.items() if kind in wanted]
        if len(self._patterns) != len(wanted):
            raise KeyError(f"{', '.join(sorted(wanted - set(KINDS)))} is not one of {', '.join(KINDS)}")

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def find(self, text: str) -> Found:
        """Return what would be masked: [kind, start, end] in code points, none overlapping, sorted."""
        found: Found = []
        taken = bytearray(len(text))
        for kind, pattern, check in self._patterns:
            if kind == "email" and "@" not in text:
                continue
            for match in pattern.finditer(_plain(text)):
                start, end = match.span()
                if check(text[start:end]) and not any(taken[start:end]):
                    found.append([kind, start, end])
                    taken[start:end] = b"\1" * (end - start)
        return sorted(found, key=lambda one: one[1:])

    def mask(self, text: str) -> tuple[str, Found]:
        """Return the text with its personal data blanked out, equally long, and what was found."""
        found = self.find(text)
        return blank(text, found), found


def blank(text: str, found: Sequence[Sequence[Any]]) -> str:
    """Return `text` with the parts blanked out."""
    pieces, done = [], 0
    for _, start, end in found:
        pieces += [text[done:start], BLANK * (end - start)]
        done = end
    return "".join((*pieces, text[done:]))


def mask_decision(decision: Decision, masker: Masker) -> tuple[Decision, dict[str, Found]]:
    """Return the decision with personal data blanked out of all its texts, and what was blanked out where.

    The keys name the text: `source`, `delivered`, `rewrites.0`, `reasons.1.error`, `failures.judge`, `note`.
    """
    masked: dict[str, Found] = {}

    def clean(field_name: str, text: str) -> str:
        text, found = masker.mask(text)
        if found:
            masked[field_name] = found
        return text

    def candidates(items: Sequence[Candidate], first: int) -> tuple[Candidate, ...]:
        return tuple(replace(one, text=clean(f"rewrites.{at}", one.text)) for at, one in enumerate(items, first))

    rewrite = decision.rewrite
    if rewrite is not None:
        chosen = clean("rewrites.0", rewrite.text)
        edits = tuple((span, masker.mask(text)[0]) for span, text in rewrite.edits)
        rewrite = replace(rewrite, text=chosen, edits=edits, candidates=candidates(rewrite.candidates, 1))
    source = clean("source", decision.source)
    delivered = decision.text
    if delivered is not None:
        delivered = source if delivered == decision.source else clean("delivered", delivered)
    reasons = tuple(
        replace(one, error=clean(f"reasons.{at}.error", one.error)) for at, one in enumerate(decision.reasons)
    )
    failures = {who: clean(f"failures.{who}", error) for who, error in decision.failures.items()}
    cleaned = replace(
        decision,
        source=source,
        text=delivered,
        rewrite=rewrite,
        tried=candidates(decision.tried, 1),
        reasons=reasons,
        failures=failures,
        note=clean("note", decision.note),
    )
    return cleaned, masked


def _plain(text: str) -> str:
    """RE2 reads UTF-8, which has no lone surrogates: U+FFFD stands for each, and offsets stay."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
