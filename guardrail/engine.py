"""The file to read first: judge texts, decide, repair, judge again, record, and only then let them go.

    passages -> judge -> decision -> (repair -> judge) -> audit -> decisions

Nothing unchecked leaves: an error anywhere on this way gives a decision that withholds the text, or an exception, never
the text itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from guardrail.errors import AuditUnavailable
from guardrail.log import Logger
from guardrail.policy.loader import Policy, PolicySource
from guardrail.randomness import new_id
from guardrail.registry import resolve
from guardrail.settings import Settings, load_settings
from guardrail.types import Action, Decision, Outcome, Passage, Stage, State

if TYPE_CHECKING:
    from guardrail.assembly import Assembly
    from guardrail.audit.store import AuditStore
    from guardrail.explain.explanation import Explanation
    from guardrail.judge import Verdict
    from guardrail.repair import Repair
    from guardrail.rewrite.base import Rewriter

log = Logger(__name__)


class Guardrail:
    """One community's moderation. Thread-safe; share one per process and community.

    Making one does no I/O: the policy is read, models are loaded and the database is opened when they are first needed.

    Args:
        policy: name or path of a policy, or a loaded one; default: what the settings say for the community.
        settings: default: `load_settings()`, read on first use.
        community: whose decisions these are; stands in the audit.
        audit: where decisions are recorded; default: the store of `settings.audit.url`.
    """

    def __init__(
        self,
        policy: str | Path | Policy | None = None,
        *,
        settings: Settings | None = None,
        community: str = "default",
        audit: AuditStore | None = None,
    ) -> None:
        self.community = community
        self._wanted, self._settings = policy, settings
        self._audit, self._owns_audit = audit, audit is None
        self._source: PolicySource | None = None
        self._assembly: Assembly | None = None
        self._rewriters: dict[str, Rewriter | None] = {}
        self._lock = threading.RLock()

    # -- parts, made on first use ----------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        if self._settings is not None:
            return self._settings
        with self._lock:
            if self._settings is None:
                self._settings = load_settings()
            return self._settings

    @property
    def policy(self) -> Policy:
        """The policy in force; an edited file is picked up, a broken edit is logged and the last good one stays."""
        if isinstance(self._wanted, Policy):
            return self._wanted
        if self._source is not None:
            return self._source.current()
        with self._lock:
            if self._source is None:
                name = self._wanted or self.settings.policy_for(self.community)
                self._source = PolicySource(name, self.settings.policies)
            return self._source.current()

    @property
    def audit(self) -> AuditStore:
        """The audit store, opened on first use."""
        known = self._audit
        if known is not None:
            return known
        with self._lock:
            if self._audit is None:
                from guardrail.audit.configured import open_configured

                self._audit = open_configured(self.settings.audit)
            return self._audit

    def assembly(self) -> Assembly:
        """The compiled policy in force; a policy that loads but does not compile leaves the last one in force."""
        policy = self.policy
        known = self._assembly
        if known is not None and known.policy.revision == policy.revision:
            return known
        with self._lock:
            if self._assembly is not None and self._assembly.policy.revision == policy.revision:
                return self._assembly
            from guardrail.assembly import assemble

            if self._assembly is None:
                self._assembly = assemble(policy, self.settings)
            else:
                try:
                    self._assembly = assemble(policy, self.settings)
                except Exception as error:  # noqa: BLE001 (whatever is wrong with the edit, moderation goes on)
                    log.error("policy not reloaded, the last good one stays", policy=policy.name, error=str(error))
            return self._assembly

    def close(self) -> None:
        """Close the audit store if this object opened it."""
        with self._lock:
            if self._audit is not None and self._owns_audit:
                self._audit.close()
                self._audit = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- public calls ----------------------------------------------------------------------------------------------

    def check(self, text: str, *, stage: Stage = Stage.OUTPUT, context: Sequence[str] = ()) -> Decision:
        """Judge one text: nothing is repaired, nothing is recorded. `action` says what `moderate` would do."""
        return self.check_many([Passage(text, Stage(stage), tuple(context))])[0]

    def explain(self, passage: Passage) -> Explanation:
        """Judge one text and say why: contributions, words, and without which it would pass; see `guardrail.explain`."""
        from guardrail.encoder import load_encoder
        from guardrail.explain.explanation import explain

        settings = self.settings
        return explain(self.assembly().judge, lambda: load_encoder(settings.encoder, settings.device), passage)

    def check_many(self, passages: Sequence[Passage]) -> list[Decision]:
        """Judge many texts in one batch; see `check`."""
        return self._decide(self.assembly(), passages, request_id="", repair=False)

    def moderate(
        self,
        passages: Sequence[Passage],
        *,
        request_id: str | None = None,
        conversation: str | None = None,
        subject: str | None = None,
    ) -> list[Decision]:
        """Judge, repair and record; on return the decisions are durable and their `delivered` texts may go out.

        Args:
            passages: the texts of one logical call.
            request_id: ties the decisions of a call together; default: a new one.
            conversation: ties calls together, if the caller knows it.
            subject: whose texts these are, if the caller knows it: by this name they can be erased later.

        Raises:
            AuditUnavailable: the decisions could not be made durable; none of the texts may be delivered.
            ConfigurationError: the policy or the settings cannot be used.
        """
        if not passages:
            return []
        assembly = self.assembly()
        decisions = self._decide(assembly, passages, request_id=request_id or new_id(), repair=True, record=True)
        started = time.perf_counter()
        try:
            whose = {} if subject is None else {"subject": subject}
            self.audit.record(
                decisions, policy=assembly.policy, community=self.community, conversation=conversation, **whose
            )
        except AuditUnavailable:
            raise
        except OSError as error:
            raise AuditUnavailable(f"the decision could not be recorded, so its text was withheld: {error}") from error
        log.debug("recorded", decisions=len(decisions), ms=_milliseconds(started))
        return decisions

    async def amoderate(
        self,
        passages: Sequence[Passage],
        *,
        request_id: str | None = None,
        conversation: str | None = None,
        subject: str | None = None,
    ) -> list[Decision]:
        """`moderate` in a worker thread: the event loop is never blocked by a model or the database.

        If the task is cancelled, rewriters stop between two steps; what was decided is still recorded.
        """
        from guardrail.rewrite.base import abandoned

        stop = threading.Event()
        token = abandoned.set(stop.is_set)  # the thread gets a copy of this task's context
        try:
            return await asyncio.to_thread(
                self.moderate, passages, request_id=request_id, conversation=conversation, subject=subject
            )
        except asyncio.CancelledError:
            stop.set()
            raise
        finally:
            abandoned.reset(token)

    def rewrite(self, text: str, *, context: Sequence[str] = (), seed: int | None = None) -> Decision:
        """Judge and repair one output; not recorded."""
        return self.rewrite_many([Passage(text, Stage.OUTPUT, tuple(context))], seed=seed)[0]

    def rewrite_many(self, passages: Sequence[Passage], *, seed: int | None = None) -> list[Decision]:
        """`rewrite` for many outputs: judged in one batch, repaired one by one."""
        return self._decide(self.assembly(), passages, request_id="", repair=True, seed=seed)

    def outcome(self, request_id: str, decisions: Sequence[Decision]) -> Outcome:
        """Gather the decisions of one logical call."""
        policy = self.policy
        return Outcome(request_id, policy.name, policy.revision, tuple(decisions))

    def wrap(self, client: Any) -> Any:
        """Return `client` guarded by this object; see `guardrail.wrap`."""
        from guardrail.clients import wrap

        return wrap(client, guard=self)

    # -- the way through -------------------------------------------------------------------------------------------

    def _decide(
        self,
        assembly: Assembly,
        passages: Sequence[Passage],
        *,
        request_id: str,
        repair: bool,
        seed: int | None = None,
        record: bool = False,
    ) -> list[Decision]:
        scannable = [passage for passage in passages if not passage.unscanned]
        started = time.perf_counter()
        try:
            keep = record and self.settings.audit.store_embeddings
            verdicts = iter(assembly.judge.judge(scannable, keep_vectors=keep))
            judged: list[Verdict | None] = [None if passage.unscanned else next(verdicts) for passage in passages]
        except Exception as error:  # noqa: BLE001 (fail closed, whatever it was)
            log.error("judging failed, texts are withheld", error=f"{type(error).__name__}: {error}")
            return [self._unavailable(assembly, passage, request_id, error) for passage in passages]
        judge_ms = _milliseconds(started)
        return [
            self._resolve(assembly, passage, verdict, request_id, repair, seed, judge_ms)
            for passage, verdict in zip(passages, judged, strict=True)
        ]

    def _resolve(
        self,
        assembly: Assembly,
        passage: Passage,
        verdict: Verdict | None,
        request_id: str,
        repair: bool,
        seed: int | None,
        judge_ms: float,
    ) -> Decision:
        """One verdict to one decision, repairing where the action asks for it."""
        shadow = assembly.policy.document.mode == "shadow"
        if verdict is None:
            note = f"{passage.unscanned}: not a text, so it was not scanned"
            plain = self._plain(assembly, passage, request_id, shadow=shadow, note=note)
            if assembly.policy.document.unscanned == "block" and not shadow:
                return self._withhold(assembly, replace(plain, action=Action.BLOCK), State.BLOCKED, note)
            return replace(plain, state=State.NOT_SCANNED)
        judgement = verdict.judgement
        decision = self._plain(
            assembly,
            passage,
            request_id,
            action=judgement.action,
            state=_STATES[judgement.action],
            risk=judgement.risk,
            rules=judgement.rules,
            scores=judgement.scores,
            reasons=judgement.reasons,
            failures=judgement.failures,
            shadow=shadow,
            timings_ms={"judge": judge_ms},
            evidence=verdict.evidence,
        )
        if not judgement.scanned:
            return replace(
                decision, state=State.NOT_SCANNED, note=f"no rule of the policy judges the stage {passage.stage}"
            )
        if shadow or not repair or not judgement.reasons or judgement.action <= Action.FLAG:
            return decision
        if judgement.reasons[0].error:
            note = f"could not be judged: {judgement.reasons[0].error}"
            return self._withhold(assembly, decision, State.BLOCKED_UNAVAILABLE, note)
        if judgement.action >= Action.ESCALATE:
            return self._withhold(assembly, decision, _STATES[judgement.action], "")
        if passage.fixed:
            return self._withhold(assembly, decision, State.BLOCKED, "a part of this text has been delivered already")
        if judgement.action is Action.REWRITE and not passage.editable:
            return self._withhold(
                assembly, decision, State.BLOCKED, "this text cannot be rewritten without breaking it"
            )
        return self._repair(assembly, passage, verdict, decision, seed)

    def _repair(
        self, assembly: Assembly, passage: Passage, verdict: Verdict, decision: Decision, seed: int | None
    ) -> Decision:
        started = time.perf_counter()
        seed = _seed_of(passage.text) if seed is None else seed
        try:
            repaired = self._repairer(assembly).repair(passage, verdict, seed)
        except Exception as error:  # noqa: BLE001 (a repair that breaks down must not deliver the draft)
            log.error("repair failed, the text is withheld", error=f"{type(error).__name__}: {error}")
            return self._withhold(assembly, decision, State.BLOCKED, f"repair failed: {type(error).__name__}: {error}")
        timings = {**decision.timings_ms, "rewrite": _milliseconds(started)}
        decision = replace(decision, timings_ms=timings, models={**decision.models, **repaired.models})
        return self._repaired(assembly, decision, repaired)

    def _repaired(self, assembly: Assembly, decision: Decision, repaired: Repair) -> Decision:
        rewrite = repaired.rewrite
        if rewrite is None:
            withheld = self._withhold(assembly, decision, State.BLOCKED, f"no repair passed ({repaired.note})")
            return replace(withheld, tried=repaired.tried)
        state = State.REDACTED if rewrite.method == "redact" else State.REWRITTEN
        return replace(decision, state=state, text=rewrite.text, rewrite=rewrite, note=repaired.note)

    def _repairer(self, assembly: Assembly) -> Any:
        from guardrail.encoder import load_encoder
        from guardrail.repair import Repairer

        settings = self.settings
        return Repairer(
            assembly.judge,
            self._rewriter,
            lambda: load_encoder(settings.encoder, settings.device),
            settings.rewriter.timeout,
        )

    def _rewriter(self, name: str) -> Rewriter | None:
        with self._lock:
            if name not in self._rewriters:
                build: Callable[[Settings], Rewriter | None] = resolve("guardrail.rewriters", name)
                self._rewriters[name] = build(self.settings)
            return self._rewriters[name]

    # -- decisions -------------------------------------------------------------------------------------------------

    def _plain(self, assembly: Assembly, passage: Passage, request_id: str, **known: Any) -> Decision:
        """The decision on a passage: allowed and harmless but for what is `known`."""
        text = passage.text
        fields = {"action": Action.ALLOW, "state": State.ALLOWED, "risk": 0.0, **known}
        return Decision(
            id=new_id(),
            stage=passage.stage,
            policy=assembly.policy.name,
            revision=assembly.policy.revision,
            text=text,
            source=text,
            request_id=request_id,
            models=assembly.models,
            created_at=time.time(),
            **fields,
        )

    def _withhold(self, assembly: Assembly, decision: Decision, state: State, note: str) -> Decision:
        return replace(decision, state=state, text=None, refusal=assembly.policy.document.refusal, note=note)

    def _unavailable(self, assembly: Assembly, passage: Passage, request_id: str, error: Exception) -> Decision:
        plain = self._plain(assembly, passage, request_id, action=Action.BLOCK, risk=1.0)
        return self._withhold(
            assembly, plain, State.BLOCKED_UNAVAILABLE, f"could not be judged: {type(error).__name__}: {error}"
        )


_STATES = {
    Action.ALLOW: State.ALLOWED,
    Action.FLAG: State.FLAGGED,
    Action.REDACT: State.REDACTED,
    Action.REWRITE: State.REWRITTEN,
    Action.ESCALATE: State.ESCALATED,
    Action.BLOCK: State.BLOCKED,
}


def _milliseconds(started: float) -> float:
    return (time.perf_counter() - started) * 1000.0


def _seed_of(text: str) -> int:
    """The same draft is repaired in the same way, so that a decision can be reproduced."""
    return int.from_bytes(hashlib.sha256(text.encode("utf8", "surrogatepass")).digest()[:4], "big")
