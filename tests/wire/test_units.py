"""Texts to passages and verdicts back to texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guardrail.errors import ModerationError
from guardrail.types import Action, Decision, Passage, Rewrite, Stage, State
from guardrail.wire import documents
from guardrail.wire.json_schema import is_free_text
from guardrail.wire.pieces import Form, Piece
from guardrail.wire.units import REMOVED, JoinedUnit, Unit, unit_of


def decision(passage: Passage, text: str | None, edits: Any = ()) -> Decision:
    rewrite = Rewrite(passage.text, text, "redact", 1.0, 1.0, 0.0, edits=tuple(edits)) if text and edits else None
    return Decision(
        "d", Action.REDACT, State.REDACTED, 1.0, passage.stage, "p", "r", text, passage.text, rewrite=rewrite
    )


def settle(unit: Unit, change: dict[str, str | None]) -> Any:
    """Settle with the passages of these texts changed, the others left alone."""
    return unit.settle([decision(passage, change.get(passage.text, passage.text)) for passage in unit.passages])


def piece(text: str, form: Form = Form.TEXT, **more: Any) -> Piece:
    return Piece(("at",), text, Stage.OUTPUT, form, **more)


def test_prose_is_one_passage_and_code_another() -> None:
    unit = unit_of(piece("Look:\n```\nx = 1\n```\nDone."))
    assert [(passage.text, passage.editable) for passage in unit.passages] == [
        ("Look:\n", True),
        ("```\nx = 1\n```\n", False),
        ("Done.", True),
    ]
    assert settle(unit, {"Done.": "Over."}) == ["Look:\n```\nx = 1\n```\nOver."]
    assert settle(unit, {"```\nx = 1\n```\n": None}) is None
    assert settle(unit, {}) == ["Look:\n```\nx = 1\n```\nDone."]


def test_an_empty_text_is_nothing_to_judge() -> None:
    for form in Form:
        unit = unit_of(piece("", form))
        assert unit.passages == ()
        assert unit.settle([]) == [""]


class TestJson:
    def test_strings_and_keys_are_judged(self) -> None:
        unit = unit_of(piece('{"a": ["x", {"b": "y"}], "n": 1, "z": ""}', Form.JSON))
        assert [passage.text for passage in unit.passages] == ["x", "y", "a", "n", "z", "b"]
        assert [passage.editable for passage in unit.passages] == [True, True, False, False, False, False]

    def test_an_unchanged_text_stays_as_it_was_written(self) -> None:
        text = '{ "a" :\t"x" , "n": 1.0 }'
        assert settle(unit_of(piece(text, Form.JSON)), {}) == [text]

    def test_a_changed_string_leaves_the_rest(self) -> None:
        (text,) = settle(unit_of(piece('{"a": ["x", "y"], "n": null}', Form.JSON)), {"y": 'say "hi"\n'})
        assert json.loads(text) == {"a": ["x", 'say "hi"\n'], "n": None}

    def test_a_changed_key_withholds(self) -> None:
        assert settle(unit_of(piece('{"a": 1}', Form.JSON)), {"a": "b"}) is None

    def test_a_bare_string_is_json_too(self) -> None:
        assert settle(unit_of(piece('"x"', Form.JSON)), {"x": "y"}) == ['"y"']

    @pytest.mark.parametrize("text", ['{"a": "x', "not json", "[" * 5000])
    def test_what_is_not_json_is_judged_whole_and_never_repaired(self, text: str) -> None:
        unit = unit_of(piece(text, Form.JSON))
        assert [(passage.text, passage.editable) for passage in unit.passages] == [(text, False)]
        assert settle(unit, {}) == [text]
        assert settle(unit, {text: "other"}) is None

    def test_arguments_are_never_rewritten(self) -> None:
        unit = unit_of(piece('{"a": "x"}', Form.ARGUMENTS))
        assert not any(passage.editable for passage in unit.passages)
        assert settle(unit, {"x": "[…]"}) == ['{"a": "[…]"}']

    def test_many_strings_are_judged_in_packs(self) -> None:
        text = json.dumps([f"word {n}" for n in range(10_000)])
        unit = unit_of(piece(text, Form.JSON))
        assert len(unit.passages) <= 64
        assert all(f"word {n}" in "\n".join(p.text for p in unit.passages) for n in (0, 5_000, 9_999))
        assert settle(unit, {}) == [text]
        assert settle(unit, {unit.passages[3].text: "other"}) is None

    def test_a_schema_says_what_may_be_repaired(self) -> None:
        schema = {"properties": {"kind": {"enum": ["a", "b"]}, "text": {"type": "string"}}}
        unit = unit_of(piece('{"kind": "a", "text": "x"}', Form.JSON, schema=schema))
        assert [(passage.text, passage.editable) for passage in unit.passages] == [("a", False), ("x", True)]


class TestJoined:
    def pieces(self, *texts: str) -> JoinedUnit:
        return JoinedUnit([Piece(("messages", n, "content"), text, Stage.INPUT) for n, text in enumerate(texts)])

    def test_one_passage(self) -> None:
        unit = self.pieces("one", "two")
        assert [passage.text for passage in unit.passages] == ["one\ntwo"]
        assert settle(unit, {}) == ["one", "two"]
        assert settle(unit, {"one\ntwo": None}) is None

    def test_an_edit_inside_one_text_stays_there(self) -> None:
        unit = self.pieces("one", "two", "three")
        found = decision(unit.passages[0], "one\nTWO!\nthree", [((4, 7), "TWO!")])
        assert unit.settle([found]) == ["one", "TWO!", "three"]

    def test_an_edit_across_texts_gathers_them(self) -> None:
        unit = self.pieces("one", "two", "three")
        found = decision(unit.passages[0], "on-o\nthree", [((2, 6), "-")])
        assert unit.settle([found]) == ["on-o\nthree", REMOVED, REMOVED]

    def test_edits_that_do_not_give_the_text_are_not_trusted(self) -> None:
        unit = self.pieces("one", "two")
        assert unit.settle([decision(unit.passages[0], "other", [((0, 3), "ONE")])]) == ["other", REMOVED]


@pytest.mark.parametrize(
    ("schema", "path", "free"),
    [
        (None, ("a",), True),
        ({"properties": {"a": {"type": "string"}}}, ("a",), True),
        ({"properties": {"a": {"const": "x"}}}, ("a",), False),
        ({"properties": {"a": {"type": "string", "format": "date"}}}, ("a",), False),
        ({"properties": {"a": {"items": {"pattern": "^x"}}}}, ("a", 3), False),
        ({"properties": {"a": {"anyOf": [{"type": "string"}, {"enum": ["x"]}]}}}, ("a",), False),
        ({"$defs": {"N": {"maxLength": 3}}, "properties": {"a": {"$ref": "#/$defs/N"}}}, ("a",), False),
        ({"$defs": {"N": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/N"}}}, ("a",), True),
        ({"$ref": "#"}, ("a",), False),
        ({"$ref": "elsewhere.json"}, ("a",), False),
        ({"properties": {}}, ("unknown",), False),
        ({"additionalProperties": {"type": "string"}}, ("any",), True),
    ],
)
def test_which_strings_are_free(schema: Any, path: Any, free: bool) -> None:
    assert is_free_text(schema, path) is free


class TestDocuments:
    def test_places(self) -> None:
        document = {"a": [1, {"b": 2}]}
        documents.put(document, ("a", 1, "b"), 3)
        assert documents.get(document, ("a", 1, "b")) == 3

    def test_discarding_keeps_the_other_places_right(self) -> None:
        document = {"a": [0, 1, 2, 3, 4], "b": 1}
        documents.discard(document, [("a", 1), ("a", 3), ("b",), ("a", 1)])
        assert document == {"a": [0, 2, 4]}
        many = {"a": list(range(12))}
        documents.discard(many, [("a", 2), ("a", 10)])
        assert many == {"a": [0, 1, 3, 4, 5, 6, 7, 8, 9, 11]}

    def test_deep_documents_do_not_exhaust_the_stack(self) -> None:
        deep: Any = "leaf"
        for _ in range(50_000):
            deep = [deep]
        assert [text for _, text in documents.string_leaves(deep)] == ["leaf"]
        while isinstance(deep, list):
            deep = deep.pop()

    @pytest.mark.parametrize("text", [b"\xff", b"", b"{", b"[" * 100_000])
    def test_unreadable_json_is_a_clear_error(self, text: bytes) -> None:
        with pytest.raises(ModerationError, match="The answer is not JSON"):
            documents.parse(text, "The answer")
