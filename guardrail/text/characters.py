"""Characters that a reader does not see, or sees in another place: removed, or put where they are seen.

What a script or an emoji needs stays: joiners between letters of joining and Brahmic scripts and inside emoji
sequences, variation selectors on emoji, symbols and ideographs, the tags of regional flags, direction marks around the
words of a text with right-to-left letters. Sources: Unicode UAX 9 (bidi), UAX 31 section 2.3 (joiners), UTS 51 (emoji),
UTR 36 (security).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from guardrail.text.edits import Edit

__all__ = ["HIDDEN", "MARKS", "hidden", "marks"]

HIDDEN = (
    "\0\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e01ef"
)
"""Every character that `hidden` looks at, as the inside of a regular expression's class."""

_HIDDEN = re.compile(f"[{HIDDEN}]+")
_SAME = re.compile(f"\u202e|([{HIDDEN}])\\1*")
_OVERRIDE = re.compile("\u202e+([^\u202a-\u202e\n\r\u2028\u2029]*)\u202c?")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{3,6}\U000e007f")

# Scripts whose letters change shape or cluster by ZWJ and ZWNJ: Arabic, the Brahmic scripts, Khmer, Mongolian, ...
_JOINING = re.compile(
    "[\u0600-\u08ff\u0900-\u109f\u1700-\u18af\u1900-\u1aaf\u1b00-\u1c4f\ua800-\uaaff\uabc0-\uabff\ufb50-\ufdff"
    "\ufe70-\ufefc\U00010a00-\U00010fff\U00011000-\U00011fff\U0001e900-\U0001e95f]"
)
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
_JAMO = re.compile("[\u1100-\u11ff]")
_LETTER = re.compile(r"[^\W\d_]")
_PICTURE = re.compile(
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff]"
)
_IDEOGRAPH = re.compile("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

MARKS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
"""Combining marks of alphabets, as the inside of a class. Marks of other scripts are never touched."""

_STACK = re.compile(f"[{MARKS}]+")
# Struck through, underlined, overlined, enclosed: decoration, never part of a spelling
_OVERLAY = re.compile("[\u0305\u0332-\u0338\u033f\u0347\u035f\u0489\u20d0-\u20e1\u20e4-\u20f0]")
_GENUINE_STACK = 2  # Vietnamese and polytonic Greek carry two marks, decomposed


# Text written in invisible characters, which a language model reads though a person cannot: ASCII as tag characters,
# or bytes as variation selectors. Shorter runs are only litter.
_SMUGGLED = re.compile("[\U000e0020-\U000e007e]{4,}|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")


def hidden(text: str) -> Iterator[Edit]:
    """Edits that remove what is not seen.

    A right-to-left override is read backwards, and text that is hidden in invisible characters is spelt out, because
    the model that gets the text will read it.
    """
    kept = {at for flag in _FLAG.finditer(text) for at in range(*flag.span())}
    units = {found.start(): _reversed(found) for found in _OVERRIDE.finditer(text)}
    units |= {found.start(): _spelt_out(found) for found in _SMUGGLED.finditer(text) if found.start() not in kept}
    right_to_left = _RIGHT_TO_LEFT.search(text) is not None
    done = 0
    for run in _HIDDEN.finditer(text):
        for part in _SAME.finditer(text, max(done, run.start()), run.end()):
            start, end = part.span()
            if start < done or start in kept:
                continue
            if start in units:
                done = units[start][1]
                yield units[start]
            elif (replacement := _replacement(text, start, end, right_to_left)) != part.group():
                yield start, end, replacement, range(start, start + len(replacement))


def _reversed(override: re.Match[str]) -> Edit:
    """Latin text after a right-to-left override is seen backwards. One unit: its parts are out of order."""
    inside = override.group(1)
    seen = inside[::-1] if re.search("[A-Za-z]", inside) else inside
    return override.start(), override.end(), seen, [override.start()] * len(seen)


def _spelt_out(found: re.Match[str]) -> Edit:
    run = found.group()
    if run[0] >= "\U000e0020" and run[0] <= "\U000e007e":
        letters = "".join(chr(ord(char) - 0xE0000) for char in run)
    else:
        codes = [ord(char) - 0xFE00 if char <= "\ufe0f" else ord(char) - 0xE0100 + 16 for char in run]
        letters = bytes(codes).decode("utf-8", "ignore")
    letters = "".join(char for char in letters if char.isprintable())
    letters = f" {letters} " if letters.strip() else ""
    return found.start(), found.end(), letters, [found.start()] * len(letters)


def _replacement(text: str, start: int, end: int, right_to_left: bool) -> str:
    """What a run of one hidden character becomes: nothing, one of it, or a space."""
    char = text[start]
    before, after = text[max(0, start - 1) : start], text[start + 1 : start + 2]
    if char == "\u2800":
        between = before.isascii() and text[end : end + 1].isascii() and (before + text[end : end + 1]).isalnum()
        return " " if between else text[start:end]
    if char in "\u200e\u200f\u061c":
        within_word = before.isascii() and before.isalnum() and after.isascii() and after.isalnum()
        return char if right_to_left and not within_word else ""
    return char if _needed(char, before, after) else ""


def _needed(char: str, before: str, after: str) -> bool:
    """Whether script or emoji need the character between these neighbours."""
    if char in "\u200c\u200d":
        return _joins(char, before, after)
    if "\ufe00" <= char <= "\ufe0f":
        return _takes_selector(before, after)
    if "\U000e0100" <= char <= "\U000e01ef":
        return bool(_IDEOGRAPH.match(before))
    if "\u180b" <= char <= "\u180f":
        return "\u1800" <= before <= "\u18af"
    if char in "\u1160\u115f":
        return bool(_JAMO.match(before) or _JAMO.match(after))
    return "\U0001d173" <= char <= "\U0001d17a" and "\U0001d100" <= before <= "\U0001d1ff"


def _joins(char: str, before: str, after: str) -> bool:
    """Whether a joiner or non-joiner has work to do here."""
    if _JOINING.match(before):
        return after not in ("\u200c", "\u200d")
    picture = before in ("\ufe0f", "\U000e007f") or _PICTURE.match(before)
    return char == "\u200d" and bool(picture) and bool(_PICTURE.match(after))


def _takes_selector(before: str, after: str) -> bool:
    """Whether a variation selector follows something that has variants: an emoji, symbol, keycap, ideograph."""
    if not before or before.isspace() or _HIDDEN.match(before):
        return False
    if before in "#*0123456789":
        return after == "\u20e3"
    if _PICTURE.match(before) or _IDEOGRAPH.match(before) or _JOINING.match(before):
        return True
    return not before.isascii() and not before.isalnum()


def marks(text: str) -> Iterator[Edit]:
    """Edits that take stacked ("zalgo") and decorating marks off characters.

    Up to two marks on a letter are spelling (Vietnamese, polytonic Greek, decomposed); where a larger stack occurs no
    mark of the text is kept, because nobody can tell which was meant.
    """
    stacks = list(_STACK.finditer(text))
    zalgo = any(len(found.group()) > _GENUINE_STACK for found in stacks)
    for found in stacks:
        start, end = found.span()
        stack = found.group()
        if stack == "\u20e3" or not (zalgo or _LETTER.match(text[start - 1 : start])):
            continue
        spelling = "" if zalgo else _OVERLAY.sub("", stack)
        if spelling != stack:
            yield start, end, spelling, list(range(start, start + len(spelling)))
