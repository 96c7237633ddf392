"""Text to factored tokens and back, without loss of case, spacing or rare symbols.

The embedded encoder's vocabulary is lower-cased word pieces. Each piece here carries a *form* beside its id: whether
white space stands before it, and its case. So the decoder can start from the encoder's own embeddings and still write
cased, correctly spaced text (factored language models, Bilmes & Kirchhoff 2003, section 2).

A form is `case + 3 * space`: case 0 as in the vocabulary, 1 Title, 2 UPPER; space 1 where white space precedes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import regex

from guardrail.errors import CheckpointError

FORMS = 6
LOWER, TITLE, UPPER = 0, 1, 2
UNKNOWN = "[UNK]"
HIDDEN = "\ue000"
"""A private-use character that stands for a hidden word in a draft; it becomes the encoder's [MASK]."""

# A chunk is a run of upper-case letters, a (capitalised) lower-case run, other letters, digits, or one symbol.
_CHUNK = regex.compile(
    r"\p{Lu}\p{M}*(?:\p{Lu}\p{M}*)+(?!\p{Ll})|\p{Lu}?\p{M}*\p{Ll}[\p{Ll}\p{M}]*|\p{Lu}\p{M}*|[\p{L}\p{M}]+|\p{N}+|\X",
    regex.V1,
)
_SPACE = regex.compile(r"\s+")
_SURROGATE = regex.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Word-piece ids, forms and the surface text of each piece; three tuples of equal length."""

    ids: tuple[int, ...]
    forms: tuple[int, ...]
    surfaces: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Codec:
    """Encode text to `Tokens`, decode ids and forms to text.

    Args:
        tokenizer: a `tokenizers.Tokenizer` with a WordPiece model whose vocabulary is lower-cased.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._memo: dict[str, tuple[int, ...]] = {}

    @cached_property
    def pieces(self) -> list[str]:
        """Vocabulary piece of each id."""
        vocabulary = self._tokenizer.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)

    @cached_property
    def unknown_id(self) -> int:
        """Id of the piece that stands for anything outside the vocabulary."""
        return int(self._tokenizer.token_to_id(UNKNOWN))

    @cached_property
    def hidden_id(self) -> int:
        """Id of the piece that stands for a hidden word."""
        return int(self._tokenizer.token_to_id("[MASK]"))

    def encode(self, text: str, limit: int | None = None) -> Tokens:
        """Return the tokens of `text`, the first `limit` of them if given."""
        ids: list[int] = []
        forms: list[int] = []
        surfaces: list[str] = []
        position = 0
        for match in _CHUNK.finditer(text):
            if match.group().isspace():
                continue
            space = _SPACE.fullmatch(text, position, match.start()) is not None
            if match.group() == HIDDEN:
                ids.append(self.hidden_id)
                forms.append(3 * space)
                surfaces.append(HIDDEN)
            else:
                self._encode_chunk(match.group(), space, ids, forms, surfaces)
            position = match.end()
            if limit is not None and len(ids) >= limit:
                break
        return Tokens(tuple(ids[:limit]), tuple(forms[:limit]), tuple(surfaces[:limit]))

    def _encode_chunk(self, chunk: str, space: bool, ids: list[int], forms: list[int], surfaces: list[str]) -> None:
        pieces = self._piece_ids(chunk.lower())
        case = _case_of(chunk)
        lengths = [len(self.pieces[piece].removeprefix("##")) for piece in pieces]
        aligned = sum(lengths) == len(chunk) and self.unknown_id not in pieces
        if not aligned:  # accents stripped or unknown: one surface for the chunk, on its first piece
            pieces = pieces[:1] if self.unknown_id in pieces else pieces
        start = 0
        for index, piece in enumerate(pieces):
            ids.append(piece)
            piece_case = case if index == 0 or case == UPPER else LOWER
            forms.append(piece_case + 3 * (space and index == 0))
            if aligned:
                surfaces.append(chunk[start : start + lengths[index]])
                start += lengths[index]
            else:
                surfaces.append(chunk if index == 0 else "")

    def _piece_ids(self, chunk: str) -> tuple[int, ...]:
        known = self._memo.get(chunk)
        if known is None:
            encodable = _SURROGATE.sub("\ufffd", chunk)  # tokenizers cannot write a lone surrogate as UTF-8
            known = tuple(self._tokenizer.encode(encodable, add_special_tokens=False).ids) or (self.unknown_id,)
            if len(self._memo) < 100_000:
                self._memo[chunk] = known
        return known

    def decode(self, ids: Sequence[int], forms: Sequence[int], surfaces: Sequence[str | None] | None = None) -> str:
        """Return the text of the tokens; `surfaces` overrides the spelling where not None (copied rare symbols)."""
        parts: list[str] = []
        for index, (piece, form) in enumerate(zip(ids, forms, strict=True)):
            surface = surfaces[index] if surfaces is not None else None
            if surface is None:
                surface = _apply_case(self.pieces[piece].removeprefix("##"), form % 3)
            if form >= 3 and parts:
                parts.append(" ")
            parts.append(surface)
        return "".join(parts)


def word_tokenizer(directory: Path) -> Any:
    """Return the word-piece tokenizer of an encoder's directory, without truncation or padding.

    Raises:
        CheckpointError: the encoder has no word-piece vocabulary, so the shipped decoder cannot be made from it.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    if type(tokenizer.model).__name__ != "WordPiece":
        raise CheckpointError(f"the encoder in {directory} has no word-piece vocabulary; this decoder needs one")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _case_of(chunk: str) -> int:
    if chunk[0].isupper():
        letters = [character for character in chunk if character.isalpha()]
        return UPPER if len(letters) > 1 and all(letter.isupper() for letter in letters) else TITLE
    return LOWER


def _apply_case(piece: str, case: int) -> str:
    if case == TITLE:
        return piece[:1].upper() + piece[1:]
    return piece.upper() if case == UPPER else piece
