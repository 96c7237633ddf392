"""A moderated stream of server-sent events: bytes in, bytes out, whatever the cuts."""

from __future__ import annotations

from guardrail.clients.asking import Steps
from guardrail.clients.exchange import Exchange
from guardrail.clients.ledger import remember
from guardrail.clients.reading import MALFORMED, malformed
from guardrail.errors import ModerationError
from guardrail.wire import documents
from guardrail.wire.pieces import DONE, Event
from guardrail.wire.sse import KEEP_ALIVE, Frame, SSEDecoder, encode

__all__ = ["EventStream"]


class EventStream:
    """The bytes of one response. `receive` and `finish` yield passages to judge and bytes that may leave."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._decoder = SSEDecoder()
        self._moderator = exchange.stream()
        self._seen = 0
        self._other = False
        self._known = False

    @property
    def stopped(self) -> bool:
        """Whether every answer has ended: close the upstream and read no more."""
        return self._moderator.stopped

    def receive(self, data: bytes) -> Steps:
        """Take the next bytes of the upstream."""
        for frame in self._decoder.feed(data):
            yield from self._frame(frame)

    def finish(self) -> Steps:
        """The upstream ended.

        Raises:
            ModerationError: what came was not an event stream.
        """
        for frame in self._decoder.finish():
            yield from self._frame(frame)
        if self._other and not self._seen:
            raise ModerationError(
                "The upstream's answer is neither JSON nor an event stream, so it could not be judged and was not passed on."
            )
        yield from self._events(self._moderator.finish())
        self._exchange.finished(self._moderator)

    def _frame(self, frame: Frame) -> Steps:
        if self.stopped:
            return
        if frame.data is None:
            self._other = self._other or frame.stray
            if not frame.blank:
                yield KEEP_ALIVE
            return
        self._seen += 1
        if frame.data.strip() == DONE:
            event = Event(DONE, frame.name, frame.raw)
        else:
            event = Event(documents.parse(frame.data, "An event of the upstream's stream"), frame.name, frame.raw)
        self._recognise(event)
        yield from self._events(self._moderator.push(event))

    def _events(self, steps: Steps) -> Steps:
        """The moderator's steps, with events as bytes."""
        answer = None
        while True:
            try:
                asked = steps.send(answer)
            except StopIteration:
                return
            except MALFORMED as error:
                raise malformed("An event of the upstream's stream", error) from error
            answer = yield (_bytes(asked) if isinstance(asked, Event) else asked)

    def _recognise(self, event: Event) -> None:
        """Note the id of the response, so that its events lead to the outcome."""
        if self._known or not isinstance(event.data, dict):
            return
        self._known = True
        holder = event.data.get("response") or event.data.get("message") or event.data
        if isinstance(holder, dict) and isinstance(holder.get("id"), str):
            remember(self._exchange.ledger, ids=(holder["id"],))


def _bytes(event: Event) -> bytes:
    return event.raw if event.raw is not None else encode(event.data, event.name)
