"""Content moderation between an LLM and its readers.

A community's YAML policy decides, a diffusion-guided language model (DGLM) repairs what it can, and an audit store
remembers why. In five lines:

    import guardrail, openai

    client = guardrail.wrap(openai.OpenAI(), policy="teen-gaming")
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
    print(reply.choices[0].message.content, guardrail.outcome(reply).action)

Every name below is imported when it is first used, so `import guardrail` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardrail import errors
    from guardrail.clients import outcome, wrap
    from guardrail.engine import Guardrail
    from guardrail.errors import (
        AuditUnavailable,
        Blocked,
        CheckpointError,
        ClassifierError,
        ClassifierFailure,
        ConfigurationError,
        DataError,
        GuardrailError,
        MissingDependencyError,
        ModerationError,
        PolicyError,
        RewriteFailure,
        SettingsError,
        UnsupportedPath,
    )
    from guardrail.policy import Policy, load_policy
    from guardrail.settings import Settings, load_settings
    from guardrail.types import Action, Decision, Message, Outcome, Passage, Reason, Rewrite, Stage, State

__version__ = "0.1.0"

__all__ = [
    "Action",
    "AuditUnavailable",
    "Blocked",
    "CheckpointError",
    "ClassifierError",
    "ClassifierFailure",
    "ConfigurationError",
    "DataError",
    "Decision",
    "Guardrail",
    "GuardrailError",
    "Message",
    "MissingDependencyError",
    "ModerationError",
    "Outcome",
    "Passage",
    "Policy",
    "PolicyError",
    "Reason",
    "Rewrite",
    "RewriteFailure",
    "Settings",
    "SettingsError",
    "Stage",
    "State",
    "UnsupportedPath",
    "__version__",
    "errors",
    "load_policy",
    "load_settings",
    "outcome",
    "wrap",
]

_HOMES = {
    "guardrail.clients": ("outcome", "wrap"),
    "guardrail.engine": ("Guardrail",),
    "guardrail.errors": (
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
    ),
    "guardrail.policy": ("Policy", "load_policy"),
    "guardrail.settings": ("Settings", "load_settings"),
    "guardrail.types": ("Action", "Decision", "Message", "Outcome", "Passage", "Reason", "Rewrite", "Stage", "State"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module that defines `name` (PEP 562)."""
    from importlib import import_module

    if name == "errors":
        return import_module("guardrail.errors")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'guardrail' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, imported or not."""
    return sorted(__all__)
