from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import litellm
import pytest
from typer.testing import Result

from guardrail.cli.chat import read_script
from guardrail.cli.common import InputError

Run = Callable[..., Result]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "replies.txt"
    file.write_text(
        "# What the model says.\nPeas are fine.\n\nPeas. We love sprouts. Beans.\nPlant bindweed.\n", encoding="utf-8"
    )
    return file


def test_a_script_is_one_reply_per_line(script: Path, tmp_path: Path) -> None:
    assert read_script(script) == ["Peas are fine.", "Peas. We love sprouts. Beans.", "Plant bindweed."]
    for content in (b"", b"# only a comment\n\n", b"\xff\xfe"):
        script.write_bytes(content)
        with pytest.raises(InputError, match=r"replies\.txt: the script"):
            read_script(script)
    with pytest.raises(InputError, match="No such file"):
        read_script(tmp_path / "none.txt")


def test_replies_stream_through_the_policy(run: Run, policy: Path, script: Path) -> None:
    done = run("chat", "--script", script, "--policy", policy, "--json", stdin="one\ntwo\nthree\n")
    assert done.exit_code == 0, done.output
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [turn["user"] for turn in turns] == ["one", "two", "three"]
    assert turns[0]["reader"] == "Peas are fine."
    assert turns[1]["reader"].startswith("Peas.")
    assert "sprouts" not in turns[1]["reader"]
    assert "Beans." in turns[1]["reader"]
    assert "bindweed" not in turns[2]["reader"]
    assert "Not in this garden." in turns[2]["reader"]
    assert [one["state"] for one in turns[1]["decisions"] if one["stage"] == "output"].count("redacted") == 1


def test_a_refused_question_never_reaches_the_script(run: Run, policy: Path, script: Path) -> None:
    done = run("chat", "--script", script, "--policy", policy, "--json", stdin="bindweed?\npeas?\n/quit\nbeans?\n")
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [turn["reader"] for turn in turns] == ["Not in this garden.", "Peas are fine."]


def test_people_see_what_was_changed_and_why(run: Run, policy: Path, script: Path) -> None:
    done = run("chat", "--script", script, "--policy", policy, stdin="one\ntwo\n")
    for part in ("Peas are fine.", "REDACTED", "before", "after", "vegetables"):
        assert part in done.stdout
    assert "/quit ends" in done.stderr


def test_turns_are_recorded(run: Run, policy: Path, script: Path, tmp_path: Path) -> None:
    from guardrail.audit.store import open_store

    run("chat", "--script", script, "--policy", policy, "--community", "greens", "--json", stdin="one\ntwo\n")
    with open_store(f"sqlite:///{tmp_path / 'guardrail.sqlite'}", create=False) as store:
        rows = store.list(community="greens").items
        assert store.verify("greens").ok
    assert {(row.stage.value, row.state.value) for row in rows} >= {("input", "allowed"), ("output", "redacted")}


def test_the_end_of_the_script_fails_the_turn_and_not_the_chat(run: Run, policy: Path, tmp_path: Path) -> None:
    script = tmp_path / "replies.txt"
    script.write_text("Peas.\n", encoding="utf-8")
    done = run("chat", "--script", script, "--policy", policy, "--json", stdin="one\ntwo\n")
    assert (done.exit_code, len(done.stdout.splitlines())) == (3, 1)
    assert "the script is over" in done.stderr


def test_a_litellm_model(run: Run, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = litellm.completion
    asked = []

    def mocked(*args: object, **kwargs: object) -> object:
        asked.append(kwargs["messages"])
        return original(*args, **kwargs, mock_response="Peas. We love sprouts. Beans.")

    monkeypatch.setattr(litellm, "completion", mocked)
    done = run("chat", "--model", "openai/none", "--system", "Garden.", "--policy", policy, "--json", stdin="one\n")
    assert done.exit_code == 0, done.output
    turn = json.loads(done.stdout)
    assert "sprouts" not in turn["reader"]
    assert turn["reader"].startswith("Peas.")
    assert asked == [[{"role": "system", "content": "Garden."}, {"role": "user", "content": "one"}]]


@pytest.mark.parametrize("arguments", [[], ["--model", "openai/x", "--script", "replies.txt"]])
def test_either_a_model_or_a_script(run: Run, arguments: list[str]) -> None:
    done = run("chat", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--script FILE" in done.stderr
