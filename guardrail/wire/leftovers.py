"""What nobody else reads in a document of the upstream: every text under a key that its format does not know.

Providers add keys, and a client library hands them on (its objects keep what they do not know). So a document is walked once
more after its texts have been found: what is no text by its key, or an echo of the request, is left out, and all that
remains is judged.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from guardrail.types import Stage
from guardrail.wire.documents import Path
from guardrail.wire.formats import NOT_TEXT
from guardrail.wire.pieces import Form, Piece

__all__ = ["Once", "leftovers", "spells"]

# Beside the names and ids of `NOT_TEXT`: numbers of the event, and settings.
_SETTINGS = frozenset(
    "event_id response_id request_id user_id tool_id caller_id skill_id sequence_number service_tier effort action "
    "size quality background output_format agent agent_name call_name tool_name toolset_name mcp_server_name provider "
    "system_fingerprint source_type file_data language operation environment memory_limit version "
    "fallback_credit_token recommended_model".split()
)
# Values that nobody reads as words, whatever characters are in them: encrypted, encoded, padding, a date in words; and what is
# read elsewhere.
_OPAQUE = frozenset(
    "encrypted_content encrypted_index encrypted_stdout signature thought_signature thoughtSignature b64_json "
    "partial_image_b64 url uri image_url file_url filename page_age retrieved_at created_at expires_at logprobs "
    "top_logprobs obfuscation usage stop_sequence".split()
)
_NAMES = NOT_TEXT | _SETTINGS


def leftovers(
    node: Any, read: Collection[Path], path: Path = (), *, skip: AbstractSet[str] = frozenset(), lane: int = 0
) -> list[Piece]:
    """The texts that are left, to be judged and never rewritten.

    A name, an id or a setting is left out only if it looks like one: printable ASCII in one word. Words stay a text, whatever
    key they stand under.

    Args:
        node: an object of the document.
        read: where texts have been found, or need not be looked for; nothing below them is walked.
        path: where the object stands in the document.
        skip: keys of the object itself that are not walked: echoes of the request, say.
        lane: whose answer it is.
    """
    if isinstance(node, dict) and node.keys() <= skip:
        return []
    found: list[Piece] = []
    pending: list[tuple[Path, str, Any]] = []

    def look_into(path: Path, value: Any, skip: AbstractSet[str] = frozenset()) -> None:
        if isinstance(value, dict):
            items = [((*path, key), str(key), item) for key, item in value.items() if key not in skip]
        else:
            items = [((*path, index), "", item) for index, item in enumerate(value)]
        pending.extend(reversed(items))

    look_into(path, node if isinstance(node, dict | list) else [], skip)
    while pending:
        where, key, value = pending.pop()
        if where in read or key in _OPAQUE:
            continue
        if isinstance(value, dict | list):
            look_into(where, value)
        elif isinstance(value, str) and value and not (key in _NAMES and _is_name(value)):
            found.append(Piece(where, value, Stage.OUTPUT, Form.OPAQUE, lane))
    return found


def _is_name(value: str) -> bool:
    return value.isascii() and not any(map(str.isspace, value))


class Once:
    """Lets each text under an unknown key through once a lane: what every event of a stream repeats is judged once."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, Path, str]] = set()

    def new(self, pieces: Iterable[Piece]) -> tuple[Piece, ...]:
        """Those that were not seen yet."""
        fresh = [piece for piece in pieces if (piece.lane, piece.path, piece.text) not in self._seen]
        self._seen.update((piece.lane, piece.path, piece.text) for piece in fresh)
        return tuple(fresh)

    def forget(self) -> None:
        """One was altered: whoever repeats it must be altered too."""
        self._seen.clear()


_HALF = re.compile(
    r"bytes:(?: ?\\x[0-9a-f]{2})+|[^\ufffd]*\ufffd[^\ufffd]*"
)  # the name of a token cut inside a character


def spells(tokens: Any, text: str) -> bool:
    """Whether log-probabilities, a list of tokens, spell nothing but (a part of) this text.

    Tokens may be cut inside a character; then their bytes count.
    """
    if not tokens:
        return True
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        return False
    data = b""
    for token in tokens:
        name, given = str(token.get("token") or ""), bytes(token.get("bytes") or ())
        own = name.encode("utf-8", "surrogatepass")
        if given and given != own and not (_HALF.fullmatch(name) and _named_in(name, text)):
            return False
        data += given or own
    return data.decode("utf-8", "ignore") in text


def _named_in(name: str, text: str) -> bool:
    """Whether what can be read of a cut token's name stands in the text."""
    return name.startswith("bytes:") or all(part in text for part in name.split("\ufffd"))
