"""The audit store that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardrail.audit.store import AuditStore, open_store

if TYPE_CHECKING:
    from guardrail.settings import AuditSettings

__all__ = ["open_configured"]


def open_configured(settings: AuditSettings) -> AuditStore:
    """Return the store of `audit:` in the settings, ready to record.

    Raises:
        ConfigurationError, MissingDependencyError, AuditUnavailable: see `open_store`.
    """
    return open_store(
        settings.url,
        store_text=settings.store_text,
        store_embeddings=settings.store_embeddings,
        mask=settings.mask,
        durability=settings.durability,
        spool=settings.spool,
        encryption_key=settings.encryption_key,
    )
