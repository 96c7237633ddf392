"""Second opinions: classifiers that cost too much to be asked about every text, and how several texts are put to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from guardrail.classifiers.base import Classifier
from guardrail.types import Passage, Score

__all__ = ["SecondOpinion", "ask"]

AT_ONCE = 8


@runtime_checkable
class SecondOpinion(Classifier, Protocol):
    """Asked only about texts of which a rule that weighs it is uncertain without it."""

    @property
    def margin(self) -> float:
        """How near a threshold of the rule, in logits, is uncertain."""
        ...


def ask(
    classifier: Classifier, passages: Sequence[Passage], check: Callable[[Score], Score]
) -> list[Score | Exception]:
    """Put passages to a classifier one by one, several at once: what fails for one text fails for no other.

    Args:
        classifier: thread-safe, as all are.
        passages: at least one.
        check: returns a score that can be used, and raises for any other.
    """

    def one(passage: Passage) -> Score | Exception:
        try:
            (score,) = classifier.score([passage])
            return check(score)
        except Exception as error:  # noqa: BLE001 (any classifier may be a plug-in; the rules' on_error decides)
            return error

    if len(passages) == 1:
        return [one(passages[0])]
    with ThreadPoolExecutor(min(AT_ONCE, len(passages))) as pool:
        return list(pool.map(one, passages))
