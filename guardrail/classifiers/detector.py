"""What `pii` and `secrets` share: findings of a type at a place, what a policy chooses of them, and one classifier.

A text is searched as a reader sees it: invisible characters taken out, styled and full-width characters made plain,
case and spelling left alone, because digits and keys are not words. Spans are of the original text.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from guardrail.classifiers.base import check_options
from guardrail.errors import ClassifierError, did_you_mean
from guardrail.text.characters import HIDDEN, hidden
from guardrail.text.edits import Normalised, apply, unchanged
from guardrail.text.styled import STYLED, styled
from guardrail.types import Passage, Score

__all__ = ["Detector", "DetectorClassifier", "Finding", "build_detector", "compiled"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_HIDDEN = re.compile(f"[{HIDDEN}]")
_STYLED = re.compile(f"[{STYLED}]")
_OPTIONS = ("types", "allow", "value")
_REGEX_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something of type `type` at `text[start:end]`."""

    start: int
    end: int
    type: str


Detector = Callable[[str, frozenset[str]], Iterable[Finding]]
"""Finds things of the wanted types in a text; findings may overlap."""


class DetectorClassifier:
    """Scores `value` where something is found, 0 elsewhere, with spans and their types. Immutable, thread-safe.

    Args:
        name: its name in the policy.
        kind: `"pii"` or `"secrets"`.
        detector: what finds.
        types: what it looks for.
        allow: texts that do not count, compared without case and white space.
        value: the score of a finding, in (0, 1].
        fingerprint: `"sha256:..."` of all of these.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        detector: Detector,
        types: frozenset[str],
        allow: frozenset[str],
        value: float,
        fingerprint: str,
    ) -> None:
        self.name, self.kind, self.fingerprint = name, kind, fingerprint
        self.types = types
        self._detector, self._allow, self._value = detector, allow, value

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """One score per passage: `value`, the spans and their types; or 0."""
        return [self._score(passage.text) for passage in passages]

    def find(self, text: str) -> list[Finding]:
        """What is found, in order; of overlapping findings the longest stays."""
        plain = _plain(text)
        kept = [
            finding
            for finding in self._detector(plain.text, self.types)
            if _key(plain.text[finding.start : finding.end]) not in self._allow
        ]
        return [Finding(*plain.to_original(one.start, one.end), one.type) for one in _apart(kept)]

    def _score(self, text: str) -> Score:
        found = self.find(text)
        if not found:
            return Score(0.0)
        return Score(self._value, tuple((one.start, one.end) for one in found), tuple(one.type for one in found))


def _plain(text: str) -> Normalised:
    if text.isascii():
        return unchanged(text)
    current = unchanged(text)
    if _SURROGATE.search(text):  # RE2 reads UTF-8, which has no lone surrogates
        current = Normalised(_SURROGATE.sub("\ufffd", text), range(len(text) + 1), True)
    for needed, stage in ((_HIDDEN, hidden), (_STYLED, styled)):
        if needed.search(current.text):
            current = apply(current, stage(current.text))
    return current


def _apart(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that do not overlap: longer ones first, then earlier ones."""
    chosen: list[Finding] = []  # in order of place
    for one in sorted(findings, key=lambda one: (one.start - one.end, one.start)):
        at = bisect_left(chosen, one)
        before, after = chosen[at - 1] if at else None, chosen[at] if at < len(chosen) else None
        if (before is None or before.end <= one.start) and (after is None or one.end <= after.start):
            chosen.insert(at, one)
    return chosen


def _key(text: str) -> str:
    return "".join(text.split()).casefold()


def build_detector(
    kind: str, version: str, detector: Detector, known: Sequence[str], default: Sequence[str]
) -> Callable[[str, Mapping[str, Any], object], DetectorClassifier]:
    """Return the `build` of a kind whose options are `types`, `allow` and `value`.

    Args:
        kind: its name.
        version: changes whenever its findings may change; part of the fingerprint.
        detector: what finds.
        known: types that a policy may name.
        default: those that are looked for where it names none.
    """

    def build(name: str, options: Mapping[str, Any], context: object) -> DetectorClassifier:  # noqa: ARG001
        check_options(kind, name, options, _OPTIONS)
        types = _texts(name, "types", options.get("types", list(default)))
        for one in types:
            if one not in known:
                raise ClassifierError(
                    f"classifier {name!r}: {one!r} is not a type of {kind!r}, which has {', '.join(known)}."
                    f"{did_you_mean(one, known)}"
                )
        if not types:
            raise ClassifierError(f"classifier {name!r}: `types` is empty, so there is nothing to look for.")
        allow = _texts(name, "allow", options.get("allow", []))
        value = options.get("value", 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise ClassifierError(f"classifier {name!r}: value must be a number above 0 and at most 1, not {value!r}.")
        content = json.dumps([kind, version, sorted(set(types)), sorted(map(_key, allow)), float(value)])
        digest = hashlib.sha256(content.encode()).hexdigest()
        return DetectorClassifier(
            name, kind, detector, frozenset(types), frozenset(map(_key, allow)), float(value), f"sha256:{digest}"
        )

    return build


def _texts(name: str, option: str, value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise ClassifierError(f"classifier {name!r}: {option} must be a list of texts, not {value!r}.")
    return list(value)


def compiled(pattern: str) -> Any:
    """An RE2 expression, which runs in linear time; case counts unless it says `(?i)`."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_MEMORY
    return re2.compile(pattern, options)
