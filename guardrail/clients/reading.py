"""Documents of an unexpected shape: whatever reading one raises becomes a refusal that names the document."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from guardrail.errors import ModerationError

__all__ = ["MALFORMED", "malformed", "readable"]

MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError)
"""What reading a document of an unexpected shape raises."""


def malformed(what: str, error: Exception) -> ModerationError:
    """The error for a document that could not be read."""
    return ModerationError(
        f"{what} has a shape that guardrail does not know ({type(error).__name__}: {error}), so it could not be judged and "
        "was not passed on."
    )


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn the exceptions of reading a document of an unexpected shape into a clear refusal.

    Raises:
        ModerationError: naming the document; the cause is chained.
    """
    try:
        yield
    except MALFORMED as error:
        raise malformed(what, error) from error
