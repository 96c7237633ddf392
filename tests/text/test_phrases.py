"""Words and phrases are found whole, in any script, however many there are."""

import pytest

from guardrail.text.phrases import Phrases


@pytest.mark.parametrize(
    ("entry", "text", "found"),
    [
        ("ass", "an ass, a class, ass-hat, ass", ["ass", "ass", "ass"]),
        ("bloody hell", "bloody hell bloody  hell bloody-hell", ["bloody hell", "bloody  hell", "bloody-hell"]),
        ("bloody hell", "bloody. hell, bloody, hell bloodyhell", []),
        ("scam*", "scam scammers nonscam", ["scam", "scammers"]),
        ("trade acc*", "trade accounts and trade", ["trade accounts"]),
        ("a b c", "a b c d a b", ["a b c"]),
        ("don't", "i don't dont", ["don't"]),
        ("c++", "c++ and c+ and xc++ (c++)", ["c++", "c++"]),
        ("24/7", "open 24/7", ["24/7"]),
        ("дурак", "ты дурак, дурака", ["дурак"]),
        ("笨蛋", "你这个笨蛋啊", ["笨蛋"]),
        ("โง่", "คุณโง่มาก", ["โง่"]),
        ("क्या", "क्या हाल क्याx", ["क्या"]),
        ("🖕", "no🖕🖕", ["🖕", "🖕"]),
        ("rock & roll", "rock & roll", ["rock & roll"]),
    ],
)
def test_entries_are_found(entry: str, text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in Phrases([entry]).find(text)] == found


def test_overlapping_entries_are_all_found() -> None:
    text = "big bad wolf"
    phrases = Phrases(["bad", "big bad", "big bad wolf", "bad wol*", "wolf"])
    assert sorted(text[start:end] for start, end in phrases.find(text)) == [
        "bad",
        "bad wolf",
        "big bad",
        "big bad wolf",
        "wolf",
    ]
    assert len(phrases) == 5
    assert set(phrases.words) == {"bad", "wolf"}


@pytest.mark.parametrize("entry", ["", " ", "*", "a*b", "!*", "ab *c"])
def test_what_is_no_phrase_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="not a word or phrase"):
        Phrases([entry])


def test_nothing_is_found_in_nothing() -> None:
    assert Phrases([]).find("some text") == []
    assert Phrases(["a"]).find("") == []


def test_many_entries_and_a_long_text() -> None:
    phrases = Phrases([f"w{number}x" for number in range(50_000)] + [f"the w{number}x" for number in range(1000)])
    text = "the quick w49999x " * 5000
    assert len(phrases.find(text)) == 5000
