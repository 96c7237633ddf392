"""The policy document: what a community may write, with every default. `json_schema` in the next module publishes it.

A document here is *resolved*: `extends` has been followed and every key that was not given has its default. Checks that
look at more than one key (a rule that weighs a classifier that is not there) stand in `guardrail.policy.checks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from guardrail.types import Action, Stage

__all__ = [
    "FILE_OPTIONS",
    "ClassifierSpec",
    "Guides",
    "Hold",
    "OnError",
    "PolicyDocument",
    "Preference",
    "RewriteSpec",
    "Rule",
]

FILE_OPTIONS = ("lexicon", "examples", "file")
"""Options of classifiers that name a file; it is looked for beside the policy file that gives the option."""

OnError = Literal["block", "flag", "allow"]
Combine = Literal["log_pool", "max", "noisy_or"]

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
_Weight = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
_Threshold = Annotated[float, Field(strict=True, gt=0, lt=1)]
_Share = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1, max_length=4000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassifierSpec(_Part):
    """One thing that can be measured. Everything besides `kind` is an option of that kind, kept in `options`."""

    kind: _Text
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, value: Any) -> Any:
        if not isinstance(value, dict) or (set(value) == {"kind", "options"} and isinstance(value["options"], dict)):
            return value
        options = {name: item for name, item in value.items() if name != "kind"}
        return {**({"kind": value["kind"]} if "kind" in value else {}), "options": options}

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.options}


class Rule(_Part):
    """One rule: which classifiers count, how much, at which stages, and what happens from which risk on."""

    description: str = Field("", description="What the rule is for, in plain words; reviewers and users may see it.")
    stages: tuple[Stage, ...] = Field(
        (Stage.INPUT, Stage.OUTPUT), min_length=1, description="Where in a conversation the rule judges."
    )
    weights: dict[str, _Weight] = Field(
        min_length=1, description="Classifier to weight, above 0. Under log_pool only the ratios count."
    )
    combine: Combine = Field(
        "log_pool",
        description="How the classifiers become one risk: log_pool (weighted average of the evidence), max (largest of "
        "min(1, weight) times probability), noisy_or (any of them is enough; several add up).",
    )
    thresholds: dict[Action, _Threshold] = Field(
        min_length=1,
        description="Action to the risk from which it is taken, between 0 and 1. The most severe one that is reached "
        "decides; a more severe action cannot have a lower threshold.",
    )
    on_error: OnError | None = Field(
        None, description="What to do when a classifier of this rule fails. Default: the policy's on_error."
    )
    reviewers: Literal[1, 2] = Field(
        1, description="How many people must agree before what this rule did is upheld or overturned on review."
    )


class Guides(_Part):
    """Where the rewriter steers."""

    away: dict[str, _Weight] = Field(
        default_factory=dict, description="Rule to weight. Default: away from every rule that was violated, equally."
    )
    toward: dict[str, _Weight] = Field(default_factory=dict, description="Classifier to weight, such as courtesy.")


class RewriteSpec(_Part):
    """How a draft is repaired."""

    order: tuple[str, ...] = Field(
        ("dglm", "prompted", "redact"),
        description="Ways to repair, tried in this order; the first that passes is used.",
    )
    mode: Literal["continue", "edit", "project"] = Field(
        "project",
        description="How the dglm way makes its proposal: project (closed form), edit (diffusion from the draft), "
        "continue (diffusion from what came before).",
    )
    strength: float = Field(0.5, strict=True, gt=0, le=1, description="How far the draft may move; 1 is furthest.")
    candidates: int = Field(8, strict=True, ge=1, le=64, description="Proposals made for each draft.")
    min_similarity: float = Field(
        0.6, strict=True, ge=0, le=1, description="Least cosine similarity of a rewrite to its draft."
    )


class Preference(_Part):
    """What counts when several rewrites pass. Only the ratios matter."""

    safety: _Share = 0.7
    fidelity: _Share = 0.2
    brevity: _Share = 0.1


class Hold(_Part):
    """How long a caller waits for a person where a rule escalates."""

    wait: float = Field(
        0.0,
        strict=True,
        ge=0,
        le=3600,
        description="Seconds that a caller waits for the verdict on a held text; 0: answered at once, with the ticket.",
    )
    answer: _Text | None = Field(
        None,
        description="What the reader sees where nobody has decided in time. Default: the refusal, with the ticket.",
    )


class PolicyDocument(_Part):
    """One resolved policy."""

    policy: _Name = Field(description="Name of the policy.")
    extends: tuple[str, ...] = Field(
        (), description="Policies to start from: a name or a list of names; of a list, later ones win."
    )
    description: str = Field("", description="Whom the policy is for, in plain words.")
    supersedes: str | None = Field(None, description="Name of the policy that this one replaces; shown in the audit.")
    mode: Literal["enforce", "shadow"] = Field(
        "enforce", description="enforce, or shadow: decide and record, but deliver every text as it is."
    )
    classifiers: dict[_Name, ClassifierSpec] = Field(default_factory=dict, description="What can be measured.")
    rules: dict[_Name, Rule] = Field(default_factory=dict, description="What is judged, and what follows.")
    guides: Guides = Field(default_factory=Guides)
    rewrite: RewriteSpec = Field(default_factory=RewriteSpec)
    preference: Preference = Field(default_factory=Preference)
    hold: Hold = Field(default_factory=Hold)
    on_error: OnError = Field("block", description="What to do when a text cannot be judged. Always recorded.")
    unscanned: Literal["allow", "block"] = Field(
        "allow", description="What to do with images, audio and files, which cannot be judged. Always recorded."
    )
    disclose: Literal["marker", "header", "none"] = Field(
        "marker", description="How readers learn that a reply was modified: a marker in the text, a header, or not."
    )
    marker: _Text = Field(" [This reply was edited by moderation.]", description="Appended to a modified reply.")
    refusal: _Text = Field(
        "I can't share that here: it goes against the rules of this community.",
        description="What the reader sees instead of a withheld text.",
    )

    @field_validator("extends", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    def rules_at(self, stage: Stage) -> dict[str, Rule]:
        """The rules that judge texts of `stage`, in the order of the document."""
        return {name: rule for name, rule in self.rules.items() if stage in rule.stages}

    def on_error_of(self, rule: str) -> OnError:
        """What to do when a classifier of `rule` fails."""
        return self.rules[rule].on_error or self.on_error
