"""Keys, and what is made of them: signed cookies, form tokens, sealed texts.

Two keys, neither of which is ever written down by guardrail: `review.secret` signs cookies and forms, `review.encryption_key`
seals what people write. Without the first, one is made when the process starts: sessions end with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from guardrail.errors import ConfigurationError

__all__ = ["Seal", "Signer", "digest", "new_token"]

_SEALED = "sealed:v1:"
UNREADABLE = "[sealed with a key that is not configured]"


def new_token() -> str:
    """256 random bits, safe in cookies and headers."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is stored of a token. Fast on purpose: 256 random bits cannot be guessed, unlike a password."""
    return hashlib.sha256(token.encode()).hexdigest()


class Signer:
    """Signs short values (HMAC-SHA-256). Values signed for one purpose are worthless for another.

    Args:
        secret: at least 32 characters; None: a random one.

    Raises:
        ConfigurationError: the secret is too short.
    """

    def __init__(self, secret: str | None = None) -> None:
        if secret is not None and len(secret) < 32:
            raise ConfigurationError(
                f"review.secret has {len(secret)} characters, expected at least 32. Make one with: "
                'python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        self._key = (secret or new_token()).encode()

    def mark(self, value: str, purpose: str) -> str:
        """The signature of `value` for `purpose`."""
        made = hmac.new(self._key, f"{purpose}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(made).decode().rstrip("=")

    def genuine(self, value: str, mark: str, purpose: str) -> bool:
        """Whether `mark` was made by `mark(value, purpose)`; takes the same time either way."""
        expected = self.mark(value, purpose).encode()
        return hmac.compare_digest(expected, mark.encode("utf-8", "surrogatepass"))

    def sign(self, value: str, purpose: str) -> str:
        """`value` with its signature."""
        return f"{value}.{self.mark(value, purpose)}"

    def read(self, signed: str, purpose: str) -> str | None:
        """The value of `sign`; None where the signature is not ours."""
        value, dot, mark = signed.rpartition(".")
        return value if dot and self.genuine(value, mark, purpose) else None


class Seal:
    """Encrypts texts at rest (Fernet: AES-128-CBC with HMAC-SHA-256), if there is a key.

    Args:
        keys: Fernet keys, comma separated; the first seals, all of them open, so that a key can be changed.

    Raises:
        ConfigurationError: not a Fernet key.
    """

    def __init__(self, keys: str | None = None) -> None:
        self._fernet: MultiFernet | None = None
        if keys:
            try:
                self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",")])
            except ValueError:  # the cause may quote the key: it is left out
                raise ConfigurationError(
                    "review.encryption_key is not a Fernet key (32 bytes, base64). Make one with: "
                    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
                ) from None

    def close(self, text: str) -> str:
        """The sealed text; the text itself where no key is configured."""
        if self._fernet is None or not text:
            return text
        return _SEALED + self._fernet.encrypt(text.encode("utf-8", "surrogatepass")).decode()

    def open(self, stored: str) -> str:
        """The text again. What was stored without a seal is returned as it is."""
        if not stored.startswith(_SEALED):
            return stored
        if self._fernet is None:
            return UNREADABLE
        try:
            return self._fernet.decrypt(stored.removeprefix(_SEALED)).decode("utf-8", "surrogatepass")
        except InvalidToken:
            return UNREADABLE
