"""From a policy to a judge: build its classifiers by their kinds, compile its rules."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.errors import ClassifierError, GuardrailError
from guardrail.judge import Judge
from guardrail.policy.bundle import LinearHead, compile_policy
from guardrail.policy.loader import Policy
from guardrail.registry import resolve

if TYPE_CHECKING:
    from guardrail.classifiers.base import Classifier
    from guardrail.encoder import Encoder
    from guardrail.settings import Settings


@dataclass(frozen=True, slots=True)
class Assembly:
    """A policy ready to judge.

    Attributes:
        models: every classifier to the hash of what its scores depend on.
        encoder_sha256: of the encoder that its heads need; None without heads.
        others: classifiers whose scores do not come from a head.
    """

    policy: Policy
    judge: Judge
    models: Mapping[str, str]
    encoder_sha256: str | None = None
    others: frozenset[str] = frozenset()


def assemble(policy: Policy, settings: Settings) -> Assembly:
    """Build what a policy names. Loads no model: the encoder loads when the first text has to be embedded.

    Raises:
        PolicyError: a rule needs a head or a classifier that cannot be had.
        ClassifierError: a classifier's options are wrong; the message names the policy file.
    """
    from guardrail.classifiers.base import BuildContext

    context = BuildContext(settings.encoder, settings.device, policy.directory, cache_folder())
    heads: dict[str, LinearHead] = {}
    others: dict[str, Classifier] = {}
    models: dict[str, str] = {}
    for name, spec in policy.document.classifiers.items():
        weighing = (rule.description for rule in policy.document.rules.values() if name in rule.weights)
        own = replace(context, rules=tuple(description for description in weighing if description))
        try:
            classifier: Classifier = resolve("guardrail.classifiers", spec.kind)(name, spec.options, own)
        except GuardrailError as error:
            raise policy.error(str(error), "classifiers", name) from error
        models[name] = classifier.fingerprint
        head = getattr(classifier, "head", None)
        if isinstance(head, LinearHead):
            heads[name] = head
        if not isinstance(head, LinearHead) or getattr(classifier, "decides", False):
            others[name] = classifier  # with a head beside it, that head only steers
    bundle = compile_policy(policy, heads, others)

    def encoder() -> Encoder:
        from guardrail.encoder import load_encoder

        loaded = load_encoder(settings.encoder, settings.device)
        for name, head in heads.items():
            if head.encoder_sha256 != loaded.sha256:
                raise ClassifierError(
                    f"the head {name!r} belongs to the encoder {head.encoder_sha256}, not to {loaded.sha256} "
                    f"({settings.encoder}); train it for this encoder with `guardrail heads train`"
                )
        return loaded

    wanted = next((head.encoder_sha256 for head in heads.values()), None)
    return Assembly(policy, Judge(bundle, others, encoder), models, wanted, frozenset(others))


def cache_folder() -> Path:
    """Where files that can be made again are kept: `$XDG_CACHE_HOME/guardrail`, by default `~/.cache/guardrail`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "guardrail"
