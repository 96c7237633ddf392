"""What the sub-commands of `guardrail audit` share: the store, the options of filters, times as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.common import InputError, open_settings

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore

__all__ = ["UrlOption", "moment", "opened"]

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="The audit database; default: audit.url of the settings.", show_default=False),
]

_AGES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str | None, name: str) -> datetime | None:
    """Read a time: ISO 8601 (local time, if it names no zone), or an age such as `30m`, `12h`, `7d`, `2w`.

    Raises:
        InputError: neither.
    """
    if text is None:
        return None
    age = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    try:
        if age:
            return datetime.now(UTC) - timedelta(**{_AGES[age[2]]: int(age[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise InputError(
            f"--{name} is {text!r}, expected a time such as 2026-11-21 or 2026-11-21T14:30:00Z, or an age such as 12h"
        ) from None


@contextmanager
def opened(url: str | None, config: Any) -> Iterator[AuditStore]:
    """The store that `--url` or the settings name; it must exist."""
    from guardrail.audit.store import open_store

    settings = open_settings(config).audit
    store = open_store(url or settings.url, create=False, encryption_key=settings.encryption_key)
    try:
        yield store
    finally:
        store.close()
