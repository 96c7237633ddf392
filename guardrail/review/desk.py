"""What every handler works with: the record, the keys, the people's own store of passwords, and the clock of the pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from guardrail.audit.store import AuditStore
from guardrail.review.keys import Signer
from guardrail.review.passwords import Passwords
from guardrail.review.policies import Policies

__all__ = ["Desk", "Encode"]

Encode = Callable[[Sequence[str]], Any]
"""Texts to their (N, dim) unit vectors, as `Encoder.encode`."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts of one review application.

    Attributes:
        encode: for similar decisions whose embeddings are not on record; None: only stored ones are compared.
        session_lasts: from sign-in to the end, however busy.
        secure: cookies go over HTTPS only.
    """

    store: AuditStore
    signer: Signer = field(default_factory=Signer)
    passwords: Passwords = field(default_factory=Passwords)
    policies: Policies = field(default_factory=Policies)
    encode: Encode | None = None
    session_lasts: timedelta = timedelta(hours=12)
    secure: bool = True
