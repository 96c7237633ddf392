"""The frozen values that the stages hand each other. Standard library only: importing this module is free.

Offsets are code points of the *original* text, half open: `text[start:end]`.
Risks, scores and probabilities are floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

Span = tuple[int, int]

_EMPTY: Mapping[str, float] = MappingProxyType({})


class Stage(StrEnum):
    """Where in a conversation a text stands. A rule names the stages that it judges."""

    INPUT = "input"
    OUTPUT = "output"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    RETRIEVED = "retrieved"
    CONVERSATION = "conversation"


class Action(StrEnum):
    """What a rule asks for, in order of severity (`severity`, and the comparison operators follow it)."""

    ALLOW = "allow"
    FLAG = "flag"
    REDACT = "redact"
    REWRITE = "rewrite"
    ESCALATE = "escalate"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """0 for `allow` up to 5 for `block`."""
        return _SEVERITY[self]

    def __lt__(self, other: str) -> bool:
        return self.severity < Action(other).severity

    def __le__(self, other: str) -> bool:
        return self.severity <= Action(other).severity

    def __gt__(self, other: str) -> bool:
        return self.severity > Action(other).severity

    def __ge__(self, other: str) -> bool:
        return self.severity >= Action(other).severity


_SEVERITY = {action: rank for rank, action in enumerate(Action)}


class State(StrEnum):
    """What became of a text. These words stand in the audit store."""

    ALLOWED = "allowed"
    FLAGGED = "flagged"
    REDACTED = "redacted"
    REWRITTEN = "rewritten"
    ESCALATED = "escalated"
    BLOCKED = "blocked"
    BLOCKED_UNAVAILABLE = "blocked_unavailable"  # could not be judged or recorded, so it was not delivered
    NOT_SCANNED = "not_scanned"  # not a text (an image, say), or a stage that no rule judges


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str  # "system" | "user" | "assistant" | "tool"
    content: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One text to judge, at one stage.

    `context` holds earlier turns or the text delivered before it, oldest first. `editable` is False where a
    rewrite would break the text (code, JSON keys, tool arguments): such a text is flagged or blocked, never rewritten.
    `path` says where the text stood in its document, for example `("choices", 0, "message", "content")`.
    `unscanned` names what stands here instead of a text and cannot be judged, such as "image/png"; `text` is empty
    then. `fixed`: a part of the text has been delivered, so it can be withheld and not altered.
    """

    text: str
    stage: Stage = Stage.OUTPUT
    context: tuple[str, ...] = ()
    editable: bool = True
    path: tuple[str | int, ...] = ()
    unscanned: str = ""
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """What one classifier says of one text: a probability, and where, if it can tell.

    `labels` says what stands at each span ("email", say): as many as `spans`, or none.
    """

    value: float
    spans: tuple[Span, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a rule acted. `contributions` sum to the rule's pooled logit for `log_pool` rules.

    `error` says what failed where the rule could not be judged and its `on_error` decided.
    """

    rule: str
    stage: Stage
    action: Action
    risk: float
    threshold: float
    contributions: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    spans: tuple[Span, ...] = ()
    description: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the policy says of one text, before anything is repaired or recorded.

    `rules` maps every rule that judges this stage to its risk; `scores` maps every classifier used to its score.
    `failures` maps a classifier that raised to the error; the action already reflects each rule's `on_error`.
    `action` is what to do under `enforce`; under `shadow` the engine delivers the text and records this.
    """

    action: Action
    risk: float
    rules: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    scores: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    reasons: tuple[Reason, ...] = ()
    failures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    scanned: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """One proposed rewrite of a whole draft, after the whole policy has judged it again."""

    text: str
    method: str  # "dglm" | "prompted" | "redact"
    risk: float  # largest rule risk of the text
    passes: bool  # no rule asks for redact or more
    similarity: float | None  # cosine of sentence embeddings, draft against candidate; None where none was measured
    fluency: float | None = None  # log-probability that people would have put it for the draft, says the rewriter; nats
    utility: float | None = None  # what selection ranked by, see guardrail.rewrite.select
    scores: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """How a flagged draft was repaired. `edits` are (span in the draft, replacement) pairs.

    `similarity` is None where nothing but patterns judged and nothing but words were taken out: no encoder was loaded.
    """

    source: str
    text: str
    method: str
    similarity: float | None
    risk_before: float
    risk_after: float
    candidates: tuple[Candidate, ...] = ()
    edits: tuple[tuple[Span, str], ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The vectors that were judged, from which a decision can be made again without its text.

    A unit has a row for its text and one more for its normal form, if that differs; rows of one unit share their span.
    """

    encoder: str  # sha256 of the encoder
    dim: int  # d
    vectors: bytes  # (N, d) float16, little endian, row by row
    layout: bytes  # (N, 2) uint32, little endian: start and end of the unit in the source
    others: Mapping[str, tuple[float, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )  # not linear: N logits


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one text: the judgement, what was delivered, and what proves it.

    `text` is what may be delivered; None where nothing of it may (the caller shows `refusal` instead).
    """

    id: str
    action: Action
    state: State
    risk: float
    stage: Stage
    policy: str
    revision: str
    text: str | None
    source: str
    rules: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    scores: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    reasons: tuple[Reason, ...] = ()
    failures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rewrite: Rewrite | None = None
    refusal: str | None = None
    shadow: bool = False
    note: str = ""  # in plain words: why it was not scanned, why no rewrite passed
    request_id: str = ""
    models: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # name -> sha256
    timings_ms: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    created_at: float = 0.0  # seconds since the epoch, UTC
    tried: tuple[Candidate, ...] = ()  # what was proposed where no repair passed; otherwise see `rewrite.candidates`
    evidence: Evidence | None = None  # where `audit.store_embeddings` is on

    @property
    def delivered(self) -> str:
        """The text that the reader sees: the (possibly repaired) text, or the refusal."""
        return self.text if self.text is not None else (self.refusal or "")

    @property
    def altered(self) -> bool:
        """Whether the reader sees something other than the source."""
        return self.delivered != self.source


@dataclass(frozen=True, slots=True)
class Outcome:
    """All decisions of one logical client call, in the order in which they were made."""

    request_id: str
    policy: str
    revision: str
    decisions: tuple[Decision, ...] = ()
    stream_ms: Mapping[str, float] = field(
        default_factory=lambda: _EMPTY
    )  # of a stream: see `guardrail.stream.Timings`

    @property
    def action(self) -> Action:
        """The most severe action taken."""
        return max((decision.action for decision in self.decisions), default=Action.ALLOW)

    @property
    def blocked(self) -> bool:
        """Whether any text was withheld altogether."""
        return any(decision.text is None for decision in self.decisions)

    @property
    def altered(self) -> bool:
        """Whether the reader sees anything other than what was written."""
        return any(decision.altered for decision in self.decisions)
