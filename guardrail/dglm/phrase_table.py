"""What people write instead: a phrase table learned from rewrite pairs, which proposes substitutions for weighty words.

Phrases are extracted from word alignments of the pairs (Koehn et al. 2003, section 3); a substitution is a draft for the
decoder, not an answer: it writes the sentence out, so that what stands around agrees. Replacing what offends word by
word: Dale et al. 2021 (CondBERT), section 4.2.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice, product
from pathlib import Path
from typing import Final

from guardrail.errors import CheckpointError
from guardrail.types import Span

FILE: Final = "phrases.json"
LONGEST: Final = 3
"""Words of a phrase at most."""

_EDGES: Final = ".,!?;:\"'()"
_WORD: Final = re.compile(r"\S+")
_ARTICLE: Final = re.compile(r"\b([Aa])(n?)(\s+)(?=(\w+))")
_VOWEL: Final = re.compile(
    r"(?!(?:uni(?![nm])|us[aeiu]|ut[aei]|ur[aio]|ubi|eu|once?\b|one)\w*)[aeiou]|hour|honest|hono|heir", re.IGNORECASE
)
_SPACED: Final = re.compile(r"\s+(?=[.,!?;:]|$)|(?<=\s)\s+")

MAX_COMBINATIONS: Final = 5
"""Of replacements of several phrases."""

Table = Mapping[str, Sequence[tuple[str, float]]]
Fluency = Callable[[Sequence[str], str], list[float]]


@dataclass(frozen=True, slots=True)
class PhraseTable:
    """Phrase -> what stands for it in rewrites, with relative frequencies, best first; "" is leaving it out.

    Phrases are lower-case words without punctuation.
    """

    table: Table

    def substitutions(self, text: str, words: Sequence[Span], fluency: Fluency, count: int) -> list[str]:
        """Return up to `count` distinct copies of `text` with what is known of the words at `words` replaced.

        Adjacent words are looked up together first. Articles follow their new words ("an unwise", "a bad").

        Args:
            fluency: mean log score, in nats, of the new tokens of each text against the draft. Copies are ranked by it
                plus the mean log relative frequency of their replacements.
        """
        phrases = [(span, options) for span, options in self._phrases(text, words) if options]
        copies: dict[str, float] = {}
        tried = max(2, int(MAX_COMBINATIONS ** (1 / max(1, len(phrases)))))  # of the options of each phrase
        for chosen in islice(product(*(options[:tried] for _, options in phrases)), MAX_COMBINATIONS):
            copy = text
            for (start, end), (new, _) in sorted(zip((span for span, _ in phrases), chosen, strict=True), reverse=True):
                copy = copy[:start] + _like(new, text[start:end]) + copy[end:]
            copy = _closed_up(with_articles(copy))
            if copy and copy != text:
                copies.setdefault(copy, sum(math.log(max(share, 1e-6)) for _, share in chosen) / len(chosen))
        if len(copies) <= count:
            return sorted(copies, key=copies.__getitem__, reverse=True)
        scores = {
            copy: habit + value
            for (copy, habit), value in zip(copies.items(), fluency(list(copies), text), strict=True)
        }
        return sorted(scores, key=scores.__getitem__, reverse=True)[:count]

    def _phrases(self, text: str, words: Sequence[Span]) -> list[tuple[Span, Sequence[tuple[str, float]]]]:
        """The longest known phrases that consist of weighty words, and each other weighty word by itself."""
        spans = [match.span() for match in _WORD.finditer(text)]
        weighty = [any(start < b and end > a for a, b in words) for start, end in spans]
        found: list[tuple[Span, Sequence[tuple[str, float]]]] = []
        place = 0
        while place < len(spans):
            if not weighty[place]:
                place += 1
                continue
            for length in range(min(LONGEST, len(spans) - place), 0, -1):
                inside = spans[place : place + length]
                options = self.table.get(" ".join(_bare(text[start:end]) for start, end in inside))
                if length == 1 or (options and all(weighty[place : place + length])):
                    found.append((_core(text, (inside[0][0], inside[-1][1])), options or ()))
                    place += length
                    break
        return found


def learn(pairs: Iterable[tuple[str, str]], least: int = 2, options: int = 6) -> PhraseTable:
    """Extract phrases from (draft, rewrite) pairs.

    Args:
        least: times a phrase has to have been replaced. options: replacements that are kept of each.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for source, target in pairs:
        mine, theirs = ([_bare(word) for word in text.split()] for text in (source, target))
        for kind, start, stop, first, last in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
            if kind in {"replace", "delete"} and stop - start <= LONGEST and last - first <= LONGEST + 1:
                counts[" ".join(mine[start:stop])][" ".join(theirs[first:last])] += 1
    table = {
        phrase: tuple((new, seen / own.total()) for new, seen in own.most_common(options))
        for phrase, own in sorted(counts.items())
        if phrase and own.total() >= least and set(own) != {""}
    }
    return PhraseTable(table)


def save(phrases: PhraseTable, path: Path) -> None:
    """Write a table as JSON."""
    rows = {phrase: [[new, round(share, 4)] for new, share in options] for phrase, options in phrases.table.items()}
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=0) + "\n", encoding="utf8")


def load(path: Path) -> PhraseTable:
    """Read a table.

    Raises:
        CheckpointError: the file is missing or no table.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf8"))
        return PhraseTable(
            {str(phrase): [(str(new), float(share)) for new, share in own] for phrase, own in rows.items()}
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def with_articles(text: str, draft: str = "") -> str:
    """Let "a" and "an" follow the sound of the word behind them, as far as spelling tells.

    What stands like that in the draft stays.
    """
    kept = draft.lower()

    def follow(match: re.Match[str]) -> str:
        article, _, space, word = match.groups()
        if f"{match.group()}{word}".lower() in kept:
            return match.group()
        return f"{article}{'n' if _VOWEL.match(word) else ''}{space}"

    return _ARTICLE.sub(follow, text)


def _bare(word: str) -> str:
    return word.strip(_EDGES).lower()


def _core(text: str, span: Span) -> Span:
    """The span without punctuation at its edges."""
    start, end = span
    while start < end and text[start] in _EDGES:
        start += 1
    while end > start and text[end - 1] in _EDGES:
        end -= 1
    return (start, end) if start < end else span


def _closed_up(text: str) -> str:
    """Return the text without the spaces that a word left behind."""
    return _SPACED.sub("", text).strip()


def _like(new: str, old: str) -> str:
    """Give a replacement the case of what it replaces."""
    if old[:1].isupper() and new:
        return new.upper() if old.isupper() and len(old) > 1 else new[:1].upper() + new[1:]
    return new
