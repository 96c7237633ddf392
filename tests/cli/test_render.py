from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from guardrail.cli.render import bar, before_and_after, decision_view, printable, quoted
from guardrail.types import Action, Candidate, Decision, Reason, Rewrite, Stage, State

DRAFT = "Thanks. You are a fool. See you."
REASON = Reason("harassment", Stage.OUTPUT, Action.REWRITE, 0.91, 0.6, {"insult": 2.1, "toxicity": 0.4}, ((8, 24),))


def decision(**changes: object) -> Decision:
    fields = {
        "id": "d1", "action": Action.REWRITE, "state": State.REWRITTEN, "risk": 0.91, "stage": Stage.OUTPUT,
        "policy": "general", "revision": "sha256:abcdef0123456789", "text": "Thanks. See you.", "source": DRAFT,
        "rules": {"harassment": 0.91, "sexual": 0.02}, "reasons": (REASON,),
    }  # fmt: skip
    return Decision(**{**fields, **changes})  # type: ignore[arg-type]


def shown(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\x00", "\r", "\x7f", "\x9b", "\u202e", "\u2066", "\ud800"])
def test_nothing_of_a_text_can_steer_the_terminal(character: str) -> None:
    text = f"a{character}b"
    assert character not in printable(text)
    assert len(printable(text)) == len(text)
    assert character not in shown(quoted(text))


def test_ordinary_text_of_any_script_is_shown_as_it_is() -> None:
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
    text = f"na\u00efve \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u65e5\u672c {family}\n\ttab"
    assert printable(text) == text


def test_spans_are_highlighted_where_they_are() -> None:
    marked = quoted("\x1b" + DRAFT, [(9, 25)])
    assert [(span.start, span.end) for span in marked.spans] == [(9, 25)]


def test_a_long_text_is_cut_and_says_so() -> None:
    assert "998,000 more characters" in shown(quoted("x" * 1_000_000, [(0, 1_000_000)]))
    assert "(empty)" in shown(quoted(""))


@pytest.mark.parametrize(("risk", "full"), [(0.0, 0), (0.5, 10), (1.0, 20), (1.5, 20), (-1.0, 0)])
def test_bar(risk: float, full: int) -> None:
    assert bar(risk, "red").plain == "█" * full + "░" * (20 - full)


def test_a_decision_says_what_was_found_and_why() -> None:
    printed = shown(decision_view(decision(failures={"judge": "timed out"}, note="rewritten once")))
    parts = (
        *(
            " REWRITE ",
            "0.91",
            "harassment",
            "rewrite (from 0.60)",
            "insult +2.10",
            "You are a fool.",
            "sexual",
            "nothing",
        ),
        *("general sha256:abcdef0", "judge could not score this text: timed out", "rewritten once"),
    )
    for part in parts:
        assert part in printed
    assert printed.index("harassment") < printed.index("sexual")


def test_a_rewrite_shows_before_after_and_the_candidates() -> None:
    candidates = (
        Candidate("Thanks. See you.", "dglm", 0.05, True, 0.8),
        Candidate("Thanks, fool.", "dglm", 0.7, False, 0.9),
    )
    rewrite = Rewrite(DRAFT, "Thanks. See you.", "dglm", 0.8, 0.91, 0.05, candidates)
    printed = shown(before_and_after(decision(rewrite=rewrite)))
    assert "before" in printed
    assert "after" in printed
    assert "1 of 2 candidates passed" in printed
    assert "Thanks. See you." in printed


def test_a_withheld_text_shows_the_refusal() -> None:
    printed = shown(before_and_after(decision(state=State.BLOCKED, text=None, refusal="I cannot share that.")))
    assert "BLOCKED" in printed
    assert "I cannot share that." in printed
