from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from guardrail.cli import story
from guardrail.cli.demo import _folder

Run = Callable[..., Result]


def test_the_story_in_json(run: Run, tmp_path: Path) -> None:
    done = run("demo", "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 0, done.stderr
    assert told["ok"] is True
    harmless, refused, repaired, streamed = told["scenes"]

    assert harmless["reader"] == harmless["model"]

    assert refused["model"] is None
    assert refused["model_calls"] == 0
    assert [(one["stage"], one["state"]) for one in refused["decisions"]] == [("input", "blocked")]

    (draft,) = [one for one in repaired["decisions"] if one["stage"] == "output"]
    assert (draft["state"], draft["method"]) == ("rewritten", "dglm")
    assert draft["risk_after"] < 0.4 < 0.6 <= draft["risk_before"]
    assert any(one["passes"] for one in draft["candidates"])  # all eight may agree on one text
    assert story.FLAGGED not in repaired["reader"]
    assert repaired["reader"].startswith("Your essay makes two good points.")
    assert "The last paragraph needs a source." in repaired["reader"]

    assert story.HELD not in streamed["reader"]
    assert streamed["reader"].startswith(story.HELD_REPLY.split(".")[0])
    assert streamed["reader_first_text_s"] < streamed["model_last_word_s"], (
        "sentences go out while the model still speaks"
    )

    recorded = {row["id"] for row in told["record"]["rows"]}
    assert recorded == {one["id"] for scene in told["scenes"] for one in scene["decisions"]}
    assert told["record"]["ok"] is True
    assert (tmp_path / "guardrail-demo" / "audit.sqlite").is_file()


def test_people_see_five_scenes(run: Run) -> None:
    done = run("demo")
    assert done.exit_code == 0, done.stderr
    for part in (
        *("1  A harmless turn passes", "2  An input check refuses", "(never asked)", "3  A flagged draft is rewritten"),
        *(
            "before",
            "after",
            "candidates passed",
            "4  A streamed reply is held",
            "5  Every decision is on record",
            "verified",
        ),
    ):
        assert part in done.stdout
    assert "guardrail-demo/audit.sqlite" in done.stderr.replace("\n", "")


def test_a_story_that_goes_astray_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "FLAGGED_REPLY", "Your essay is fine.")
    monkeypatch.setattr(story, "PAUSE", 0.0)
    done = run("demo", "--json", "--folder", "else/where")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"]) == (3, False)
    assert told["store"] == "else/where/audit.sqlite"
    assert [scene["came_true"] for scene in told["scenes"]] == [True, True, False, True]
    assert "Not as it is meant to go: A flagged draft is rewritten" in done.stderr


def test_where_no_folder_can_be_made_a_temporary_one_is_used(tmp_path: Path) -> None:
    (tmp_path / "guardrail-demo").write_text("in the way", encoding="utf-8")
    folder = _folder(None)
    assert folder.is_dir()
    assert folder.name.startswith("guardrail-demo-")
    folder.rmdir()


def test_a_wanted_folder_that_cannot_be_made_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = run("demo", "--folder", tmp_path / "file" / "below")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "cannot be made" in done.stderr
