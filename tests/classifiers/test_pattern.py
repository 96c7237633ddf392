"""Kind `pattern`: what it finds, where, what it lets pass, and how it refuses options that it cannot use."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from guardrail.classifiers.base import BuildContext, Classifier
from guardrail.classifiers.pattern import PatternClassifier, build
from guardrail.errors import ClassifierError
from guardrail.registry import resolve
from guardrail.types import Passage


def make(directory: Path = Path(), **options: Any) -> PatternClassifier:
    return build("test", options, BuildContext("all-MiniLM-L6-v2", "cpu", directory, directory))


def found(classifier: PatternClassifier, text: str) -> list[str]:
    (score,) = classifier.score([Passage(text)])
    assert bool(score.value) == bool(score.spans)
    return [text[start:end] for start, end in score.spans]


def test_it_is_a_classifier_of_its_kind() -> None:
    classifier = make(words=["idiot"])
    assert isinstance(classifier, Classifier)
    assert (classifier.name, classifier.kind) == ("test", "pattern")
    assert resolve("guardrail.classifiers", "pattern") is build


@pytest.mark.parametrize(
    ("options", "text", "matches"),
    [
        ({"words": ["idiot"]}, "An Idiot, IDIOTS, idiotic: idiot!", ["Idiot", "idiot"]),
        (
            {"words": ["Idiot"]},
            "1d10t i d i o t id\u200biot іdіоt ｉｄｉｏｔ",
            ["1d10t", "i d i o t", "id\u200biot", "іdіоt", "ｉｄｉｏｔ"],
        ),
        ({"words": ["blödmann"]}, "Du BLÖDMANN, Blodmann, blöööödmann", ["BLÖDMANN", "Blodmann", "blöööödmann"]),
        (
            {"words": ["frobnitz"]},
            "fr0bn1tz f*obnitz f r o b n i t z frobnitzzz",
            ["fr0bn1tz", "f*obnitz", "f r o b n i t z", "frobnitzzz"],
        ),
        ({"words": ["дурак"]}, "Ты дурааак, ДУPАК", ["дурааак", "ДУPАК"]),
        ({"words": ["bloody hell", "scam*"]}, "Bloody-Hell, scammers", ["Bloody-Hell", "scammers"]),
        ({"words": ["don't"]}, "I don’t", ["don’t"]),
        ({"words": ["b1tch"]}, "Bitch b1tch", ["Bitch", "b1tch"]),
        ({"words": ["笨蛋", "🖕"]}, "你这个笨蛋啊🖕🏽", ["笨蛋", "🖕"]),
        ({"regex": [r"\bsend\s+(me\s+)?pics?\b"]}, "SEND me p1cs? send pics!", ["SEND me p1cs", "send pics"]),
        ({"regex": ["[ab]{3}", "b{2}"]}, "x abb é abb", ["abb", "abb"]),
        ({"regex": ["a", "ü"]}, "", []),
        ({"words": ["ass"], "regex": ["as+"]}, "class ass", ["ass", "ass"]),
        ({"regex": ["dick"], "allow": ["Dickens", "moby dick"]}, "Dickens, Moby Dick and dick", ["dick"]),
        ({"regex": ["cunt"], "allow": ["Scunthorpe"]}, "Scunthorpe", []),
        ({"regex": [r"send.{0,30}pics"], "allow": ["never send"]}, "never send pics or send pics", ["send pics"]),
    ],
)
def test_what_is_found(options: dict[str, Any], text: str, matches: list[str]) -> None:
    assert found(make(**options), text) == matches


def test_value_is_the_score_of_a_match() -> None:
    classifier = make(words=["bad"], value=0.7)
    assert [score.value for score in classifier.score([Passage("bad"), Passage("good"), Passage("")])] == [
        0.7,
        0.0,
        0.0,
    ]
    assert classifier.score([]) == []


@pytest.mark.parametrize(
    "text",
    ["", " ", "\0", "\ud800", "\u202e\u200b", "a" * 200_000, "bad" * 50_000, "\udcff bad\0bad", "é" * 20_000],
)
def test_any_text_can_be_scored(text: str) -> None:
    classifier = make(words=["bad"], regex=["b+a?d", "é{3}"], allow=["bad é"])
    (score,) = classifier.score([Passage(text)])
    assert all(0 <= start < end <= len(text) for start, end in score.spans)


def test_many_allowed_phrases_do_not_slow_it_down() -> None:
    classifier = make(regex=[r"send me pics"], allow=["never send"])
    text = "never send me pics ü " * 20_000 + "send me pics"
    assert found(classifier, text) == ["send me pics"]


def test_a_lexicon_file(tmp_path: Path) -> None:
    tmp_path.joinpath("list.txt").write_bytes("\ufeff# comment\n\n idiot \r\nbloody hell\nbl*\n".encode())
    classifier = make(tmp_path, lexicon="list.txt")
    assert found(classifier, "Idiot! Bloody hell, blast") == ["Idiot", "Bloody hell", "blast"]
    assert found(make(lexicon=str(tmp_path / "list.txt")), "idiot") == ["idiot"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to look for"),
        ({"wrods": ["a"]}, "'wrods' is not an option .* Did you mean 'words'"),
        ({"words": "idiot"}, "words must be a list"),
        ({"words": [1]}, "Put quotes around numbers"),
        ({"words": [" "]}, "words must be a list of texts"),
        ({"words": ["a*b"]}, "not a word or phrase"),
        ({"words": ["*"]}, "not a word or phrase"),
        ({"words": ["x" * 400]}, "longer than"),
        ({"regex": ["(?=a)b"]}, "look-around"),
        ({"regex": [r"(a)\1"]}, "back-references"),
        ({"regex": ["("]}, "missing"),
        ({"regex": ["a*"]}, "matches the empty text"),
        ({"regex": [r"\bдурак\b"]}, "would never match"),
        ({"words": ["a"], "value": 0}, "above 0 and at most 1"),
        ({"words": ["a"], "value": 1.5}, "above 0 and at most 1"),
        ({"words": ["a"], "value": True}, "above 0 and at most 1"),
        ({"words": ["a"], "value": float("nan")}, "above 0 and at most 1"),
        ({"words": ["a"], "allow": ["**"]}, "allow: .* not a word or phrase"),
        ({"lexicon": 5}, "name of a file"),
        ({"lexicon": "absent.txt"}, r"cannot read the lexicon .*absent\.txt: No such file"),
        ({"lexicon": "folder"}, "cannot read the lexicon .*folder"),
        ({"lexicon": "empty.txt"}, "has no entries"),
        ({"lexicon": "latin.txt"}, r"latin\.txt:2: not UTF-8"),
        ({"lexicon": "star.txt"}, r"star\.txt:3: .* not a word or phrase"),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    tmp_path.joinpath("folder").mkdir()
    tmp_path.joinpath("empty.txt").write_text("# nothing\n\n")
    tmp_path.joinpath("latin.txt").write_bytes(b"fine\nf\xfcr\n")
    tmp_path.joinpath("star.txt").write_text("a\n# b\n*\n")
    with pytest.raises(ClassifierError, match=message):
        make(tmp_path, **options)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    tmp_path.joinpath("a.txt").write_text("idiot\nfool\n")
    tmp_path.joinpath("b.txt").write_text("# other\nfool\n\nidiot\n")
    one = make(tmp_path, lexicon="a.txt").fingerprint
    assert one.startswith("sha256:")
    assert make(tmp_path, lexicon="b.txt").fingerprint == one
    others = [
        make(words=["idiot"]),
        make(words=["idiot"], value=0.5),
        make(words=["idiot"], allow=["x"]),
        make(regex=["idiot"]),
    ]
    assert len({one, *(other.fingerprint for other in others)}) == 5


def test_threads_share_it() -> None:
    classifier = make(words=["idiot"], regex=["f[o0]+l"])
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: results.extend(found(classifier, "an 1d10t and a f00l") for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 200
    assert {json.dumps(result) for result in results} == {'["1d10t", "f00l"]'}
