"""Quick looks at a text, in linear time (RE2): whether anything in it can be a disguise, and where.

They err on the side of suspicion: what they point at is then looked at closely, and mostly found to be genuine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import re2

from guardrail.text.characters import HIDDEN, MARKS
from guardrail.text.homoglyphs import FOREIGN
from guardrail.text.lookalikes import ALL, LATIN
from guardrail.text.styled import STYLED
from guardrail.types import Span

__all__ = ["chunks", "is_clean", "may_be_spaced"]

_ENGLISH = "abcdefghijklmnopqrstuvwxyz"
_OTHERS = "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґαβγδεζηθικλμνξοπρστυφχψωàáâäãåèéêëìíîïòóôöõùúûüçñ"


def _thrice(letters: str) -> str:
    return "|".join(letter * 3 for letter in letters)


def _spellings(letter: str, symbols: str) -> str:
    """Letters thrice, letters beside symbols, masks between letters, aLtErNaTiNg case, "v" between consonants."""
    masks = "[*#%^~&?=._-]{1,6}"
    return (
        rf"(?i:{_thrice(_ENGLISH)}|[bcdfgkmnpst]v[bcdfgkmnpst])"
        rf"|{letter}[{symbols}]|[{symbols}!|+]{letter}|{letter}[!|+](?:{letter}|[{symbols}])"
        rf"|{letter}{masks}(?:{letter}|[{symbols}!|+])|[{symbols}!|+]{masks}{letter}|{letter}\*"
        r"|[a-z][A-Z][a-z][A-Z]|[A-Z][a-z][A-Z][a-z][A-Z]"
    )


def _spelt_out(one: str, gap: str, outside: str) -> str:
    """Three single characters in a row with something between them."""
    return rf"(?:^|[^{outside}_'’]){one}(?:{gap}){{1,3}}{one}(?:{gap}){{1,3}}{one}(?:$|[^{outside}])"


# Scripts that nobody mixes with others in one word: not Greek, Cyrillic, Armenian, Coptic
_FANCY = "".join(
    re.escape(char)
    for char in ALL
    if char not in LATIN and not "\u0370" <= char <= "\u058f" and not "\u2c80" <= char <= "\u2cff"
)
_ONE = "[A-Za-z0-9@$!*]"
_SPELT_OUT = _spelt_out(_ONE, "[^A-Za-z0-9@$!*]", "A-Za-z0-9")
_SPELT_OUT_ANY = _spelt_out(rf"[A-Za-z0-9@$!*{FOREIGN}]", r"[^\pL\pN@$!*]", r"\pL\pN")
_SYMBOLS = "0-9@$€£¢¥§"

_ASCII = re2.compile(rf"\x00|{_spellings('[A-Za-z]', '0-9@$')}|{_SPELT_OUT}")
_ANY = re2.compile(
    rf"{_spellings('[A-Za-z]', _SYMBOLS)}|(?i:{_thrice(_OTHERS)})|{_SPELT_OUT_ANY}"
    rf"|[{HIDDEN}{MARKS}{STYLED}]"
    rf"|[A-Za-z][{FOREIGN}]|[{FOREIGN}][A-Za-z]|[{_FANCY}][{FOREIGN}]|[{FOREIGN}][{_FANCY}]|[{''.join(LATIN)}]{{2}}"
)
_LATIN_WORD = re2.compile("[A-Za-z]{2}")
_LOOKALIKE_WORD = re2.compile(rf"(?:^|[^\pL\pN])[{FOREIGN}]{{2,}}(?:$|[^\pL\pN])")
_ASCII_CHUNK = re2.compile(rf"[^\s]*(?:{_spellings('[A-Za-z]', '0-9@$')})[^\s]*")
_LETTER = r"\pL"
_ANY_CHUNK = re2.compile(rf"[^\s]*(?:{_spellings(_LETTER, _SYMBOLS)}|(?i:{_thrice(_OTHERS)}))[^\s]*")
_ASCII_SPACED = re2.compile(_SPELT_OUT)
_ANY_SPACED = re2.compile(_SPELT_OUT_ANY)


def is_clean(text: str) -> bool:
    """Whether nothing in the text can be a disguise."""
    if text.isascii():
        return _ASCII.search(text.encode("ascii")) is None  # of a text, RE2's binding counts the characters
    try:
        if _ANY.search(text) is not None:
            return False
        return _LATIN_WORD.search(text) is None or _LOOKALIKE_WORD.search(text) is None
    except UnicodeEncodeError:  # a lone surrogate
        return False


def may_be_spaced(text: str) -> bool:
    """Whether a word may be spelt letter by letter. No lone surrogates."""
    return (_ASCII_SPACED if text.isascii() else _ANY_SPACED).search(text) is not None


def chunks(text: str) -> Iterator[Span]:
    """The stretches between white space in which a spelling may be disguised. No lone surrogates."""
    for found in (_ASCII_CHUNK if text.isascii() else _ANY_CHUNK).finditer(text):
        yield found.span()
