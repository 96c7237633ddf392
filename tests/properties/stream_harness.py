"""Streams through the real way: bytes of a model's stream -> wire -> moderator -> engine -> judge -> repair -> bytes.

Only three things are made up, so that a case takes milliseconds and every verdict is known: the classifier (a word `z73x5`
has the risk 0.73), a rewriter, and an audit store that keeps records in memory. Every other word is unique, so that a word
that was delivered tells which sentence it came from.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from guardrail import Guardrail, load_policy
from guardrail.clients.event_stream import EventStream
from guardrail.clients.exchange import Exchange
from guardrail.clients.memory import Memory
from guardrail.errors import RewriteFailure
from guardrail.rewrite.base import Proposal, RewriteRequest
from guardrail.settings import Settings
from guardrail.text.segment import sentences
from guardrail.types import Action, Decision, Passage, Score
from guardrail.wire.routes import FORMATS

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from recorded import FORMATS as SERVED
from recorded import Reply

REFUSAL, MARKER = "Withheld here.", " [edited]"
RISKY = re.compile(r"\bz(\d\d)x\d+\b")
LADDERS: tuple[Mapping[Action, float], ...] = (
    {Action.FLAG: 0.1, Action.REDACT: 0.3, Action.REWRITE: 0.5, Action.ESCALATE: 0.7, Action.BLOCK: 0.85},
    {Action.BLOCK: 0.5},
    {Action.REWRITE: 0.4, Action.BLOCK: 0.9},
    {Action.FLAG: 0.5, Action.REDACT: 0.6},
    {Action.ESCALATE: 0.3},
)
PATHS = {
    "chat_completions": ("/chat/completions", {"model": "m", "messages": [], "stream": True}),
    "completions": ("/completions", {"model": "m", "prompt": "", "stream": True}),
    "responses": ("/responses", {"model": "m", "input": [], "stream": True}),
    "messages": ("/messages", {"model": "m", "max_tokens": 9, "messages": [], "stream": True}),
}


class Broken(RuntimeError):
    """A fault that a test asked for."""


@dataclass
class Faults:
    """At which call each part fails; -1 is never."""

    classifier: int = -1
    rewriter: int = -1
    audit: int = -1

    def strike(self, part: str) -> None:
        left = getattr(self, part)
        setattr(self, part, left - 1)
        if left == 0:
            raise (OSError if part == "audit" else Broken)(f"{part} is gone")


@dataclass
class Records:
    """An audit store in memory."""

    faults: Faults
    decisions: list[Decision] = field(default_factory=list)

    def record(self, decisions: Sequence[Decision], **_: Any) -> None:
        self.faults.strike("audit")
        self.decisions += decisions

    def close(self) -> None:
        pass


def risk_of(text: str) -> float:
    """The largest risk of a text's words; never on a threshold, where rounding would decide."""
    return max((int(found) / 100 + 0.003 for found in RISKY.findall(text)), default=0.001)


class Classifier:
    """`z73x5` is risky to 0.73."""

    name, kind, fingerprint = "tokens", "tokens", "sha256:0"

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        self.faults.strike("classifier")
        return [self._score(passage.text) for passage in passages]

    @staticmethod
    def _score(text: str) -> Score:
        return Score(risk_of(text), tuple(match.span() for match in RISKY.finditer(text)))


class Rewriter:
    """Says something of its own instead."""

    name, fingerprint, rounds = "prompted", "sha256:1", 1

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def propose(self, requests: list[RewriteRequest]) -> list[list[Proposal]]:
        try:
            self.faults.strike("rewriter")
        except Broken as error:
            raise RewriteFailure(str(error)) from error
        return [[Proposal("Said politely.")] for _ in requests]


class Guards:
    """Real guards, one per ladder of thresholds; the faults and the records are replaced for each case."""

    def __init__(self, folder: Path) -> None:
        self._made: dict[tuple[int, str, int, str], Guardrail] = {}
        self._folder = folder
        self.faults = Faults()

    def __call__(self, ladder: int, hold: str, max_chars: int, disclose: str, faults: Faults) -> Guardrail:
        key = (ladder, hold, max_chars, disclose)
        self.faults.__dict__.update(faults.__dict__)
        if key not in self._made:
            self._made[key] = self._make(*key)
        guard = self._made[key]
        guard._audit = Records(self.faults)  # type: ignore[assignment]
        return guard

    def _make(self, ladder: int, hold: str, max_chars: int, disclose: str) -> Guardrail:
        file = self._folder / f"ladder-{ladder}-{disclose}.yaml"
        steps = ", ".join(f"{action.value}: {risk}" for action, risk in LADDERS[ladder].items())
        stages = "stages: [input, output, tool_call, tool_result, retrieved]"
        file.write_text(
            f"policy: ladder\nclassifiers: {{tokens: {{kind: pattern, words: [unused]}}}}\n"
            f"rules:\n  risk: {{{stages}, weights: {{tokens: 1.0}}, combine: max, thresholds: {{{steps}}}}}\n"
            f"rewrite: {{order: [prompted, redact], min_similarity: 0}}\n"
            f"disclose: {disclose}\nmarker: '{MARKER}'\nrefusal: {REFUSAL}\n"
        )
        settings = Settings.model_validate({"stream": {"hold": hold, "max_chars": max_chars}})
        guard = Guardrail(load_policy(str(file)), settings=settings)
        guard.assembly().judge._classifiers["tokens"] = Classifier(self.faults)  # type: ignore[index]
        guard._rewriters["prompted"] = Rewriter(self.faults)
        return guard


def action_of(text: str, ladder: int) -> Action:
    """What the policy says of a text."""
    risk = risk_of(text)
    return max((action for action, least in LADDERS[ladder].items() if risk >= least), default=Action.ALLOW)


def prose(random_: random.Random, most: int = 6) -> str:
    """Some sentences of unique words, risky ones among them, with odd ends and breaks."""
    number = iter(range(10_000))
    parts: list[str] = []
    for _ in range(random_.randint(0, most)):
        words = [f"w{next(number)}é" for _ in range(random_.randint(1, 5))]
        if random_.random() < 0.5:
            words.insert(random_.randint(0, len(words)), f"z{random_.randint(2, 99):02}x{next(number)}")
        words[0] = random_.choice(["", "“", "- ", "🙂 ", "Dr. ", "e.g. "]) + words[0].capitalize()
        parts.append(
            " ".join(words) + random_.choice([". ", "! ", "? ", "... ", ".\n\n", "\n", "。", ".” ", " ", ", "])
        )
    return "".join(parts)


@dataclass
class Case:
    """One stream and what became of it."""

    form: str
    text: str
    data: bytes
    exchange: Exchange
    records: Records
    ladder: int
    hold: str
    max_chars: int
    delivered: str = ""
    finish: str | None = None
    reader: Any = None

    def take(self, out: bytes) -> None:
        """Note bytes that left, and check that they were allowed to."""
        self.reader.feed(out)
        self.delivered, self.finish = self.reader.text, self.reader.finish
        self.check()

    @property
    def batches(self) -> list[str]:
        """What is judged together, as the policy's owner may expect it."""
        if self.hold == "all":
            return [self.text]
        return [self.text[a:b] for a, b in sentences(self.text, self.max_chars)]

    def check(self) -> None:
        """No word of a sentence that the policy withholds or changes was delivered, and all that was is on record."""
        words = set(re.findall(r"[wz]\d[\dxé]*", self.delivered))
        for sentence in (self.text[a:b] for a, b in sentences(self.text, self.max_chars)):
            action = action_of(sentence, self.ladder)
            own = set(re.findall(r"[wz]\d[\dxé]*", sentence))
            if action in (Action.BLOCK, Action.ESCALATE):
                assert not own & words, (sentence, self.delivered)
            elif action >= Action.REDACT:
                assert not {word for word in own if action_of(word, self.ladder) >= Action.REDACT} & words, sentence
        recorded = "".join("".join((decision.text or "").split()) for decision in self.records.decisions)
        said = self.delivered.partition(REFUSAL)[0].replace(MARKER, "")
        assert recorded.startswith("".join(said.split())), (recorded, self.delivered)


class Reader:
    """Reads a stream as a client does: text and finish reason."""

    def __init__(self, form: str) -> None:
        self.form, self.text, self.finish, self._rest = form, "", None, b""

    def feed(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            lines = [line[6:] for line in block.decode().splitlines() if line.startswith("data: ")]
            if lines and lines[0] != "[DONE]":
                self._event(json.loads(lines[0]))

    def _event(self, event: dict[str, Any]) -> None:
        assert self.finish is None or self.form in ("responses", "messages") or not event.get("choices")
        for choice in event.get("choices") or ():
            self.text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            self.finish = choice.get("finish_reason") or self.finish
        kind = event.get("type")
        if kind == "response.output_text.delta":
            self.text += event["delta"]
        elif kind == "response.completed":
            details = event["response"].get("incomplete_details")
            self.finish = details["reason"] if details else "stop"
            texts = [part["text"] for item in event["response"]["output"] for part in item["content"]]
            assert "".join(texts) == self.text
        elif kind == "content_block_delta":
            self.text += event["delta"].get("text") or ""
        elif kind == "message_delta":
            self.finish = {"refusal": "content_filter", "end_turn": "stop"}[event["delta"]["stop_reason"]]


def served(form: str, text: str, chunk: int) -> bytes:
    """The bytes of a whole stream."""
    path, body = PATHS[form]
    events = SERVED[path][1](Reply(texts=(text,), chunk=chunk), body)
    named = form in ("responses", "messages")
    return b"".join(_block(event, named) for event in events)


def _block(event: Any, named: bool) -> bytes:
    if isinstance(event, str):
        return f"data: {event}\n\n".encode()
    head = f"event: {event['type']}\n" if named else ""
    return f"{head}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def case(guards: Guards, seed: int, faults: Faults | None = None) -> Case:
    """Everything about a case follows from its seed."""
    random_ = random.Random(seed)
    form, ladder = random_.choice(list(PATHS)), random_.randrange(len(LADDERS))
    hold = random_.choice(["sentence", "sentence", "paragraph", "all"])
    max_chars, disclose = random_.choice([2000, 2000, 100]), random_.choice(["marker", "none"])
    text = prose(random_)
    guard = guards(ladder, hold, max_chars, disclose, faults or Faults())
    exchange = Exchange(guard, FORMATS[form], dict(PATHS[form][1]), Memory())
    data = served(form, text, random_.randint(1, 30))
    made = Case(form, text, data, exchange, guard._audit, ladder, hold, max_chars)  # type: ignore[arg-type]
    made.reader = Reader(form)
    return made


def cuts(data: bytes, seed: int) -> Iterator[bytes]:
    """The bytes in pieces of arbitrary sizes, characters cut apart."""
    random_, at = random.Random(seed), 0
    while at < len(data):
        size = random_.choice([1, 2, 7, 40, 200, 1000])
        yield data[at : at + size]
        at += size


def events_of(made: Case) -> EventStream:
    return EventStream(made.exchange)


def upstream(chunks: Callable[[], Any]) -> Any:
    """An HTTP response as far as the transport's streams need one."""
    return SimpleNamespace(iter_bytes=chunks, aiter_bytes=chunks, closed=0)
