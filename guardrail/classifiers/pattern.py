"""Kind `pattern`: words, phrases and regular expressions, found in any disguise.

```yaml
slurs:
  kind: pattern
  words: [frobnicator, "trade account*"]   # whole words, in any case, accent and disguise; "*" at the end: any ending
  lexicon: lexicons/slurs.txt              # more of them, one a line; lines that start with "#" are comments
  regex: ['\\bmodel[- ]?[0-9]{3}\\b']        # RE2: linear time, so no look-around and no back-references
  allow: [Scunthorpe, "never trade account"]  # a match that begins inside one of these does not count
  value: 0.8                               # score of a text with a match (default 1.0); 0 without
```

Everything is matched on `guardrail.text.normalise.fold(text)`: lower case, accents stripped, disguises undone. The
words of the policy help to undo them: a look-alike or l33t spelling of a listed word is read as that word.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any

import re2

from guardrail.classifiers.base import BuildContext, check_options
from guardrail.errors import ClassifierError
from guardrail.text.normalise import fold
from guardrail.text.phrases import Phrases
from guardrail.text.words import Vocabulary, load
from guardrail.types import Passage, Score, Span

__all__ = ["PatternClassifier", "Regexes", "build"]

_KIND = "pattern"
_OPTIONS = ("words", "regex", "lexicon", "allow", "value")
_LONGEST_ENTRY = 300  # characters of a word or phrase
_REGEX_MEMORY = 64 << 20  # bytes that one compiled expression may take
_UNSEEN_BOUNDARY = re.compile(r"[^\x00-\x7f][)\]]*[+*?]?\\b|\\b[(\[]*(?:\?:)?[^\x00-\x7f]")
_NOTHING = Score(0.0)
_LOOKAROUND = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")


class PatternClassifier:
    """Scores `value` where a pattern occurs, 0 elsewhere. Spans are of the original text. Immutable, thread-safe.

    Args:
        name: its name in the policy.
        phrases: folded words and phrases to look for.
        regexes: compiled expressions to look for in folded text.
        allowed: folded phrases inside which a match may not begin.
        value: the score of a match, in (0, 1].
        fingerprint: `"sha256:..."` of all of these.
        vocabulary: the words that disguised spellings are read as, those of `phrases` among them.
    """

    kind = _KIND

    def __init__(
        self,
        name: str,
        phrases: Phrases,
        regexes: Regexes,
        allowed: Phrases,
        value: float,
        fingerprint: str,
        vocabulary: Vocabulary,
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self._phrases = phrases
        self._regexes = regexes
        self._allowed = allowed
        self._value = value
        self._vocabulary = vocabulary

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """One score per passage: `value` and the spans of the matches, or 0 and no spans."""
        return [self._score(passage.text) for passage in passages]

    def _score(self, text: str) -> Score:
        folded = fold(text, self._vocabulary)
        found = self._phrases.find(folded.text)
        encoded = _Encoded(folded.text)
        expressed = self._regexes.matching(encoded.data)
        if not found and not expressed:
            return _NOTHING
        allowed = _merged(self._allowed.find(folded.text))
        found = [span for span in found if not _resume(span[0], allowed)]
        for regex in expressed:
            found += _matches(regex, encoded, allowed)
        spans = _merged(sorted(folded.to_original(start, end) for start, end in found))
        return Score(self._value if spans else 0.0, tuple(spans))


class Regexes:
    """Compiled expressions, and all of them in one, so that a text without a match is read once.

    Args:
        patterns: RE2 expressions; matched without regard to case.

    Raises:
        ValueError: one is not RE2, matches the empty text, or could never match; the message says which and why.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._each = [_compiled(pattern) for pattern in patterns]
        self._any = _compiled("|".join(f"(?:{pattern})" for pattern in patterns)) if len(patterns) > 1 else None

    def matching(self, data: bytes) -> list[Any]:
        """Those that occur in a text (UTF-8)."""
        if self._any is not None and self._any.search(data) is None:
            return []
        return [regex for regex in self._each if regex.search(data) is not None]


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _REGEX_MEMORY
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        hint = " (RE2 has no look-around and no back-references)" if _LOOKAROUND.search(pattern) else ""
        raise ValueError(f"regex {pattern!r} is not valid: {reason}{hint}") from None
    if compiled.search("") is not None:
        raise ValueError(f"regex {pattern!r} matches the empty text, and so every text")
    if _UNSEEN_BOUNDARY.search(pattern):
        raise ValueError(
            f"regex {pattern!r} would never match: in RE2 \\b knows only the letters a-z. "
            "List the word under `words`, or write (^|\\PL) and (\\PL|$)"
        )
    return compiled


class _Encoded:
    """A text as UTF-8, which RE2 works on, and the way between byte and character offsets."""

    def __init__(self, text: str) -> None:
        self.data = text.encode("utf-8")
        self._ascii = len(self.data) == len(text)

    @cached_property
    def _characters(self) -> list[int]:
        """For each byte, and for the end, the characters that begin before it."""
        begun = accumulate((byte & 0xC0 != 0x80 for byte in self.data), initial=0)
        return [*begun]

    def character(self, byte: int) -> int:
        """The character offset of the byte at which a character begins."""
        return byte if self._ascii else self._characters[byte]

    def byte(self, character: int) -> int:
        """The byte offset of a character."""
        return character if self._ascii else bisect_left(self._characters, character)


def _matches(regex: Any, text: _Encoded, allowed: Sequence[Span]) -> Iterator[Span]:
    """Matches in characters. One that begins inside an allowed phrase is skipped, and the search resumes after that."""
    at = 0
    while at <= len(text.data) and (match := regex.search(text.data, at)) is not None:
        start, end = text.character(match.start()), text.character(match.end())
        resume = _resume(start, allowed)
        if resume:
            at = text.byte(resume)
        else:
            if end > start:
                yield start, end
            at = max(match.end(), match.start() + 1)


def _resume(start: int, allowed: Sequence[Span]) -> int:
    """The end of the allowed phrase in which a match begins, 0 if it begins in none."""
    index = bisect_right(allowed, start, key=itemgetter(0)) - 1
    return allowed[index][1] if index >= 0 and start < allowed[index][1] else 0


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Ascending spans with overlapping ones joined."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def build(name: str, options: Mapping[str, Any], context: BuildContext) -> PatternClassifier:
    """Build the classifier that the options describe (see the module). Reads the lexicon.

    Raises:
        ClassifierError: an option is unknown or of the wrong type, there is nothing to look for, an entry or expression
            is not valid, or the lexicon cannot be read; the message names file and line.
    """
    check_options(_KIND, name, options, _OPTIONS)
    entries = [*_listed(name, "words", options), *_lexicon(name, options.get("lexicon"), context.directory)]
    patterns = [text for _, text in _listed(name, "regex", options)]
    allow = _listed(name, "allow", options)
    value = _value(name, options.get("value", 1.0))
    if not entries and not patterns:
        raise ClassifierError(f"classifier {name!r}: nothing to look for. Give it words, a lexicon or a regex.")
    phrases = Phrases(_folded(name, entries))
    try:
        regexes = Regexes(patterns)
    except ValueError as error:
        raise ClassifierError(f"classifier {name!r}: {error}.") from None
    content = [_KIND, sorted(text for _, text in entries), patterns, sorted(text for _, text in allow), value]
    digest = hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()
    own = (word for word in phrases.words if len(word) > 2 and word.isalpha())
    vocabulary = load().extended(own)
    return PatternClassifier(
        name, phrases, regexes, Phrases(_folded(name, allow)), value, f"sha256:{digest}", vocabulary
    )


_Entry = tuple[str, str]
"""Where an entry was written, for messages, and the entry."""


def _listed(name: str, option: str, options: Mapping[str, Any]) -> list[_Entry]:
    listed = options.get(option)
    if listed is None:
        return []
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        raise ClassifierError(f"classifier {name!r}: {option} must be a list of texts, not {listed!r}.")
    for entry in listed:
        if not isinstance(entry, str) or not entry.strip():
            raise ClassifierError(
                f"classifier {name!r}: {option} must be a list of texts, but {entry!r} is in it. "
                "Put quotes around numbers, dates, yes and no."
            )
    return [(option, entry) for entry in listed]


def _value(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ClassifierError(f"classifier {name!r}: value must be a number above 0 and at most 1, not {value!r}.")
    return float(value)


def _lexicon(name: str, file: object, directory: Path) -> list[_Entry]:
    """The entries of a lexicon file, with file and line."""
    if file is None:
        return []
    if not isinstance(file, str | Path):
        raise ClassifierError(f"classifier {name!r}: lexicon must be the name of a file, not {file!r}.")
    path = directory / file
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ClassifierError(f"classifier {name!r}: cannot read the lexicon {path}: {reason}.") from error
    entries: list[_Entry] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise ClassifierError(f"classifier {name!r}: {path}:{number}: not UTF-8 text.") from None
        if entry and not entry.startswith("#"):
            entries.append((f"{path}:{number}", entry))
    if not entries:
        raise ClassifierError(f"classifier {name!r}: the lexicon {path} has no entries.")
    return entries


def _folded(name: str, entries: Iterable[_Entry]) -> Iterator[str]:
    """Entries as they stand in folded text: plainly folded, and as they read if they are themselves disguised."""
    for where, entry in entries:
        ending = "*" if entry.endswith("*") else ""
        stem = entry.removesuffix("*").strip()
        if not stem or "*" in stem or "\0" in stem:
            raise ClassifierError(
                f"classifier {name!r}: {where}: {entry[:80]!r} is not a word or phrase ('*' may only end it)."
            )
        if len(entry) > _LONGEST_ENTRY:
            raise ClassifierError(f"classifier {name!r}: {where}: longer than {_LONGEST_ENTRY} characters.")
        for variant in {fold(stem).text.strip(), stem.casefold() if stem.isascii() else ""}:
            if variant:
                yield variant + ending
