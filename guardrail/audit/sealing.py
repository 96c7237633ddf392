"""Texts encrypted at rest, where `audit.encryption_key` is set.

Sealed are drafts, delivered texts, rewrites, what reviewers and appellants write, embeddings, and the salts of the digests:
with salt and digest a short text could be guessed. Everything else of a row stays readable for queries. A sealed value is

    U+001A "sealed:" key id ":" base64url(nonce, ciphertext, tag)

with AES-256-GCM (NIST SP 800-38D) under a random nonce of 96 bits; its additional data is what stands before the base64.
Escaped text never holds U+001A followed by "s" (see `guardrail.audit.escaping`), so no text that anybody writes can be taken
for a sealed one, and sealing twice is the same as once. Digests and the hash chain speak of the plain text: a text sealed
anew under another key keeps its place in the chain, and the chain verifies without any key.

The columns have the types `SealedText`, `SealedString` and `SealedBytes`, which seal and open by the `Seals` that were installed
for the engine. What cannot be opened reads as `Locked`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import ColumnElement, Dialect, Engine, LargeBinary, String, Text, type_coerce
from sqlalchemy.types import TypeDecorator

from guardrail.errors import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "PREFIX",
    "Locked",
    "SealedBytes",
    "SealedString",
    "SealedText",
    "Seals",
    "install",
    "key_of",
    "locked",
    "make_seals",
    "must_be_open",
    "sealed",
    "seals_of",
]

PREFIX = "\x1asealed:"
_NONCE = 12  # bytes
_TAG = 16  # bytes
_ID = 8  # characters of a key's id


class Locked(str):
    """Stands for a text that cannot be opened; reads "[encrypted]".

    Attributes:
        key: id of the key that sealed it.
        damaged: the key is there, but the text is not the one that it sealed.
    """

    __slots__ = ("damaged", "key")
    key: str
    damaged: bool

    def __new__(cls, key: str, damaged: bool = False) -> Self:
        """Make one for the key of that id."""
        made = super().__new__(cls, "[encrypted, damaged]" if damaged else "[encrypted]")
        made.key, made.damaged = key, damaged
        return made

    @property
    def why(self) -> str:
        """What is wrong, and what to do."""
        if self.damaged:
            return f"it was sealed with the key {self.key} and has been changed since; run: guardrail audit verify"
        return (
            f"it is encrypted with the key {self.key}, which is not configured; "
            "add that key to audit.encryption_key (GUARDRAIL_AUDIT_ENCRYPTION_KEY)"
        )


class Seals:
    """Seals and opens texts.

    Args:
        keys: 32 bytes each; the first seals, all of them open, so that a key can be changed.

    Raises:
        MissingDependencyError: without `cryptography`.
        ConfigurationError: no key, or one of another length.
    """

    def __init__(self, *keys: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingDependencyError("cryptography", extra="encryption", purpose="Encryption at rest") from None
        if not keys or any(len(key) != 32 for key in keys):
            raise ConfigurationError("an encryption key has 32 bytes")
        self._invalid = InvalidTag
        self._ciphers: Mapping[str, AESGCM] = {_key_id(key): AESGCM(key) for key in keys}
        self.key = _key_id(keys[0])
        """Id of the key that seals."""
        self._head = f"{PREFIX}{self.key}:"

    def __repr__(self) -> str:
        return f"Seals({', '.join(self._ciphers)})"

    def close(self, text: str) -> str:
        """Return the sealed text; an empty or sealed one as it is."""
        if not text or text.startswith(PREFIX):
            return text
        return self._head + base64.urlsafe_b64encode(self._seal(text.encode())).decode()

    def open(self, stored: str) -> str:
        """Return the text again: one that was never sealed as it is, one that cannot be opened as `Locked`."""
        if not stored.startswith(PREFIX):
            return stored
        head, _, body = stored.rpartition(":")
        try:
            found = self._open(head + ":", base64.urlsafe_b64decode(body))
            return found if isinstance(found, Locked) else found.decode()
        except (binascii.Error, UnicodeError):
            return Locked(key_of(stored), damaged=True)

    def close_bytes(self, data: bytes) -> bytes:
        """`close` for bytes."""
        if not data or data.startswith(PREFIX.encode()):
            return data
        return self._head.encode() + self._seal(data)

    def open_bytes(self, stored: bytes) -> bytes | None:
        """`open` for bytes: None where the key is not there, nothing (b"") where they are damaged."""
        if not stored.startswith(PREFIX.encode()):
            return stored
        length = len(self._head)
        found = self._open(stored[:length].decode("ascii", "replace"), stored[length:])
        if isinstance(found, Locked):
            return b"" if found.damaged else None
        return found

    def _seal(self, data: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[self.key].encrypt(nonce, data, self._head.encode())

    def _open(self, head: str, body: bytes) -> bytes | Locked:
        key = key_of(head)
        cipher = self._ciphers.get(key)
        if cipher is None:
            return Locked(key)
        if len(body) < _NONCE + _TAG:
            return Locked(key, damaged=True)
        try:
            return cipher.decrypt(body[:_NONCE], body[_NONCE:], head.encode())
        except self._invalid:
            return Locked(key, damaged=True)


def _key_id(key: bytes) -> str:
    """What names a key without telling it: the key has 256 random bits, which no hash can be searched for."""
    return hashlib.sha256(b"guardrail audit key\0" + key).hexdigest()[:_ID]


def key_of(stored: str) -> str:
    """Return the id of the key that sealed a value."""
    return stored[len(PREFIX) : len(PREFIX) + _ID]


def make_seals(keys: str | None) -> Seals | None:
    """Return the seals of a setting: keys of 32 bytes in base64, comma separated, the first of which seals. None: none.

    Raises:
        ConfigurationError: not a key. MissingDependencyError: without `cryptography`.
    """
    if not keys:
        return None
    try:
        return Seals(*(_decode(key.strip()) for key in keys.split(",")))
    except MissingDependencyError:
        raise
    except (ConfigurationError, ValueError):  # the cause may quote the key: it is left out
        raise ConfigurationError(
            "audit.encryption_key has to be 32 random bytes in base64; several keys are separated by commas. "
            "Make one with: openssl rand -base64 32"
        ) from None


def _decode(key: str) -> bytes:
    return base64.b64decode(key.replace("-", "+").replace("_", "/"), validate=True)


# ------------------------------------------------------------------------------------------------- in the database

_installed: weakref.WeakKeyDictionary[Dialect, Seals] = weakref.WeakKeyDictionary()


def install(engine: Engine, seals: Seals | None) -> None:
    """Let the sealed columns of an engine be sealed and opened with `seals`; None: new texts are stored as they are."""
    if seals is None:
        _installed.pop(engine.dialect, None)
    else:
        _installed[engine.dialect] = seals


def seals_of(dialect: Dialect) -> Seals | None:
    """Return what was installed for the engine of a dialect."""
    return _installed.get(dialect)


class SealedText(TypeDecorator[str]):
    """Text that is sealed on the way in and opened on the way out. Never compare such a column with a value."""

    impl: Any = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Seal."""
        seals = _installed.get(dialect)
        return value if seals is None or value is None else seals.close(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        """Open; SQLite keeps any kind of value in any column, and what is no text is given back as it is."""
        if not isinstance(value, str) or not value.startswith(PREFIX):
            return value
        seals = _installed.get(dialect)
        return Locked(key_of(value)) if seals is None else seals.open(value)


class SealedString(SealedText):
    """`SealedText` for a column of the type VARCHAR."""

    impl = String
    cache_ok = True


class SealedBytes(TypeDecorator[bytes]):
    """Bytes that are sealed on the way in and opened on the way out: None without the key, b"" if damaged."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Seal."""
        seals = _installed.get(dialect)
        return value if seals is None or value is None else seals.close_bytes(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        """Open."""
        if not isinstance(value, bytes) or not value.startswith(PREFIX.encode()):
            return value
        seals = _installed.get(dialect)
        return None if seals is None else seals.open_bytes(value)


def sealed(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a text column holds a sealed value."""
    return type_coerce(column, Text).startswith(PREFIX)


def locked(text: str | None) -> str:
    """Return why a text cannot be read; '' where it can (or where there is none)."""
    return text.why if isinstance(text, Locked) else ""


def must_be_open(text: str | None, what: str) -> str | None:
    """Return the text.

    Args:
        what: whose text it is, for the message.

    Raises:
        ConfigurationError: it cannot be opened; the message says what to do.
    """
    if isinstance(text, Locked):
        raise ConfigurationError(f"{what} cannot be read: {text.why}")
    return text
