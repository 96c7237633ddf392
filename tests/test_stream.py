"""The holding buffer: nothing disallowed leaves, whatever the cuts; what is clean leaves as it came."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.clients.driving import pump
from guardrail.clients.exchange import Exchange
from guardrail.clients.memory import Memory
from guardrail.errors import ModerationError
from guardrail.stream import HoldingBuffer
from guardrail.text.segment import sentences
from guardrail.types import Action, Decision, Passage, Stage, State
from guardrail.wire.pieces import DONE, Event
from guardrail.wire.routes import FORMATS

REFUSAL = "Withheld."
BLOCK, REDACT = "zorgle", "secret"
WORDS = ["Hello", "Yes", "all", "is", "well", "3.14", "e.g.", "Dr.", "über", "🙂", "naïve", "“so”", "ok", BLOCK, REDACT]
ENDS = [". ", "! ", "? ", "... ", ".\n\n", "\n", "。", ".” ", " "]


class Judge:
    """A stand-in for a guard: two words decide. Records what it was asked; fails at a call of the test's choosing."""

    def __init__(self, hold: str = "sentence", max_chars: int = 2000, marker: str = "", fail_at: int = -1) -> None:
        document = SimpleNamespace(disclose="marker" if marker else "none", marker=marker, refusal=REFUSAL)
        self.policy: Any = SimpleNamespace(name="p", revision="r", document=document)
        self.settings: Any = SimpleNamespace(stream=SimpleNamespace(hold=hold, max_chars=max_chars), on_block="refuse")
        self.seen: list[Passage] = []
        self.fail_at = fail_at

    def moderate(self, passages: Any, **_: Any) -> list[Decision]:
        if self.fail_at == 0:
            raise RuntimeError("boom")
        self.fail_at -= 1
        self.seen += passages
        return [decide(passage) for passage in passages]

    async def amoderate(self, passages: Any, **_: Any) -> list[Decision]:
        return self.moderate(passages)

    def check_many(self, passages: Any) -> list[Decision]:
        return [decide(passage) for passage in passages]

    def assembly(self) -> Any:
        """What the policy's patterns forbid: nothing."""
        return SimpleNamespace(judge=SimpleNamespace(forbidden=lambda stage: None))


class Pattern(Judge):
    """A guard with a pattern of two words, which may stand on two lines."""

    def moderate(self, passages: Any, **_: Any) -> list[Decision]:
        decided = super().moderate(passages)
        return [
            replace(decision, action=Action.BLOCK, state=State.BLOCKED, text=None) if passage.fixed else decision
            for passage, decision in zip(passages, decided, strict=True)
        ]

    def assembly(self) -> Any:
        def finds(text: str) -> bool:
            return "black sheep" in " ".join(text.split())

        return SimpleNamespace(judge=SimpleNamespace(forbidden=lambda stage: finds))


def decide(passage: Passage) -> Decision:
    action, state, text = Action.ALLOW, State.ALLOWED, passage.text
    if BLOCK in passage.text:
        action, state, text = Action.BLOCK, State.BLOCKED, None
    elif REDACT in passage.text:
        action, state, text = Action.REDACT, State.REDACTED, passage.text.replace(REDACT, "[…]")
    return Decision(
        "d",
        action,
        state,
        0.0,
        passage.stage,
        "p",
        "r",
        text,
        passage.text,
        refusal=None if text is not None else REFUSAL,
    )


def expected(text: str) -> str:
    """What must be delivered of `text`, whatever the cuts: every sentence judged by itself, up to the first bad one."""
    out = ""
    for start, end in sentences(text):
        sentence = text[start:end]
        if BLOCK in sentence:
            return out + (f"\n\n{REFUSAL}" if out else REFUSAL)
        out += sentence.replace(REDACT, "[…]")
    return out


def tidy(text: str) -> str:
    """Without the white space before a refusal: what of it has left depends on the cuts."""
    before, refusal, after = text.partition(REFUSAL)
    return before.rstrip() + refusal + after if refusal else text


def squeezed(text: str) -> str:
    return "".join(text.split())


def chunk(index: int, text: str | None, finish: str | None = None) -> Event:
    delta = {} if text is None else {"content": text}
    return Event({"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def run(
    guard: Judge, events: list[Event], request: dict[str, Any] | None = None
) -> tuple[dict[int, str], dict[int, str], Any]:
    """(texts by choice, finish reasons by choice, the moderator)."""
    exchange = Exchange(guard, FORMATS["chat_completions"], {"messages": [], **(request or {})}, Memory())
    moderator = exchange.stream()
    texts: dict[int, str] = {}
    finishes: dict[int, str] = {}

    def take(steps: Any) -> None:
        for event in pump(exchange, steps):
            for choice in event.data["choices"] if event.data != DONE else ():
                assert choice["index"] not in finishes, "an event after the end of its choice"
                texts[choice["index"]] = texts.get(choice["index"], "") + (choice["delta"].get("content") or "")
                if choice["finish_reason"]:
                    finishes[choice["index"]] = choice["finish_reason"]

    for event in events:
        if moderator.stopped:
            break
        take(moderator.push(event))
    if not moderator.stopped:
        take(moderator.finish())
    return texts, finishes, moderator


texts = st.lists(
    st.tuples(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), st.sampled_from(ENDS)), max_size=8
).map(lambda parts: "".join(" ".join(words) + end for words, end in parts))


def cut(text: str, data: st.DataObject) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12), label="cuts"))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(text=texts, data=st.data())
def test_what_is_delivered_does_not_depend_on_the_cuts(text: str, data: st.DataObject) -> None:
    guard = Judge()
    parts = cut(text, data)
    delivered, finishes, _ = run(guard, [*(chunk(0, part) for part in parts), chunk(0, None, "stop"), Event(DONE)])
    assert tidy(delivered.get(0, "")) == tidy(expected(text))
    assert finishes == {0: "content_filter" if BLOCK in text else "stop"}
    judged = squeezed("".join(passage.text for passage in guard.seen))
    assert squeezed(text).startswith(judged)
    assert BLOCK in text or judged == squeezed(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    text=texts, data=st.data(), hold=st.sampled_from(["sentence", "paragraph", "all"]), max_chars=st.integers(20, 60)
)
def test_nothing_disallowed_leaves_in_any_mode(text: str, data: st.DataObject, hold: str, max_chars: int) -> None:
    parts = cut(text, data)
    events = [*(chunk(0, part) for part in parts), chunk(0, None, "stop")]
    delivered, _, _ = run(Judge(hold, max_chars), events)
    assert BLOCK not in delivered[0]
    assert REDACT not in delivered[0]
    if BLOCK not in text and REDACT not in text:
        assert delivered[0] == text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(first=texts, second=texts, data=st.data())
def test_choices_do_not_disturb_each_other(first: str, second: str, data: st.DataObject) -> None:
    queues = [[chunk(0, part) for part in cut(first, data)], [chunk(1, part) for part in cut(second, data)]]
    queues[0].append(chunk(0, None, "stop"))
    queues[1].append(chunk(1, None, "length"))
    events = []
    while any(queues):
        queue = data.draw(st.sampled_from([queue for queue in queues if queue]), label="next")
        events.append(queue.pop(0))
    delivered, finishes, _ = run(Judge(), events, {"n": 2})
    assert tidy(delivered.get(0, "")) == tidy(expected(first))
    assert tidy(delivered.get(1, "")) == tidy(expected(second))
    assert finishes == {
        0: "content_filter" if BLOCK in first else "stop",
        1: "content_filter" if BLOCK in second else "length",
    }


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=texts, data=st.data(), fail_at=st.integers(0, 4))
def test_when_judging_fails_only_a_cleared_beginning_has_left(text: str, data: st.DataObject, fail_at: int) -> None:
    left: list[str] = []
    exchange = Exchange(Judge(fail_at=fail_at), FORMATS["chat_completions"], {"messages": []}, Memory())
    moderator = exchange.stream()

    def take(steps: Any) -> None:
        for event in pump(exchange, steps):
            if event.data != DONE:
                left.append(event.data["choices"][0]["delta"].get("content") or "")

    try:
        for part in cut(text, data):
            take(moderator.push(chunk(0, part)))
            if moderator.stopped:
                break
        else:
            take(moderator.finish())
    except ModerationError as error:
        assert "boom" in str(error)
        assert expected(text).startswith("".join(left))
    else:
        assert tidy("".join(left)) == tidy(expected(text))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=texts, data=st.data(), hold=st.sampled_from(["sentence", "paragraph", "all"]), max_chars=st.integers(1, 40))
def test_the_buffer_loses_and_invents_nothing(text: str, data: st.DataObject, hold: str, max_chars: int) -> None:
    buffer = HoldingBuffer(hold, max_chars)
    batches = [batch for part in cut(text, data) for batch in buffer.feed(part)] + buffer.flush()
    assert "".join(run.text for batch in batches for run in batch) == text
    assert buffer.flush() == []


def test_a_sentence_leaves_as_soon_as_it_is_cleared() -> None:
    guard = Judge()
    exchange = Exchange(guard, FORMATS["chat_completions"], {"messages": []}, Memory())
    moderator = exchange.stream()

    def push(text: str) -> str:
        return "".join(
            event.data["choices"][0]["delta"]["content"] for event in pump(exchange, moderator.push(chunk(0, text)))
        )

    assert push("The first") == ""
    assert push(" sentence.") == ""
    assert push(" The") == "The first sentence."
    assert push(" second goes on and on. The third") == " The second goes on and on. "
    assert [passage.text for passage in guard.seen] == ["The first sentence.", "The second goes on and on."]
    assert guard.seen[1].context == ("The first sentence. ",)


@pytest.mark.parametrize("hold", ["sentence", "paragraph"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_what_begins_in_a_sentence_that_has_left_does_not_end_in_the_next(size: int, hold: str) -> None:
    text = "So it goes. He is a black\n\nsheep of theirs. And so on."
    guard = Pattern(hold)
    events = [chunk(0, text[at : at + size]) for at in range(0, len(text), size)]
    delivered, finishes, _ = run(guard, [*events, chunk(0, None, "stop")])
    assert tidy(delivered[0]) == f"So it goes. He is a black{REFUSAL}"
    assert finishes == {0: "content_filter"}
    (meeting,) = [passage.text for passage in guard.seen if passage.fixed]
    assert "a black\n\nsheep of" in meeting


def test_what_does_not_meet_is_judged_once() -> None:
    guard = Pattern()
    text = "A black dog. Sheep are white.\n\nSheep. A black.\n\nThat is all."
    delivered, _, _ = run(guard, [chunk(0, part) for part in text.partition("dog")] + [chunk(0, None, "stop")])
    assert delivered[0] == text
    assert "".join(squeezed(passage.text) for passage in guard.seen) == squeezed(text)


@pytest.mark.parametrize("clean", [True, False])
def test_a_call_that_goes_on_after_it_had_ended_is_judged_as_a_whole(clean: bool) -> None:
    word = "well" if clean else BLOCK
    halves = ('{"to": "All is ' + word[:3], word[3:] + '"}')

    def call(text: str) -> Event:
        delta = {"tool_calls": [{"index": 0, "function": {"name": "send", "arguments": text}}]}
        return Event({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    exchange = Exchange(Judge(), FORMATS["chat_completions"], {"messages": [], "n": 2}, Memory())
    moderator = exchange.stream()
    left = [call(halves[0]), chunk(0, None, "tool_calls"), call(halves[1])]
    out = [event for one in left for event in pump(exchange, moderator.push(one))]
    out += pump(exchange, moderator.finish())
    heard = str([event.data for event in out])
    assert (halves[1] in heard) is clean
    assert (REFUSAL in heard) is not clean


def test_the_end_of_a_stream_is_split_as_the_whole_text_is() -> None:
    """A line is taken for hard-wrapped by its length, of which the last sentence is only a part."""
    text = f"Hello. Hello. Hello. Hello Hello Hello Hello Hello\n{BLOCK}. "
    assert len(sentences(text)) == 4
    delivered, _, _ = run(Judge(), [chunk(0, text), chunk(0, None, "stop")])
    assert tidy(delivered[0]) == tidy(expected(text))


def test_unchanged_events_leave_as_they_came() -> None:
    events = [chunk(0, part) for part in ("One", ". T", "wo.", " Three.")]
    exchange = Exchange(Judge(), FORMATS["chat_completions"], {"messages": []}, Memory())
    moderator = exchange.stream()
    left = [out for event in events for out in pump(exchange, moderator.push(event))]
    left += pump(exchange, moderator.finish())
    assert left[0] is events[0]
    assert left[-1] is events[-1]


def test_the_marker_follows_an_altered_text_once() -> None:
    events = [chunk(0, f"A {REDACT}. Another {REDACT}. Fine."), chunk(0, None, "stop")]
    delivered, _, moderator = run(Judge(marker=" [edited]"), events)
    assert delivered == {0: "A […]. Another […]. Fine. [edited]"}
    assert moderator.delivered == [(Stage.OUTPUT, "A […]. Another […]. Fine. [edited]")]


def test_code_is_never_edited() -> None:
    text = f"Look:\n\n```python\nx = 1\n# a {REDACT} here. And there.\n\ny = 2\n```\n\nDone. A {REDACT}.\n"
    for hold in ("sentence", "paragraph", "all"):
        for max_chars in (2000, 12):
            guard = Judge(hold, max_chars)
            run(guard, [chunk(0, text[at : at + 7]) for at in range(0, len(text), 7)])
            code = "".join(passage.text for passage in guard.seen if not passage.editable)
            prose = "".join(passage.text for passage in guard.seen if passage.editable)
            assert "x=1" in code.replace(" ", "")
            assert "Andthere" in code.replace(" ", "")
            assert "y=2" in code.replace(" ", "")
            assert "Look" in prose
            assert f"A{REDACT}" in prose.replace(" ", "")
            assert "x=1" not in prose.replace(" ", "")


@pytest.mark.parametrize("wrong", ["word", "", "Sentence"])
def test_an_unknown_mode_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="hold must be"):
        HoldingBuffer(wrong)
