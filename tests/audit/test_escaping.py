"""Any string fits into any database and comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guardrail.audit.escaping import MAX_IDENTIFIER, escape, identifier, name, unescape, unescape_json

any_text = st.text(alphabet=st.characters(codec=None, exclude_categories=[]), max_size=50)
troublesome = st.text(alphabet="\x00\x1a\ud800\udfffa0\x1b", max_size=20)


@given(any_text | troublesome)
def test_every_string_comes_back(text: str) -> None:
    assert unescape(escape(text)) == text


@given(any_text | troublesome)
def test_what_is_stored_is_what_databases_accept(text: str) -> None:
    stored = escape(text)
    assert "\x00" not in stored
    stored.encode("utf-8")


@given(troublesome, troublesome)
def test_unequal_strings_stay_unequal(first: str, second: str) -> None:
    assert (escape(first) == escape(second)) == (first == second)


def test_ordinary_text_is_stored_as_it_is() -> None:
    for text in ("", "plain", "👩‍👩‍👧", "می‌خواهم", "\u202ertl", "tab\t\n", "\\x00", "\ufffd"):
        assert escape(text) is text
        assert unescape(text) is text


def test_the_stored_form() -> None:
    assert escape("a\x00b\ud83d\x1a") == "a\x1a0000b\x1ad83d\x1a001a"


@given(st.text(alphabet="ab\x00\ud800", max_size=600))
def test_identifiers_are_short_and_equal_only_if_the_originals_are(text: str) -> None:
    assert len(identifier(text)) <= MAX_IDENTIFIER
    assert identifier(text) == name(text)
    assert identifier(text) != identifier(text + "c")
    if len(escape(text)) <= MAX_IDENTIFIER:
        assert unescape(identifier(text)) == text


def test_json_values_are_unescaped_throughout() -> None:
    stored = {escape("k\x00"): [escape("\ud800"), {"x": escape("\x1a")}, 1.5, None, True]}
    assert unescape_json(stored) == {"k\x00": ["\ud800", {"x": "\x1a"}, 1.5, None, True]}
