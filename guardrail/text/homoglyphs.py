"""Letters of other scripts inside Latin words, Latin letters inside Cyrillic ones, and whole words of look-alikes.

Genuine Russian, Greek or Armenian is left alone: a word is only read as Latin if it mixes scripts, or if it is made of
look-alikes wholly, stands in a Latin text without genuine words of its script, and makes a known word (UTS 39, section
4, whole-script and mixed-script confusables).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from guardrail.text.edits import Edit
from guardrail.text.lookalikes import ALL, EXACT, LATIN, TO_CYRILLIC
from guardrail.text.spelling import LEET, read
from guardrail.text.words import Vocabulary

__all__ = ["FOREIGN", "homoglyphs"]

FOREIGN = "".join(sorted(re.escape(char) for char in ALL))
"""Every letter that may pass for a Latin one, as the inside of a regular expression's class."""

_SYMBOLS = re.escape("".join(symbol for symbol in LEET if not symbol.isdigit() and symbol not in "!|+"))
_WORD = re.compile(rf"(?:[^\W_]|[{_SYMBOLS}])+")
_SUSPECT = re.compile(f"[{FOREIGN}]")
_LATIN_WORD = re.compile(r"(?<![^\W_])[A-Za-z]{2,}(?![^\W_])")
_CYRILLIC = re.compile("[\u0400-\u052f]")
_ASCII_LETTER = re.compile("[A-Za-z]")
_PHONETIC = re.compile("[/\\[]")
_LATIN_LETTERS = frozenset("".join(LATIN))
_TURKISH = frozenset("ıɪʀɴɨɫ")  # in real words of Turkish, or real phonetic transcriptions


def homoglyphs(text: str, vocabulary: Vocabulary) -> Iterator[Edit]:
    """Edits that put Latin letters for look-alikes (or Cyrillic ones, in Cyrillic words), in ascending order."""
    words = [word for word in _WORD.finditer(text) if _SUSPECT.search(word.group()) is not None]
    verdicts = [_latin(word, vocabulary) for word in words]
    mixed = any(verdict and _ASCII_LETTER.search(word.group()) for word, verdict in zip(words, verdicts, strict=True))
    latin_text = mixed or _LATIN_WORD.search(text) is not None
    genuine = any(verdict is None and len(word.group()) > 1 for word, verdict in zip(words, verdicts, strict=True))
    for word, verdict in zip(words, verdicts, strict=True):
        token = word.group()
        whole = _ASCII_LETTER.search(token) is None
        if verdict is None:
            yield from _replaced(word, _cyrillic(token))
        elif whole and (not latin_text or genuine or (len(token) < 2 and not mixed)):
            continue
        else:
            yield from _replaced(word, verdict)


def _replaced(word: re.Match[str], reading: str) -> Iterator[Edit]:
    for at, (old, new) in enumerate(zip(word.group(), reading, strict=True), word.start()):
        if old != new:
            yield at, at + 1, new, [at]


def _latin(word: re.Match[str], vocabulary: Vocabulary) -> str | None:
    """The Latin reading, or None if the word is not plausibly a disguised Latin one."""
    token = word.group()
    foreign = [char for char in token if not char.isascii()]
    if any(char not in ALL and char.isalpha() and not _is_latin(char) for char in foreign):
        return None
    reading = "".join(ALL.get(char, char) for char in token)
    if _PHONETIC.match(word.string[word.start() - 1 : word.start()]):
        return None
    exact = all(char in EXACT for char in foreign if char in ALL)
    if len(token) == 1:
        return reading if exact else None
    if len(token) == 2:
        greek = any("\u0370" <= char <= "\u03ff" for char in foreign)
        return reading if exact and not greek and vocabulary.knows(reading.lower()) else None
    known = read(reading, vocabulary)
    if known is not None:
        weak = len(token) < 4 or any(char in _TURKISH for char in foreign)
        return reading if exact or not weak or (known.sensitive and len(token) > 3) else None
    return reading if exact and _interleaved(token) else None


def _is_latin(char: str) -> bool:
    return char in _LATIN_LETTERS or "\u00c0" <= char <= "\u024f" or "\u1e00" <= char <= "\u1eff"


def _interleaved(token: str) -> bool:
    """Whether the scripts alternate so that it is not a Latin name with a Cyrillic ending, or the other way round."""
    kinds = "".join("a" if char.isascii() else "f" for char in token if char.isalpha())
    return len(token) >= 4 and kinds.count("a") > 1 and re.search("af+a", kinds) is not None


def _cyrillic(token: str) -> str:
    """A mostly Cyrillic word with Latin look-alikes in it, as Cyrillic; any other word unchanged."""
    latin = _ASCII_LETTER.findall(token)
    if not latin or len(_CYRILLIC.findall(token)) <= len(latin) or not all(char in TO_CYRILLIC for char in latin):
        return token
    inside = re.search("[\u0400-\u052f][A-Za-z]+[\u0400-\u052f]", token) or token[0].isascii()
    return "".join(TO_CYRILLIC.get(char, char) for char in token) if inside else token
