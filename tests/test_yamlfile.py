"""Hand-written YAML: plain values, the line of every key, and no way to do harm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import PolicyError
from guardrail.yamlfile import Mark, dotted, find, parse_yaml, read_yaml


def parse(text: str) -> Any:
    return parse_yaml(text, "f.yaml", PolicyError)[0]


def refused(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse(text)
    return caught.value


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "{a: no, b: yes, c: on, d: 1e-3, e: 012, f: 2026-01-02, g: 1:30, h: true, i: ~, j: 0x1F, k: .5, l: -3}"
    assert parse(text) == {
        "a": "no",
        "b": "yes",
        "c": "on",
        "d": 0.001,
        "e": 12,
        "f": "2026-01-02",
        "g": "1:30",
        "h": True,
        "i": None,
        "j": "0x1F",
        "k": 0.5,
        "l": -3,
    }


def test_nan_and_infinity_are_read_so_that_the_schema_can_refuse_them() -> None:
    values = parse("[.nan, .inf, -.Inf]")
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


def test_every_key_and_item_has_its_line() -> None:
    _, marks = parse_yaml("# top\na:\n  b: 1\n  c:\n    - x\n    - y\n", "f.yaml", PolicyError)
    assert {dotted(key): mark.line for key, mark in marks.items()} == {
        "": 2,
        "a": 2,
        "a.b": 3,
        "a.c": 4,
        "a.c[0]": 5,
        "a.c[1]": 6,
    }


def test_find_falls_back_to_the_nearest_key_above() -> None:
    marks = {(): Mark("f", 1), ("a",): Mark("f", 3)}
    assert find(marks, ("a", "b", 0)) == Mark("f", 3)
    assert find(marks, ("z",)) == Mark("f", 1)
    assert find({}, ("z",)) is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "stands twice; it was first given on line 1"),
        ("a:\n  - {x: 1, x: 2}\n", 2, "stands twice"),
        ("a: 1\n  b: 2\n", 2, "not valid YAML"),
        ("a: [1, 2\n", 2, "not valid YAML"),
        ("\tb: 1\n", 1, "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "tag"),
        ("a: !!binary aGk=\n", 1, "tag"),
        ("a: !!int abc\n", 1, "not int"),
        ("a: !!bool perhaps\n", 1, "not bool"),
        ("1: x\n", 1, 'put 1 in quotes: "1"'),
        ("? [a]\n: b\n", 1, "expected keys that are text"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge keys"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: *nothing\n", 1, "undefined alias"),
        ('a: 1\nb: "\\ud800"\n', 2, "half of a surrogate pair"),
        ('a: 1\n"\\udfff": 2\n', 2, "half of a surrogate pair"),
        ("a: 1\nb: \x07\n", 2, "character that YAML does not allow"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    error = refused(text)
    assert words in str(error)
    assert (error.file, error.line) == ("f.yaml", line)


def test_an_alias_bomb_is_stopped() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "expands to more than 50,000 values" in str(refused("\n".join(levels)))


def test_an_alias_inside_itself_is_stopped() -> None:
    assert "levels deep" in str(refused("a: &a [*a]"))


def test_a_plain_alias_is_fine() -> None:
    assert parse("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{b: " * 5_000, "- " * 30_000 + "x"])
def test_deep_nesting_is_stopped(text: str) -> None:
    refused(text)


def test_a_number_of_many_digits_is_refused() -> None:
    assert "not int" in str(refused("a: " + "9" * 10_000))


def test_a_file_starts_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: caf\xc3\xa9\r\nb: 1\r\n")
    read = read_yaml(path, PolicyError)
    assert read.data == {"a": "café", "b": 1}
    assert read.marks[("b",)].line == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"   \n# only a comment\n", "is empty"),
        (b"- a\n", "expected `key: value` lines at the top level; got a list"),
        (b"hello", "got 'hello'"),
        (b"\x7fELF\0\0\0", "binary"),
        (b"a: 1\nb: \xff\xfe\n", "not UTF-8"),
        (b"a: x\n" * 300_000, "expected at most 1,048,576"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        read_yaml(path, PolicyError)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(PolicyError) as caught:
        read_yaml(path, PolicyError)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("name", "words"), [("folder", "is a directory"), ("nothing.yaml", "no such file"), ("a\0b", "null byte")]
)
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(PolicyError, match=words):
        read_yaml(tmp_path / name, PolicyError)


def test_a_device_is_refused() -> None:
    with pytest.raises(PolicyError, match="not a regular file"):
        read_yaml(Path("/dev/zero"), PolicyError)
