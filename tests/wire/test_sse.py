"""Event streams, however their bytes are cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.errors import ModerationError
from guardrail.wire import sse
from guardrail.wire.sse import Frame, SSEDecoder, encode

STREAM = (
    'event: one\ndata: {"a": "Grüße 🙂"}\n\n: keep-alive\n\ndata: first\ndata: second\r\n\r\nid: 7\nretry: 3\ndata: x\r\r'
    "words: text\n\ndata:no space\n\ndata: [DONE]\n\n"
)


def read(data: bytes, cuts: list[int]) -> list[Frame]:
    decoder = SSEDecoder()
    places = [0, *sorted(cuts), len(data)]
    frames = [frame for a, b in itertools.pairwise(places) for frame in decoder.feed(data[a:b])]
    return frames + decoder.finish()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=20))
def test_the_cuts_do_not_matter(cuts: list[int]) -> None:
    frames = read(STREAM.encode(), cuts)
    assert [(frame.name, frame.data) for frame in frames if frame.data is not None] == [
        ("one", '{"a": "Grüße 🙂"}'),
        (None, "first\nsecond"),
        (None, "x"),
        (None, "no space"),
        (None, "[DONE]"),
    ]


def test_one_byte_at_a_time() -> None:
    data = STREAM.encode()
    assert read(data, list(range(len(data)))) == read(data, [])


def test_raw_bytes_are_kept_only_where_nothing_else_is_said() -> None:
    frames = read(STREAM.encode(), [])
    assert frames[0].raw == 'event: one\ndata: {"a": "Grüße 🙂"}\n\n'.encode()
    assert frames[1].data is None
    assert frames[1].raw is None
    with_id = next(frame for frame in frames if frame.data == "x")
    assert with_id.raw is None
    assert [frame.stray for frame in frames].count(True) == 1


def test_a_cut_stream_gives_its_last_event() -> None:
    assert [frame.data for frame in read(b"data: one\n\ndata: tw", [])] == ["one", "tw"]
    assert read(b"", []) == []
    assert [frame.data for frame in read(b"\xef\xbb\xbfdata: bom\n\n", [1])] == ["bom"]
    assert [frame.data for frame in read(b"data: \xf0\x9f\n\n", [])] == ["\ufffd"]


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_CHARS", 100)
    decoder = SSEDecoder()
    decoder.feed(b"data: " + b"x" * 90)
    with pytest.raises(ModerationError, match="longer than"):
        decoder.feed(b"x" * 90)
    lines = SSEDecoder()
    with pytest.raises(ModerationError, match="longer than"):
        for _ in range(20):
            lines.feed(b"data: 1234567890\n")


def test_what_is_written_can_be_read() -> None:
    for data in ({"a": "Grüße\n\n🙂"}, {"a": "\ud800"}, [1, None]):
        (frame,) = read(encode(data, "name"), [])
        assert frame.name == "name"
        assert json.loads(frame.data or "") == data
    assert encode("[DONE]") == b"data: [DONE]\n\n"


def test_an_event_s_name_is_one_word() -> None:
    (named,) = SSEDecoder().feed(b"event: response.output_text.delta\ndata: {}\n\n")
    assert (named.name, named.raw) == ("response.output_text.delta", b"event: response.output_text.delta\ndata: {}\n\n")
    (worded,) = SSEDecoder().feed(b"event: words that nobody judged\ndata: {}\n\n")
    assert (worded.name, worded.raw, worded.data) == (None, None, "{}")
