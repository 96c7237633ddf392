"""The holding buffer: no character of a disallowed sentence is ever delivered.

Text is held until its sentence (paragraph, or all of it) has been judged. What was not altered leaves in the events in
which it came, only later; an altered sentence leaves as one event; a blocked one ends its answer with the refusal. The
moderator does no I/O: it is a generator that yields passages to judge, is sent their decisions, and yields the events
that may leave, so that one implementation serves threads and event loops (httpx's `auth_flow` is built the same way).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from guardrail.text.channel import Channel, Seam
from guardrail.text.holding import Batch, HoldingBuffer, Run
from guardrail.types import Decision, Passage, Stage

__all__ = ["Batch", "HoldingBuffer", "Judgeable", "Run", "StreamModerator", "Timings"]

_DONE = "[DONE]"  # ends an OpenAI stream, also one that was cut before its answers had ended
T = TypeVar("T")
Steps = Generator[Any, Any, T]
"""Yields `tuple[Passage, ...]` and is sent `Sequence[Decision]`, or yields an event and is sent None."""


class Judgeable(Protocol):
    """Something with passages to judge that turns decisions into texts; None where it is withheld."""

    @property
    def passages(self) -> tuple[Passage, ...]:
        """What to judge."""

    def settle(self, decisions: Sequence[Decision]) -> Sequence[Any] | None:
        """The text that may leave, as a list of one; None to withhold it."""


@dataclass(slots=True)
class Timings:
    """How long the text of one stream was held, by `clock` (seconds)."""

    clock: Callable[[], float] = time.perf_counter
    began: float = field(init=False)
    first_came: float | None = None
    first_left: float | None = None
    delays: list[float] = field(
        default_factory=list
    )  # per batch: from the arrival of its last character to its clearance

    def __post_init__(self) -> None:
        self.began = self.clock()

    def left(self) -> None:
        """A text leaves."""
        if self.first_left is None:
            self.first_left = self.clock()

    def summary(self) -> dict[str, float]:
        """Milliseconds: until the first text came and left, added to each batch on average and at most; and how many."""
        found: dict[str, float] = {}
        if self.first_came is not None:
            found["first_text_upstream"] = (self.first_came - self.began) * 1e3
        if self.first_left is not None:
            found["first_text"] = (self.first_left - self.began) * 1e3
        if self.delays:
            found["delay_mean"] = sum(self.delays) / len(self.delays) * 1e3
            found["delay_max"] = max(self.delays) * 1e3
            found["batches"] = float(len(self.delays))
        return found


@dataclass(slots=True)
class _Lane:
    """One answer of a stream: events that wait for their turn."""

    queue: deque[Any] = field(default_factory=deque)
    refused: bool = False
    seam: Seam = field(default_factory=Seam)  # of its prose
    noted: set[str] = field(default_factory=set)  # what in it is not text and has been decided on


class _Refused(Exception):
    """A passage of the lane was withheld."""

    def __init__(self, decision: Decision | None) -> None:
        super().__init__()
        self.decision = decision


class StreamModerator:
    """Moderates the events of one stream.

    `push` and `finish` are generators: they yield tuples of passages (send the decisions back) and events that may
    leave (send None). After each event that leaves, look at `stopped`: if it is true, close the upstream and read no more.

    Args:
        stream: splits events into parts and makes events (`guardrail.wire.formats.StreamFormat`).
        unit: makes what is judged of a whole text (`guardrail.wire.units.unit_of`).
        piece: makes such a text of (text, form, stage).
        refusal: the words for a withheld text; may raise instead.
        lanes: how many answers were asked for.
        context: the conversation so far, oldest first.
        hold, max_chars: see `HoldingBuffer`.
        marker: appended to an altered text; empty for none.
        forbidden: tells whether patterns find in a text what may not pass at a stage. It is asked where two texts meet, for
            what begins in a sentence that has left may end in the next one.
        clock: tells seconds, for `timings`.
    """

    def __init__(
        self,
        stream: Any,
        *,
        unit: Callable[[Any, tuple[str, ...]], Judgeable],
        piece: Callable[[str, Any, Stage], Any],
        refusal: Callable[[Decision | None], str],
        lanes: int = 1,
        context: tuple[str, ...] = (),
        hold: str = "sentence",
        max_chars: int = 2000,
        marker: str = "",
        forbidden: Callable[[Stage, str], bool] = lambda _stage, _text: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._stream, self._unit, self._piece, self._refusal = stream, unit, piece, refusal
        self._count, self._context, self._hold, self._max, self._marker = lanes, context, hold, max_chars, marker
        self._forbidden = forbidden
        self._lanes: dict[Hashable, _Lane] = {}
        self._channels: dict[Hashable, Channel] = {}
        self.stopped = False
        self.timings = Timings(clock)

    @property
    def delivered(self) -> list[tuple[Stage, str]]:
        """The texts that left with their stage, one for each channel; complete only after the stream ended."""
        return [(channel.stage, "".join(channel.delivered)) for channel in self._channels.values()]

    def push(self, event: Any) -> Steps[None]:
        """Take one event from upstream."""
        if event.data == _DONE:
            yield from self.finish()
        for part in self._stream.split(event):
            lane = self._lanes.setdefault(part.lane, _Lane())
            if lane.refused or self.stopped:
                continue
            try:
                yield from self._take(lane, part)
            except _Refused as refused:
                yield from self._refuse(part.lane, lane, refused.decision)

    def finish(self) -> Steps[None]:
        """The upstream ended: judge and release what is held."""
        for key, lane in self._lanes.items():
            if lane.refused or self.stopped:
                continue
            try:
                for channel in [part.channel for part in lane.queue if part.channel is not None]:
                    yield from self._close(lane, channel)
                yield from self._release(lane)
            except _Refused as refused:
                yield from self._refuse(key, lane, refused.decision)

    def _take(self, lane: _Lane, part: Any) -> Steps[None]:
        for channel in part.ends:
            yield from self._close(lane, channel)
        for what in part.unscanned:
            if what not in lane.noted:
                lane.noted.add(what)
                (decision,) = yield (Passage("", Stage.OUTPUT, unscanned=what),)
                if decision.text is None:
                    raise _Refused(decision)
        if part.pieces:
            yield from self._whole_texts(part)
        if part.channel is not None:
            channel = self._channel(lane, part)
            part.start = channel.receive(part.text, now := self.timings.clock())
            if part.text:
                channel.template = part.event
                if self.timings.first_came is None:
                    self.timings.first_came = now
            lane.queue.append(part)
            if channel.buffer is not None:
                for batch in channel.buffer.feed(part.text):
                    yield from self._judge(channel, batch)
                    yield from self._release(lane)
        else:
            lane.queue.append(part)
        yield from self._release(lane)

    def _channel(self, lane: _Lane, part: Any) -> Channel:
        if part.channel not in self._channels:
            whole = part.form in ("json", "arguments") or part.gated
            buffer = None if whole else HoldingBuffer(self._hold, self._max)
            seam = lane.seam if part.form == "text" else Seam()
            self._channels[part.channel] = Channel(part.stage, buffer, part.form != "opaque", seam=seam)
        channel = self._channels[part.channel]
        channel.closed = False  # an upstream may go on with a text that it had ended: judged like the rest
        return channel

    def _close(self, lane: _Lane, key: Hashable) -> Steps[None]:
        """The channel is complete: judge the rest of it."""
        channel = self._channels.get(key)
        if channel is None or channel.closed:
            return
        if channel.buffer is not None:
            for batch in channel.buffer.flush():
                yield from self._judge(channel, batch)
                yield from self._release(lane)
        else:
            yield from self._judge_whole(lane, key, channel)
        channel.closed = True
        yield from self._release(lane)
        if self._marker and channel.altered and channel.editable and channel.buffer is not None:
            yield from self._mark(channel)

    def _judge(self, channel: Channel, batch: Batch) -> Steps[None]:
        """Judge one batch; what is white space alone needs no judge."""
        inner = [run.text.strip() for run in batch]
        context = self._context + channel.tail()
        passages = tuple(
            Passage(text, channel.stage, context, editable=run.editable and channel.editable)
            for run, text in zip(batch, inner, strict=True)
            if text
        )
        decisions = iter((yield passages) if passages else ())
        texts: list[str] = []
        for run, text in zip(batch, inner, strict=True):
            decision = next(decisions) if text else None
            if decision is not None and decision.text is None:
                raise _Refused(decision)
            new = text if decision is None or decision.text is None else decision.text
            before, _, after = run.text.partition(text) if text else (run.text, "", "")
            texts.append(run.text if new == text else f"{before}{new.strip()}{after}")
        yield from self._meet(channel, "".join(texts))
        for run, text in zip(batch, texts, strict=True):
            channel.clear(run.text, text)
        self.timings.delays.append(channel.waited(self.timings.clock()))

    def _meet(self, channel: Channel, text: str) -> Steps[None]:
        """Withhold a text that makes something forbidden together with what has left before it."""
        stage = channel.stage
        meeting = channel.seam.meets(text, lambda found: self._forbidden(stage, found))
        if meeting:
            (decision,) = yield (Passage(meeting, stage, self._context, editable=False, fixed=True),)
            if decision.text is None:
                raise _Refused(decision)
        channel.seam.add(text)

    def _judge_whole(self, lane: _Lane, key: Hashable, channel: Channel) -> Steps[None]:
        text = "".join(channel.source)[channel.cleared :]
        form = next((part.form for part in lane.queue if part.channel == key), "opaque")
        if channel.cleared and text:  # it had ended before: what has left of it is judged with the rest
            whole = "".join(channel.source)
            if whole != (yield from self._settled(self._piece(whole, form, channel.stage))):
                raise _Refused(None)
        channel.clear(text, (yield from self._settled(self._piece(text, form, channel.stage))))

    def _settled(self, piece: Any) -> Steps[str]:
        """Judge one text whole; return what it becomes."""
        unit = self._unit(piece, self._context)
        decisions = (yield unit.passages) if unit.passages else []
        settled = unit.settle(decisions)
        if settled is None:
            raise _Refused(next((decision for decision in decisions if decision.text is None), None))
        return str(settled[0])

    def _whole_texts(self, part: Any) -> Steps[None]:
        """Texts that stand whole in an event: a copy of a channel becomes what the channel became, others are judged."""
        for piece in part.pieces:
            channel = self._channels.get(piece.channel) if piece.channel is not None else None
            if channel is not None and "".join(channel.source) == piece.text:
                text = "".join(channel.delivered)
            else:
                text = yield from self._settled(piece)
            if text != piece.text:
                part.event = self._stream.with_piece(part.event, piece, text)

    def _mark(self, channel: Channel) -> Steps[None]:
        """Append the marker to a text that was altered."""
        channel.delivered.append(self._marker)
        yield self._stream.emitted(self._stream.with_text(channel.template, self._marker))

    def _release(self, lane: _Lane) -> Steps[None]:
        """Let the events at the head of the lane go whose text is cleared."""
        while lane.queue:
            part = lane.queue[0]
            channel = self._channels[part.channel] if part.channel is not None else None
            if channel is not None and (part.end > channel.cleared or (part.gated and not channel.closed)):
                yield from self._release_start(part, channel)
                return
            lane.queue.popleft()
            event = part.event
            if channel is not None and part.text:
                text = channel.rendered(part, part.end)
                if not text:
                    continue
                self.timings.left()
                if text != part.text:
                    event = self._stream.with_text(event, text)
            yield self._stream.emitted(event)

    def _release_start(self, part: Any, channel: Channel) -> Steps[None]:
        """Let the cleared beginning of an event go, where it holds more than white space."""
        if part.gated or channel.cleared <= part.start:
            return
        text = channel.rendered(part, channel.cleared)
        if not text.strip():
            return
        self.timings.left()
        yield self._stream.emitted(self._stream.with_text(part.event, text))
        rest = part.text[channel.cleared - part.start :]
        part.event = self._stream.with_text(part.event, rest)
        part.text, part.start = rest, channel.cleared

    def _refuse(self, key: Hashable, lane: _Lane, decision: Decision | None) -> Steps[None]:
        """End the lane with the refusal; stop once every answer has ended."""
        lane.refused = True
        lane.queue.clear()
        self.timings.left()
        for event in self._stream.refuse(key, self._refusal(decision)):
            yield self._stream.emitted(event)
        if self._stream.finished(self._count):
            self.stopped = True
            for event in self._stream.closing():
                yield self._stream.emitted(event)
