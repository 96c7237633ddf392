"""Explanations of real policies: words in the original text, counterfactuals that hold, and three ways to show them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail.cli.app import app
from guardrail.cli.explain import explanation_view
from guardrail.engine import Guardrail
from guardrail.explain.explanation import Explanation
from guardrail.explain.page import as_html
from guardrail.policy import load_policy
from guardrail.settings import Settings
from guardrail.types import Action, Passage

RUDE = "Thanks for the report. You are a worthless idiot, and the meeting is on Tuesday."
POLICY = """
policy: p
classifiers:
  insult: {kind: linear}
  names: {kind: pattern, words: [frobnicator]}
rules:
  kindness: {description: "No <b>insults</b>.", weights: {insult: 1, names: 1}, combine: max, thresholds: {flag: 0.5, block: 0.9}}
"""


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guardrail:
    path = tmp_path_factory.mktemp("policies") / "p.yaml"
    path.write_text(POLICY)
    return Guardrail(load_policy(path), settings=Settings())


@pytest.fixture(scope="module")
def rude(guard: Guardrail) -> Explanation:
    return guard.explain(Passage(RUDE))


def test_the_words_are_those_of_the_original_and_add_up_to_a_reason(guard: Guardrail, rude: Explanation) -> None:
    decision = guard.check(RUDE)
    (rule,) = rude.rules
    assert (rude.action, rude.risk, rule.rule) == (decision.action, decision.risk, "kindness")
    assert dict(rule.contributions) == dict(decision.reasons[0].contributions)
    assert all(RUDE[slice(*word.span)] == word.text for word in rule.words)
    assert {"worthless", "idiot"} <= {word.text for word in rule.strongest[:3]}
    assert "Tuesday" not in [word.text for word in rule.strongest[:3]]


def test_the_counterfactual_holds(guard: Guardrail, rude: Explanation) -> None:
    found = rude.counterfactual
    assert found is not None
    assert guard.check(found.text).action <= Action.FLAG
    assert found.words == tuple(RUDE[slice(*span)] for span in found.spans)
    assert rude.note.startswith("would pass without “")
    for left in found.spans:  # every word that was taken out is needed
        others = [span for span in found.spans if span != left]
        text = RUDE
        for start, end in sorted(others, reverse=True):
            text = text[:start] + text[end:]
        assert guard.check(text).action > Action.FLAG


def test_a_disguised_word_is_found_in_the_original(guard: Guardrail) -> None:
    text = "Hello there. You w0rthless id\u200biot."
    one = guard.explain(Passage(text))
    assert one.rules
    assert "id\u200biot" in [word.text for word in one.rules[0].strongest[:3]]


def test_a_match_counts_with_its_words(guard: Guardrail) -> None:
    one = guard.explain(Passage("The new frobnicator arrived."))
    assert one.rules[0].strongest[0].text == "frobnicator"
    assert one.counterfactual is not None
    assert one.counterfactual.words == ("frobnicator",)


def test_harmless_and_empty_texts_have_nothing_to_explain(guard: Guardrail) -> None:
    for text in ("Good morning, all.", "", "\ud800", "123 456"):
        one = guard.explain(Passage(text))
        assert (one.rules, one.counterfactual, one.note) == ((), None, "no rule acted")


def test_a_classifier_that_fails_is_said_and_not_explained(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "policy: p\nclassifiers: {far: {kind: moderation_api, url: 'http://127.0.0.1:9', timeout: 200ms}}\n"
        "rules: {r: {weights: {far: 1}, thresholds: {flag: 0.5}}}\n"
    )
    one = Guardrail(load_policy(tmp_path / "p.yaml"), settings=Settings()).explain(Passage("hello"))
    assert "cannot be asked" in one.rules[0].error
    assert one.counterfactual is None


def test_the_page_stands_by_itself_and_escapes_everything(guard: Guardrail) -> None:
    one = guard.explain(Passage("<b>Hey</b>. You are a worthless idiot. <script>x</script> \u202e\ud800"))
    page = as_html([one, guard.explain(Passage("fine <i>day</i>"))])
    assert "<script" not in page
    assert "<b>insults</b>" not in page
    assert "<i>day" not in page
    assert "\u202e" not in page
    assert page.encode("utf-8")
    assert 'class="out"' in page
    assert "http" not in page


def test_the_terminal_shows_words_classifiers_and_the_counterfactual(rude: Explanation) -> None:
    from rich.console import Console

    console = Console(width=100, force_terminal=True, color_system="truecolor", file=io.StringIO())
    with console.capture() as capture:
        console.print(explanation_view(rude))
    shown = capture.get()
    assert "would pass without" in shown
    assert "insult" in shown
    assert "\x1b[" in shown


def run(*arguments: str, stdin: str = "") -> Any:
    return CliRunner().invoke(app, ["explain", *arguments], input=stdin)


def test_the_command_prints_json_writes_pages_and_exits_by_what_it_finds(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    done = run(RUDE, "--policy", "./p.yaml", "--json")
    assert done.exit_code == 1
    value = json.loads(done.stdout)
    assert set(value) == {"action", "risk", "rules", "counterfactual", "note"}
    assert value["rules"][0]["words"][0].keys() == {"span", "text", "relevance"}
    assert run("Good morning.", "--policy", "./p.yaml").exit_code == 0
    assert run("-", "--policy", "./p.yaml", "--html", "page.html", stdin=RUDE).exit_code == 1
    assert "idiot" in Path("page.html").read_text()
    assert run("x", "--policy", "./p.yaml", "--html", "no/such/folder.html").exit_code == 2
    Path("rows.jsonl").write_text(f'{{"text": "Good morning."}}\n{json.dumps({"text": RUDE})}\n')
    many = run("--input", "rows.jsonl", "--policy", "./p.yaml", "--json")
    assert [json.loads(line)["action"] for line in many.stdout.splitlines()] == ["allow", "block"]
    assert run("--policy", "./p.yaml").exit_code == 2
    checked = CliRunner().invoke(app, ["check", "--input", "rows.jsonl", "--policy", "./p.yaml", "--explain", "--json"])
    first, second = (json.loads(line) for line in checked.stdout.splitlines())
    assert "explanation" not in first
    assert second["explanation"]["note"].startswith("would pass without")
    shown = CliRunner().invoke(app, ["check", RUDE, "--policy", "./p.yaml", "--explain"]).stdout
    assert "would pass without" in shown
