"""Sentences end where they end, a stream gives the same ones however it is cut, windows cover the text."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardrail.text.segment import MAX_CHARS, SentenceSplitter, fenced_code, sentences, windows

# "|" stands where one sentence ends and the next begins
SPLIT = [
    "Hello there. |How are you? |Fine!",
    "he left. |she stayed. |no way",
    "Mr. Smith met Dr. J. R. Jones at 5 p.m. in St. Louis. |Then he left.",
    "Costs rose 3.5 percent to $1.2 million. |See no. 5 and fig. 3 there. |No. |Really no.",
    "I live in the U.S. |He does not. |The U.S. Senate met. |Bring pens, paper, etc. |The end.",
    "E.g. this, i.e. that, cf. Jones et al. 2020 and others.",
    "Wait... what? |I see... |But no… |Then yes… then no.",
    '"Stop!" he said. |"Go." |She went. |(Really?) |Yes.',
    "**Wow!** that is bold. |_Right._ |Done.",
    "Visit example.com or a.b.c now. |Version 2.0.1 is out.",
    "What?! |No!!! |Yes...!",
    "First line\n|second line\n\n|A paragraph.\n\n\n|Another.",
    "- one\n|- two\n|* three\n|1. Four is here. |Five.\n|2) six\n|a. seven",
    "1. First. |Second.",
    "This line was wrapped by an old mail program at some\ncolumn and goes on here. |Next.",
    "Title\r\n\r\n|Text\r\n|More",
    "这是一句话。|这是第二句！|真的吗？|「行く。」と言った。|彼は来た。",
    "好!|你好?|对",
    "كيف حالك؟ |بخير. |یہ جملہ ہے۔ |دوسرا۔",
    "मैं घर गया। |वह आया॥ |अंत",
    "Plan B. |We go. |Vitamin C. is good.",
    "Look:\n|```py\na = 1. \nb = 'x! y'\n```\n\n|Then. |More.",
    "~~~\nWhat? No.\n~~~\n|Yes. |No.",
    "Use `a.b` or ```inline``` here. |Yes.",
    "   Leading space. |End.   ",
    "",
    "   \n ",
    "no end at all",
]

PIECES = [
    *"aAbI1 .!?\n\r\t'\")*`~-。！」と।؟…\u2028\u00a0\u200d\ud800\u0301",
    *(
        "Mr",
        "e.g",
        "U.S",
        "The ",
        "the ",
        "```",
        "```\n",
        "\n\n",
        ". ",
        "! ",
        "\n1. ",
        " etc. ",
        "word ",
        "👨\u200d👩",
        "x" * 60,
        " " * 30,
    ),
]
pieces = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
cuts = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@pytest.mark.parametrize("marked", SPLIT)
def test_sentences_end_where_they_should(marked: str) -> None:
    text = marked.replace("|", "")
    parts = [text[start:end] for start, end in sentences(text)]
    assert parts == [part for part in marked.split("|") if part]


def streamed(text: str, sizes: Sequence[int], max_chars: int) -> list[str]:
    splitter = SentenceSplitter(max_chars)
    parts: list[str] = []
    at = turn = 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        parts += splitter.feed(text[at : at + size])
        assert len(splitter.held) <= max_chars
        at, turn = at + size, turn + 1
    parts.append(splitter.flush())
    assert splitter.flush() == ""
    return parts if parts[-1] else parts[:-1]


@settings(max_examples=300, deadline=None)
@given(st.one_of(pieces, st.text(max_size=60)), cuts, st.sampled_from([1, 2, 7, 40, MAX_CHARS]))
@example("```\na. b\n```", [1], 8)
@example("a\n```\nb\n```\nc. d", [1], MAX_CHARS)
def test_a_stream_gives_the_sentences_of_the_whole(text: str, sizes: list[int], max_chars: int) -> None:
    whole = [text[start:end] for start, end in sentences(text, max_chars)]
    assert "".join(whole) == text
    assert all(0 < len(part) <= max_chars for part in whole)
    assert streamed(text, sizes, max_chars) == whole


@settings(max_examples=100, deadline=None)
@given(pieces, pieces)
def test_what_was_released_stays_right_whatever_follows(text: str, more: str) -> None:
    splitter = SentenceSplitter()
    released = splitter.feed(text)
    whole = [(text + more)[start:end] for start, end in sentences(text + more)]
    assert whole[: len(released)] == released


def test_a_sentence_is_not_released_before_it_has_ended() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("He paid 3.") == []
    assert splitter.feed("5 dollars. ") == []
    assert splitter.feed("B") == ["He paid 3.5 dollars. "]
    assert splitter.feed('ob said "No.') == []
    assert splitter.feed('" and left.') == []
    assert splitter.flush() == 'Bob said "No." and left.'


def test_an_endless_sentence_is_released_in_words() -> None:
    splitter = SentenceSplitter(50)
    parts = [part for _ in range(100) for part in splitter.feed("some words and ")]
    assert len(parts) > 20
    assert all(len(part) <= 50 and part.endswith(" ") for part in parts)


def test_a_cut_without_words_does_not_break_an_emoji() -> None:
    family = "👨\u200d👩\u200d👧"
    parts = [(family * 20)[start:end] for start, end in sentences(family * 20, 12)]
    assert all(part.startswith("👨") for part in parts)


@pytest.mark.parametrize("unit", ["a", " ", "\n", ".", "! ", "`", "```\n", "e.g. ", "\n ", "1. ", "。", "\u0301"])
def test_endless_input_is_covered(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    spans = sentences(text)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(left[1] == right[0] for left, right in pairwise(spans))


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_chars"):
        sentences("a", 0)
    with pytest.raises(ValueError, match="limit"):
        windows("a", lambda texts: [1 for _ in texts], 0)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("a\n```py\nx\n```\nb", ["```py\nx\n```\n"]),
        ("```\nnever closed", ["```\nnever closed"]),
        ("~~~\n```\n~~~\n", ["~~~\n```\n~~~\n"]),
        ("````\n```\n````", ["````\n```\n````"]),
        ("use ```inline``` code", []),
        ("", []),
    ],
)
def test_fenced_code(text: str, blocks: list[str]) -> None:
    assert [text[start:end] for start, end in fenced_code(text)] == blocks


def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.one_of(pieces, st.text(max_size=80)), st.integers(1, 12))
def test_windows_cover_the_text_within_the_limit(text: str, limit: int) -> None:
    spans = windows(text, count_words, limit)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)
    assert all(count <= limit for count in count_words([text[start:end] for start, end in spans]))


def test_windows_hold_whole_sentences_where_they_fit() -> None:
    text = "One two three. Four five. Six seven eight nine. Ten."
    assert [text[start:end] for start, end in windows(text, count_words, 5)] == [
        "One two three. Four five. ",
        "Six seven eight nine. Ten.",
    ]


def test_a_character_of_many_tokens_is_not_cut() -> None:
    assert windows("ab", lambda texts: [9 * len(text) for text in texts], 5) == [(0, 1), (1, 2)]


def test_this_text_is_read_whole() -> None:
    text = Path(__file__).read_text("utf-8")
    assert len(windows(text, count_words, 50)) > 10
