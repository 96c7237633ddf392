"""Every exception that guardrail raises on purpose, drawn.

GuardrailError
├── ConfigurationError          the set-up is wrong; nothing was moderated
│   ├── SettingsError           guardrail.yaml or a GUARDRAIL_* variable
│   ├── PolicyError             a policy file: names file, line, key, what was expected
│   ├── DataError               labelled texts for training or measuring: names file, line, key
│   ├── ClassifierError         a classifier cannot be built: unknown kind, missing head, other encoder
│   ├── CheckpointError         a shipped or trained weight file is missing, damaged or of another encoder
│   └── MissingDependencyError  an optional package is needed; carries the exact `pip install` line
├── ModerationError             something went wrong while moderating
│   ├── ClassifierFailure       a classifier raised or timed out while scoring (the rule's `on_error` decides)
│   ├── RewriteFailure          a rewriter raised (the next one in the policy's order is tried)
│   ├── AuditUnavailable        the decision could not be made durable, so its text was not delivered
│   └── UnsupportedPath         a generative call that the wrapper does not know; it is refused, never passed through
└── Blocked                     raised instead of a refusal text where `on_block: raise` is configured
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrail.types import Outcome

__all__ = [
    "AuditUnavailable",
    "Blocked",
    "CheckpointError",
    "ClassifierError",
    "ClassifierFailure",
    "ConfigurationError",
    "DataError",
    "GuardrailError",
    "MissingDependencyError",
    "ModerationError",
    "PolicyError",
    "RewriteFailure",
    "SettingsError",
    "UnsupportedPath",
    "did_you_mean",
]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the closest known name, or an empty string."""
    import difflib  # only a message about a mistake needs it

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class GuardrailError(Exception):
    """Base of every exception that guardrail raises on purpose."""


class ConfigurationError(GuardrailError):
    """The set-up is wrong; nothing was moderated. The command line exits with 2."""


class _LocatedError(ConfigurationError):
    """A mistake in a file that a person wrote. The message starts with `file:line: key:`, as far as they are known."""

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        where = ":".join(str(part) for part in (file, line) if part is not None)
        prefix = f"{where}: " if where else ""
        infix = f"{key}: " if key else ""
        super().__init__(f"{prefix}{infix}{message}")
        self.file, self.line, self.key = file, line, key


class SettingsError(_LocatedError):
    """`guardrail.yaml` or a `GUARDRAIL_*` variable cannot be used. The message names file or variable, line and key."""


class PolicyError(_LocatedError):
    """A policy file cannot be used. The message names file, line, key and what was expected."""


class DataError(_LocatedError):
    """Labelled texts cannot be used: unreadable, malformed, out of range, or too few to support what was asked."""


class ClassifierError(ConfigurationError):
    """A classifier named by a policy cannot be built."""


class CheckpointError(ConfigurationError):
    """A weight file is missing, damaged, or belongs to another encoder."""


class MissingDependencyError(ConfigurationError):
    """An optional package is needed."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}. Install it with: pip install 'guardrail-dglm[{extra}]'"
        )
        self.package, self.extra = package, extra


class ModerationError(GuardrailError):
    """Something went wrong while moderating. The command line exits with 3."""


class ClassifierFailure(ModerationError):
    """A classifier raised or timed out while scoring."""

    def __init__(self, classifier: str, cause: BaseException) -> None:
        super().__init__(f"classifier {classifier!r} failed: {type(cause).__name__}: {cause}")
        self.classifier = classifier


class RewriteFailure(ModerationError):
    """A rewriter raised."""


class AuditUnavailable(ModerationError):
    """The decision could not be made durable, so its text was not delivered."""


class UnsupportedPath(ModerationError):
    """A generative call that the wrapper does not know. It is refused, never passed through."""


class Blocked(GuardrailError):
    """Raised instead of a refusal text where `on_block: raise` is configured.

    `outcome` carries the decisions, so that the caller can explain them.
    """

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome
