"""The one protocol that every classifier follows, and what its builder is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from guardrail.errors import ClassifierError
from guardrail.registry import did_you_mean
from guardrail.types import Passage, Score

__all__ = ["BuildContext", "Classifier", "check_options"]


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a classifier's builder may need to know about its surroundings.

    Attributes:
        encoder: name of the sentence encoder that the settings choose.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        directory: the folder of the policy file; relative file names in the options start here.
        data_dir: where a classifier may keep files that it can make again (caches).
        rules: what the rules that weigh the classifier are for, in the policy's words.
    """

    encoder: str
    device: str
    directory: Path
    data_dir: Path
    rules: tuple[str, ...] = ()


@runtime_checkable
class Classifier(Protocol):
    """Scores passages. Thread-safe; holds no state that changes between calls.

    A module offers a kind of classifier by a function
    `build(name: str, options: Mapping[str, Any], context: BuildContext) -> Classifier`, where `options` is the policy's
    mapping for that classifier without `kind`.
    """

    @property
    def name(self) -> str:
        """The name that the policy gives it."""
        ...

    @property
    def kind(self) -> str:
        """The name of its kind in the registry, for example `"pattern"`."""
        ...

    @property
    def fingerprint(self) -> str:
        """`"sha256:..."` of everything that its scores depend on; stands in the audit."""
        ...

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """One score for each passage, in order: a probability in [0, 1], and spans in the original text if known."""
        ...


def check_options(kind: str, name: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse options that the kind does not have.

    Raises:
        ClassifierError: an option is unknown; the message lists the known ones and suggests the closest.
    """
    known = tuple(known)
    for option in options:
        if option not in known:
            listed = ", ".join(known)
            raise ClassifierError(
                f"classifier {name!r}: {option!r} is not an option of kind {kind!r}, which has {listed}."
                f"{did_you_mean(str(option), known)}"
            )
