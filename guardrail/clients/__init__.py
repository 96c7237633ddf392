"""`wrap` guards a client; `outcome` says what was decided for one of its responses."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from guardrail.clients.named import subject
from guardrail.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from guardrail.engine import Guardrail
    from guardrail.policy.loader import Policy
    from guardrail.settings import Settings
    from guardrail.types import Outcome

__all__ = ["outcome", "subject", "unwrap", "wrap"]

C = TypeVar("C")


def wrap(
    client: C,
    policy: str | Path | Policy | None = None,
    *,
    guard: Guardrail | None = None,
    settings: Settings | None = None,
    community: str = "default",
) -> C:
    """Guard a client: what goes in and what comes out is judged, repaired and recorded by a policy.

    An `openai` or `anthropic` client (sync, async, Azure, Bedrock, Vertex) is guarded in place and returned, type and
    all; so are its copies. The `litellm` module, one of its functions or a `Router` comes back as a guarded stand-in, and
    any callable `messages -> text` (sync, async, or yielding text) as a function of the same signature.

    Args:
        client: what to guard.
        policy: name or path of a policy, or a loaded one; default: what the settings say for the community.
        guard: a `Guardrail` to use instead of making one; excludes the other options.
        settings: default: `guardrail.yaml` and `GUARDRAIL_*` variables, read on the first call.
        community: whose conversations these are; stands in the audit.

    Returns:
        The guarded client. Wrapping it again in the same way changes nothing.

    Raises:
        ConfigurationError: it cannot be guarded, or it is wrapped already with another policy.
    """
    from guardrail.clients import functions, litellm, sdk

    spec = _spec(policy, guard, settings, community)
    existing = sdk.installed(client) or functions.installed(client)
    if existing is not None:
        if spec in (existing.spec, _spec(None, None, None, "default")) or guard is existing.guard:
            return client
        raise ConfigurationError(
            f"This client is wrapped already, with {_told(existing.spec)}. Call guardrail.clients.unwrap(client) first to wrap it "
            f"with {_told(spec)}."
        )
    moderator = guard if guard is not None else _guardrail(policy, settings, community)
    if sdk.is_client(client):
        sdk.install(client, moderator, spec)
        return client
    if litellm.is_litellm(client):
        return litellm.guarded(client, moderator, spec)  # type: ignore[no-any-return]
    if callable(client) and not isinstance(client, type | ModuleType):
        return cast("C", functions.guarded(client, moderator, spec))
    raise ConfigurationError(
        f"{client!r} cannot be wrapped: expected an openai or anthropic client object, the litellm module, a litellm function "
        "or Router, or a callable that takes messages and returns text."
    )


def unwrap(client: C) -> C:
    """The client without its guard: an `openai` or `anthropic` client is restored in place, for others the original comes back."""
    from guardrail.clients import functions, sdk

    if sdk.installed(client) is not None:
        sdk.uninstall(client)
        return client
    found = functions.installed(client)
    return client if found is None else found.original


def outcome(response: Any) -> Outcome | None:
    """What was decided for a response of a guarded client; None if there is nothing to tell.

    Args:
        response: a native response object, a raw response, a stream (complete once it has been read), one of its chunks,
            a dict made of a response, a text of a wrapped callable, or a `Blocked` exception.
    """
    from guardrail.clients.ledger import find
    from guardrail.errors import Blocked

    if isinstance(response, Blocked):
        return response.outcome
    ledger = find(response)
    return ledger.outcome if ledger is not None else None


def _spec(policy: Any, guard: Any, settings: Any, community: str) -> tuple[object, ...]:
    """What was asked for, to compare a second wrap with the first."""
    if guard is not None and (policy is not None or settings is not None):
        raise ConfigurationError("Give either `guard` or `policy` and `settings`: a guard has its own.")
    return (
        str(policy) if policy is not None and not hasattr(policy, "revision") else policy,
        guard,
        settings,
        community,
    )


def _told(spec: tuple[object, ...]) -> str:
    policy, guard, _, community = spec
    return (
        f"the guard {guard!r}"
        if guard is not None
        else f"policy {policy or 'of the settings'!r} for community {community!r}"
    )


def _guardrail(policy: Any, settings: Any, community: str) -> Guardrail:
    from guardrail.engine import Guardrail

    return Guardrail(policy, settings=settings, community=community)
