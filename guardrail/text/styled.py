"""Latin letters in disguise as symbols: full-width, mathematical, circled, squared, superscript, flag letters.

Mapped where they spell a word, left where they are what they seem to be: full-width acronyms in Chinese and Japanese,
a mathematical variable, a numbered circle, an ordinal, a real flag. Decompositions: Unicode NFKC (UAX 15).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from guardrail.text.edits import Edit

__all__ = ["STYLED", "styled"]

_RAISED_CLASS = "\u00aa\u00ba\u02b0-\u02b8\u1d2c-\u1d6a\u1d78\u1d9b-\u1dbf\u2071\u207f\u2090-\u209c\u2c7c\u2c7d"
_LETTERLIKE = (
    _RAISED_CLASS + "\u2102\u210a-\u210e\u2110-\u2113\u2115\u2119-\u211d\u2124\u2128\u212a\u212c\u212d"
    "\u212f-\u2131\u2133\u2134\u2139\u2145-\u2149"
)
_FULLWIDTH = "\uff01-\uff5e"
_SYMBOLS = "\u2170-\u217f\u2160-\u216f\u249c-\u24e9\ufb00-\ufb06\U0001d400-\U0001d7ff\U0001f110-\U0001f189"
_REGIONAL = "\U0001f1e6-\U0001f1ff"

STYLED = f"{_LETTERLIKE}{_FULLWIDTH}\u3000{_SYMBOLS}{_REGIONAL}💲\u20e3"
"""Every character that `styled` looks at, as the inside of a regular expression's class."""

_PICTURES = {"💲": "$", "\u20e3": "", "\ufe0f": ""}  # inside words only
_INSIDE = f"(?<=[A-Za-z\ufe0f])(?:💲\ufe0f?|[0-9]\ufe0f?\u20e3)(?=[A-Za-z{_SYMBOLS}])"
_WORD = re.compile(f"(?:[{_LETTERLIKE}{_FULLWIDTH}{_SYMBOLS}]\ufe0f?|{_INSIDE}|💲(?=[A-Za-z])|[A-Za-z0-9])+")
_ANY = re.compile(f"[{_LETTERLIKE}{_FULLWIDTH}{_SYMBOLS}💲\u20e3]")
_RAISED = re.compile(f"[{_RAISED_CLASS}]")
_NOTATION = re.compile("[\u2100-\u214e\u2160-\u217f]")  # set letters, Roman numerals: alone they are what they are
_WIDE_RUN = re.compile("[\uff01-\uff5e](?:[\uff01-\uff5e\u3000 ]*[\uff01-\uff5e])?")
_CJK = re.compile("[\u3001-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af\uff61-\uff9f]")
_FLAGS = re.compile(f"[{_REGIONAL}]+")
_EMOJI = re.compile("[\U0001f130-\U0001f189\u24c2]")
_LATIN = re.compile("[A-Za-z]")
_WORDLIKE = 3  # lower-case letters that make a full-width run a word even among Chinese or Japanese
_NEGATIVE = {0x1F150: 26, 0x1F170: 26}  # negative circled and squared capitals have no decomposition
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_LIGATURES = range(0xFB00, 0xFB07)
_ISO_3166 = frozenset(
    "AC AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
    "CA CC CD CF CG CH CI CK CL CM CN CO CP CR CU CV CW CX CY CZ DE DG DJ DK DM DO DZ EA EC EE EG EH ER ES ET EU FI FJ "
    "FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU IC ID IE IL IM IN IO IQ IR "
    "IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM "
    "MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT "
    "PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TA TC TD TF TG TH TJ TK TL "
    "TM TN TO TR TT TV TW TZ UA UG UM UN US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW".split(" ")
)


def styled(text: str) -> Iterator[Edit]:
    """Edits that put plain letters for styled ones, in ascending order."""
    edits = [*_wide(text), *_words(text), *_flag_letters(text)]
    done = 0
    for edit in sorted(edits):
        if edit[0] >= done:
            done = edit[1]
            yield edit


def _words(text: str) -> Iterator[Edit]:
    """Mathematical, circled, squared and superscript letters that spell words; ligatures."""
    singles: list[re.Match[str]] = []
    spelt = False
    for word in _WORD.finditer(text):
        if _ANY.search(word.group()) is None or "\uff01" <= word.group()[0] <= "\uff5e":
            continue
        plain = "".join(_plain(char) for char in word.group())
        letters = len(_LATIN.findall(plain))
        raised = len(_RAISED.findall(word.group()))
        if raised and (raised < 3 or raised < len(word.group())):
            continue
        if letters > 1:
            spelt = spelt or not all(ord(char) in _LIGATURES or char.isascii() for char in word.group())
            yield _mapped(word)
        elif letters and _NOTATION.match(word.group()) is None:
            singles.append(word)
    if spelt:  # "𝕒𝕟" was spelt so, hence "𝕒" was too
        for word in singles:
            yield _mapped(word)


def _mapped(word: re.Match[str]) -> Edit:
    token = word.group()
    small = re.search("[a-z]", token) is not None
    letters: list[str] = []
    origins: list[int] = []
    for at, char in enumerate(token):
        plain = _plain(char)
        if small and at and _EMOJI.match(char):
            plain = plain.lower()  # "m🅰ggot"
        letters.append(plain)
        origins += [word.start() + at] * len(plain)
    return word.start(), word.end(), "".join(letters), origins


def _wide(text: str) -> Iterator[Edit]:
    """Full-width ASCII: everything where the line has no CJK, else runs that look like words."""
    at = 0
    for line in text.splitlines(keepends=True):
        foreign = _CJK.search(line) is not None
        for run in _WIDE_RUN.finditer(line):
            pieces = [run] if not foreign else re.finditer("[Ａ-Ｚａ-ｚ]+", line[run.start() : run.end()])
            shift = at if not foreign else at + run.start()
            for piece in pieces:
                lower = {char for char in piece.group() if "ａ" <= char <= "ｚ"}
                if not foreign or (len(lower) > 1 and len(piece.group()) >= _WORDLIKE and piece.group()[1:].islower()):
                    yield _narrowed(piece.group(), shift + piece.start())
        at += len(line)


def _narrowed(run: str, at: int) -> Edit:
    return at, at + len(run), run.translate(_NARROW), range(at, at + len(run))


def _flag_letters(text: str) -> Iterator[Edit]:
    """Regional indicators that are no flags: single, or a run with a pair that is no region."""
    for run in _FLAGS.finditer(text):
        letters = "".join(chr(ord(char) - 0x1F1E6 + 65) for char in run.group())
        pairs = {letters[at : at + 2] for at in range(0, len(letters), 2)}
        if not pairs <= _ISO_3166:
            yield run.start(), run.end(), letters, list(range(*run.span()))


@cache
def _plain(char: str) -> str:
    """The ASCII letters or digits that a styled character stands for; itself where it stands for none."""
    if char.isascii():
        return char
    if char in _PICTURES:
        return _PICTURES[char]
    for first, count in _NEGATIVE.items():
        if first <= ord(char) < first + count:
            return chr(65 + ord(char) - first)
    if "\u249c" <= char <= "\u24b5":
        return chr(97 + ord(char) - 0x249C)
    if "\U0001f110" <= char <= "\U0001f129":
        return chr(65 + ord(char) - 0x1F110)
    plain = unicodedata.normalize("NFKC", char)
    spells = plain.isascii() and plain.isalnum() and (len(plain) == 1 or ord(char) in _LIGATURES)
    return plain if spells else char
