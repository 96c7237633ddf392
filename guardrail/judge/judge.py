"""The judge: what a compiled policy says of texts.

A text is read as the encoder should read it (obfuscation undone) and judged sentence by sentence, so that harm cannot
hide in padding, a long text is scanned whole, and a decision names the sentences that caused it. Where a sentence looks
suspicious, its clauses are judged one by one, for an insult may hide among harmless words, and its surroundings are
judged with it, window by window, for harm may need two sentences to show. The risk of a text is that of its worst part.

All sentences of all texts go through the encoder in one batch, and all heads of all rules through one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from guardrail.classifiers.second import SecondOpinion, ask
from guardrail.errors import ClassifierFailure
from guardrail.judge.reading import WINDOW_TOKENS, Reading, inside, pieces, trim
from guardrail.judge.verdicts import Verdicts
from guardrail.judge.work import Unit, Verdict, Work, checked, value_in
from guardrail.policy.bundle import MAX_LOGIT, Bundle, logit
from guardrail.text.clauses import clauses
from guardrail.text.segment import windows
from guardrail.types import Action, Passage, Score, Span, Stage

if TYPE_CHECKING:
    from guardrail.classifiers.base import Classifier
    from guardrail.encoder import Encoder

__all__ = ["DOUBT", "HARMLESS", "SCREEN", "Judge"]

SCREEN = 0.25
"""A sentence that reaches this share of a rule's lowest threshold is looked at more closely."""

DOUBT = 0.2
"""Share of a rule's lowest threshold from which on a network that decides in place of a head is asked."""

HARMLESS = -3.0
"""Logit of a head that finds a text harmless, where only patterns are asked (`Judge.forbidden`)."""


class Judge:
    """Judge texts by one compiled policy. Thread-safe; holds no state between calls.

    Args:
        bundle: the compiled policy.
        classifiers: those of its classifiers that are not linear heads, by name.
        encoder: called once when a text has to be embedded; never for a policy without linear heads.
    """

    def __init__(self, bundle: Bundle, classifiers: Mapping[str, Classifier], encoder: Callable[[], Encoder]) -> None:
        self.bundle = bundle
        self._classifiers = classifiers
        self._encoder = encoder
        self._second = {name: one for name, one in classifiers.items() if isinstance(one, SecondOpinion)}
        self._deciding = [name for name, one in classifiers.items() if getattr(one, "decides", False)]
        rules = bundle.policy.document.rules
        self._screen = {name: SCREEN * min(rule.thresholds.values()) for name, rule in rules.items()}
        self._needed = {
            stage: frozenset(name for rule in bundle.policy.document.rules_at(stage).values() for name in rule.weights)
            for stage in Stage
        }
        asking = {*bundle.heads, *self._second, *self._deciding}
        self._plain = frozenset(stage for stage, needed in self._needed.items() if asking.isdisjoint(needed))
        self._verdicts = Verdicts(bundle, self._needed, self._deciding)
        self._silence: dict[Stage, Verdict] = {}  # the verdict on a text in which nothing was found

    def judge(self, passages: Sequence[Passage], *, keep_vectors: bool = False) -> list[Verdict]:
        """Return one verdict per passage, in order. Where a classifier raises, its rules' `on_error` decides.

        Args:
            passages: what to judge.
            keep_vectors: give each verdict its `evidence`.
        """
        works = [Work(passage, [(0, len(passage.text))]) for passage in passages]
        self._score(works)
        silent = [self._silent(work) for work in works]
        rest = [work for work, nothing in zip(works, silent, strict=True) if not nothing]
        if not rest:
            return [self._unheard(work) for work in works]
        embedding_error = self._embed_windows(rest, keep_vectors)
        self._decide(rest)
        self._ask_again(rest)
        found = iter([self._verdicts.verdict(work, embedding_error, self._encoder) for work in rest])
        return [self._unheard(work) if nothing else next(found) for work, nothing in zip(works, silent, strict=True)]

    def forbidden(self, stage: Stage) -> Callable[[str], bool] | None:
        """Return what tells whether a text holds what the policy's patterns do not let pass at `stage`.

        For a decoder, which asks at every token: only patterns are looked at, and a match counts where it makes a rule
        redact or worse although the heads find the text harmless. None if no rule of the stage weighs a pattern.
        """
        needed = self._needed[stage]
        patterns = [one for name, one in self._classifiers.items() if name in needed and one.kind == "pattern"]
        if not patterns:
            return None
        silent = {name: np.array([HARMLESS if name in self.bundle.heads else -MAX_LOGIT]) for name in needed}

        def holds(text: str) -> bool:
            values = {one.name: one.score([Passage(text, stage)])[0].value for one in patterns}
            if not any(values.values()):
                return False
            heard = {name: logit(np.array([value])) for name, value in values.items()}
            risks = self.bundle.risks({**silent, **heard}, stage)
            return any(self.bundle.action_for(rule, float(risk[0]))[0] >= Action.REDACT for rule, risk in risks.items())

        return holds

    # -- texts in which nothing was found --------------------------------------------------------------------------

    def _silent(self, work: Work) -> bool:
        """Whether nothing but patterns and the like judges the text, and all of them found nothing."""
        if work.passage.stage not in self._plain or work.failures:
            return False
        return not any(score.value for score in work.scores.values())

    def _unheard(self, work: Work) -> Verdict:
        """The verdict on a silent text. All of one stage have the same one: only where the text ends differs."""
        stage = work.passage.stage
        if stage not in self._silence:
            work.units = self._units(work, work.spans, None)
            self._silence[stage] = self._verdicts.verdict(work, None, self._encoder)
        known = self._silence[stage]
        units = tuple(Unit(work.spans[0], unit.risks, unit.logits) for unit in known.units)
        return Verdict(known.judgement, units)

    # -- classifiers that are not linear ---------------------------------------------------------------------------

    def _score(self, works: Sequence[Work]) -> None:
        for name, classifier in self._classifiers.items():
            asked = [work for work in works if name in self._needed[work.passage.stage]]
            if not asked:
                continue
            if name in self._deciding and name in self.bundle.heads:
                continue  # its head screens first
            if name in self._second:
                for work in asked:
                    work.scores[name] = Score(0.0)  # abstains until it is asked
                continue
            try:
                found = classifier.score([work.passage for work in asked])
                for work, score in zip(asked, found, strict=True):
                    work.scores[name] = checked(score)
            except Exception as error:  # noqa: BLE001 (any classifier may be a plug-in; the rules' on_error decides)
                for work in asked:
                    work.scores.pop(name, None)
                    work.failures[name] = str(ClassifierFailure(name, error))

    def _decide(self, works: Sequence[Work]) -> None:
        """Let networks decide in place of the heads of their names, where those heads leave a doubt.

        A text that its heads find far from every threshold costs no second pass.
        """
        for name in self._deciding:
            doubtful = [work for work in works if name in self.bundle.heads and self._in_doubt(work, name)]
            if not doubtful:
                continue
            try:
                found = self._classifiers[name].score([work.passage for work in doubtful])
                for work, score in zip(doubtful, found, strict=True):
                    self._hear(work, name, checked(score))
            except Exception as error:  # noqa: BLE001 (the rules' on_error decides)
                for work in doubtful:
                    work.failures[name] = str(ClassifierFailure(name, error))

    def _in_doubt(self, work: Work, classifier: str) -> bool:
        """Whether a rule that weighs the classifier comes near its lowest threshold in some unit."""
        rules = self.bundle.policy.document.rules_at(work.passage.stage)
        levels = {
            name: DOUBT * min(rule.thresholds.values()) for name, rule in rules.items() if classifier in rule.weights
        }
        return any(
            classifier in unit.logits and unit.risks.get(rule, 0.0) >= level
            for unit in work.units
            for rule, level in levels.items()
        )

    def _ask_again(self, works: Sequence[Work]) -> None:
        """Put texts of which a rule is uncertain to those of its classifiers that are asked only then."""
        for name, classifier in self._second.items():
            unsure = [work for work in works if self._unsure(work, name, classifier.margin)]
            if not unsure:
                continue
            found = ask(classifier, [work.passage for work in unsure], checked)
            for work, score in zip(unsure, found, strict=True):
                if isinstance(score, Exception):
                    work.failures[name] = str(ClassifierFailure(name, score))
                else:
                    self._hear(work, name, score)

    def _unsure(self, work: Work, classifier: str, margin: float) -> bool:
        """Whether a rule that weighs the classifier lies nearer than `margin` to one of its thresholds."""
        for rule, spec in self.bundle.policy.document.rules_at(work.passage.stage).items():
            if classifier not in spec.weights or any(name in work.failures for name in spec.weights):
                continue
            risk = logit(max((unit.risks[rule] for unit in work.units if rule in unit.risks), default=0.0))
            if any(abs(risk - logit(threshold)) <= margin for threshold in spec.thresholds.values()):
                return True
        return False

    def _hear(self, work: Work, name: str, score: Score) -> None:
        """Pool a score that came later into the units of a work."""
        work.scores[name] = score
        values = logit(np.array([value_in(score, unit.span) for unit in work.units]))
        if name in self.bundle.heads:  # a sentence was judged: of its clauses, those count that the head minds too
            heads = np.array([unit.logits[name] for unit in work.units])
            whole = [any(inside(sentence, unit.span) for sentence in work.spans) for unit in work.units]
            values = np.where(whole, values, np.minimum(values, heads))
        later = {name: values}
        known = {one: np.array([unit.logits[one] for unit in work.units]) for one in work.units[0].logits}
        risks = self.bundle.risks(known | later, work.passage.stage)
        work.units = [
            Unit(
                unit.span,
                {rule: float(values[row]) for rule, values in risks.items()},
                {**unit.logits, name: float(later[name][row])},
            )
            for row, unit in enumerate(work.units)
        ]

    # -- linear heads ----------------------------------------------------------------------------------------------

    def _embed_windows(self, works: Sequence[Work], keep: bool) -> str | None:
        """Fill the units of every work; return what went wrong with the encoder, if anything."""
        linear = [work for work in works if self._needed[work.passage.stage].intersection(self.bundle.heads)]
        plain = [work for work in works if work not in linear]
        problem: str | None = None
        if linear:
            try:
                self._linear_units(linear, keep)
            except Exception as error:  # noqa: BLE001 (the rules' on_error decides)
                problem = f"{type(error).__name__}: {error}"
                plain = list(works)
        for work in plain:
            work.units = self._units(work, work.spans, None)
            work.rows.clear()
        return problem

    def _linear_units(self, works: Sequence[Work], keep: bool) -> None:
        encoder = self._encoder()
        readings = [Reading(work.passage.text) for work in works]
        for work in works:
            work.spans = pieces(work.passage.text, encoder)
        self._judge_spans(encoder, works, readings, [work.spans for work in works], keep)
        closer = [self._closer(work, encoder) for work in works]
        self._judge_spans(encoder, works, readings, closer, keep)

    def _closer(self, work: Work, encoder: Encoder) -> list[Span]:
        """The clauses of suspicious sentences, and the windows around them, that were not judged yet."""
        text = work.passage.text
        suspicious = [unit.span for unit in work.units if self._suspicious(unit)]
        if not suspicious:
            return []
        found = [(start + a, start + b) for start, end in suspicious for a, b in clauses(text[start:end])]
        if len(work.spans) > 1:
            around = windows(text, encoder.token_counts, WINDOW_TOKENS)
            found += [span for span in around if any(inside(own, span) for own in suspicious)]
        trimmed = dict.fromkeys(trim(text, span) for span in found)
        return [span for span in trimmed if span not in set(work.spans)]

    def _suspicious(self, unit: Unit) -> bool:
        """Whether a unit reaches the screening level of some rule."""
        return any(risk >= self._screen[rule] for rule, risk in unit.risks.items())

    def _judge_spans(
        self,
        encoder: Encoder,
        works: Sequence[Work],
        readings: Sequence[Reading],
        spans: Sequence[Sequence[Span]],
        keep: bool,
    ) -> None:
        """Embed `spans` of every work in one batch and append their units."""
        variants = [[reading.variants(span) for span in own] for reading, own in zip(readings, spans, strict=True)]
        texts = [text for own in variants for texts in own for text in texts]
        if not texts:
            return
        vectors = encoder.encode(texts)  # (variants, d)
        logits = self.bundle.head_logits(vectors)  # (variants, H)
        start = 0
        for work, own, counts in zip(works, spans, [[len(texts) for texts in own] for own in variants], strict=True):
            ends = start + np.cumsum([0, *counts])
            if own:
                worst = np.stack([logits[a:b].max(axis=0) for a, b in pairwise(ends)])
                work.units.extend(self._units(work, own, worst))
            if keep:
                work.rows.extend((b - a, vectors[a:b].astype("<f2")) for a, b in pairwise(ends))
            start = int(ends[-1])

    def _units(self, work: Work, spans: Sequence[Span], heads: np.ndarray | None) -> list[Unit]:
        """Pool heads (N, H) and the other scores over N spans of one work."""
        logits: dict[str, np.ndarray] = {}
        if heads is not None:
            logits = {name: heads[:, column] for column, name in enumerate(self.bundle.heads)}
        for name, score in work.scores.items():
            logits[name] = logit(np.array([value_in(score, span) for span in spans]))
        risks = self.bundle.risks(logits, work.passage.stage)
        return [
            Unit(
                span,
                {rule: float(values[row]) for rule, values in risks.items()},
                {name: float(values[row]) for name, values in logits.items()},
            )
            for row, span in enumerate(spans)
        ]
