"""Passwords: argon2id, and a check that takes the same time whether or not the person exists."""

from __future__ import annotations

import threading
import unicodedata

from argon2 import Parameters, PasswordHasher, profiles
from argon2.exceptions import InvalidHashError, VerificationError

from guardrail.errors import ConfigurationError

__all__ = ["LEAST_LENGTH", "Passwords"]

LEAST_LENGTH = 12
"""Characters; NIST SP 800-63B (2024) asks for length, and for no rules of composition."""

_MOST_LENGTH = 256  # a megabyte of password would be a megabyte of work
_AT_ONCE = 4  # each hash takes 64 MiB for its duration


class Passwords:
    """Hashes and checks passwords. Thread-safe.

    Args:
        parameters: of argon2; default: the second profile that RFC 9106 recommends (64 MiB, 3 passes, 4 lanes).
            `argon2.profiles.CHEAPEST` is for tests only.
    """

    def __init__(self, parameters: Parameters = profiles.RFC_9106_LOW_MEMORY) -> None:
        self._hasher = PasswordHasher.from_parameters(parameters)
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._nobody = ""

    def hash(self, password: str, *, name: str = "") -> str:
        """Return the hash of a new password.

        Args:
            name: of the person; a password that contains it is refused.

        Raises:
            ConfigurationError: the password is too short, too long, or is easily guessed from the name.
        """
        if not LEAST_LENGTH <= len(password) <= _MOST_LENGTH:
            raise ConfigurationError(
                f"the password has {len(password)} characters, expected {LEAST_LENGTH} to {_MOST_LENGTH}"
            )
        if len(set(password)) < 5 or (name and name.casefold() in password.casefold()):
            raise ConfigurationError("the password is easy to guess: it holds the name, or a few characters repeated")
        with self._room:
            return self._hasher.hash(_normal(password))

    def check(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the one. `stored` is None where there is no such person: the work is done all the same."""
        if len(password) > _MOST_LENGTH:
            return False
        with self._room:
            if stored is None and not self._nobody:
                self._nobody = self._hasher.hash("nobody has this password")
            try:
                self._hasher.verify(stored or self._nobody, _normal(password))
            except (VerificationError, InvalidHashError):
                return False
            return stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)


def _normal(password: str) -> str:
    """The same password typed on two systems: é as one code point or as two."""
    return unicodedata.normalize("NFKC", password)
