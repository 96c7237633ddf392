"""Documents of an unexpected shape: whatever reading one raises becomes a refusal that names the document."""

from __future__ import annotations

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


class readable:  # noqa: N801 - used like a function, as `contextlib.suppress` is
    """Turn the exceptions of reading a document of an unexpected shape into a clear refusal.

    Args:
        what: names the document.

    Raises:
        ModerationError: naming the document; the cause is chained.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MALFORMED):
            raise malformed(self._what, error) from error
