"""Names to code: `"module:attribute"` strings, resolved when a policy first uses them.

Built-ins and plug-ins go through the same door. A plug-in is a distribution with an entry point in one of the groups
`guardrail.classifiers` or `guardrail.rewriters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from guardrail.errors import ConfigurationError, did_you_mean

__all__ = ["BUILT_IN", "did_you_mean", "names", "resolve"]

BUILT_IN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "guardrail.classifiers": MappingProxyType(
            {
                "direction": "guardrail.classifiers.direction:build",
                "judge": "guardrail.classifiers.llm_judge:build",
                "linear": "guardrail.classifiers.linear:build",
                "moderation_api": "guardrail.classifiers.moderation_api:build",
                "pattern": "guardrail.classifiers.pattern:build",
                "pii": "guardrail.classifiers.pii:build",
                "secrets": "guardrail.classifiers.secrets:build",
                "transformer": "guardrail.classifiers.transformer:build",
                "trihash": "guardrail.classifiers.trihash:build",
            }
        ),
        "guardrail.rewriters": MappingProxyType(
            {
                "dglm": "guardrail.rewrite.dglm:build",
                "prompted": "guardrail.rewrite.prompted:build",
                "redact": "guardrail.rewrite.redact:build",
            }
        ),
    }
)


def names(group: str) -> list[str]:
    """All names of a group, built-ins first, without importing any of them."""
    plugins = [point.name for point in entry_points(group=group)]
    return [*BUILT_IN[group], *(name for name in plugins if name not in BUILT_IN[group])]


@cache
def resolve(group: str, name: str) -> Any:
    """Import and return what `name` stands for in `group`.

    Raises:
        ConfigurationError: the name is unknown; the message lists the known ones.
    """
    target = BUILT_IN[group].get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)
    for point in entry_points(group=group):
        if point.name == name:
            return point.load()
    known = names(group)
    raise ConfigurationError(f"{name!r} is not one of {', '.join(known)}.{did_you_mean(name, known)}")
