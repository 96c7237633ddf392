"""What is made of `review.secret`: signed cookies and form tokens. Without it a secret is made when the process starts:
sessions end with it. It is never written down by guardrail.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from guardrail.errors import ConfigurationError

__all__ = ["Signer", "digest", "new_token"]


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
