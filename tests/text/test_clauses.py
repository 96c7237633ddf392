"""Clauses cover the sentence, in order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.text.clauses import clauses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "The report is late, you idiot, and the figures are wrong.",
            ["The report is late,", "you idiot,", "and the figures are wrong."],
        ),
        ("Restart it because you broke it", ["Restart it", "because you broke it"]),
        ("No, thanks", ["No, thanks"]),
        ("One clause only.", ["One clause only."]),
        ("它很好，但是你很笨", ["它很好，但是你很笨"]),
        ("", [""]),
        ("  \n ", [""]),
    ],
)
def test_boundaries(text: str, expected: list[str]) -> None:
    assert [text[start:end].strip() for start, end in clauses(text)] == expected


@given(st.text(alphabet="ab ,;:—(-.\n", max_size=60))
def test_clauses_cover_without_gap_or_overlap(text: str) -> None:
    spans = clauses(text)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert text[spans[0][0] : spans[-1][1]].strip() == text.strip()
