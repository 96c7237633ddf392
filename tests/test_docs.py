"""What the documents show works: their Python runs, their commands run, and no command is left out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail.audit.store import open_store
from guardrail.cli.app import COMMANDS, app
from guardrail.cli.scripted import ScriptedModel

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("quickstart", "clients", "commands", "explain"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(pages: list[Path], language: str) -> list[object]:
    found = []
    for page in pages:
        for place, (name, code) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8"))):
            if name == language:
                found.append(pytest.param(code, id=f"{page.stem}-{place}"))
    return found


def commands(pages: list[Path]) -> list[object]:
    """Every `guardrail ...` line of the shell blocks that needs no other machine; the demo has tests of its own."""
    lines = [line for block in blocks(pages, "sh") for line in block.values[0].splitlines()]  # type: ignore[attr-defined]
    shown = [line.split("  #")[0] for line in lines if line.startswith("guardrail ") and "openai/" not in line]
    shown = [line for line in shown if line != "guardrail demo"]
    return [pytest.param(line, id=line) for line in dict.fromkeys(shown)]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    with ScriptedModel(["Hello, and welcome.", "Good to see you."]) as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none-needed")
        yield model


@pytest.fixture
def documented_files(tmp_path: Path) -> None:
    """The files and the store that the commands on the pages read."""
    open_store("sqlite:///guardrail.sqlite").close()
    (tmp_path / "file.txt").write_text("Good morning, all.\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"text": "Good morning, all."}\n', encoding="utf-8")
    (tmp_path / "replies.txt").write_text("Good morning.\n", encoding="utf-8")
    (tmp_path / "policies").mkdir()
    for name, text in _BLOCK.findall((ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")):
        if name == "yaml":
            (tmp_path / "policies" / "book-club.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("code", blocks(OWN, "python"))
def test_python_on_the_pages_runs(code: str, scripted: ScriptedModel, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "<page>", "exec"), {"__name__": "page"})  # noqa: S102 - the pages are ours
    assert capsys.readouterr().out.strip()


@pytest.mark.usefixtures("documented_files")
@pytest.mark.parametrize("line", commands(OWN))
def test_commands_on_the_pages_run(line: str, tmp_path: Path) -> None:
    written, _, source = line.partition(" < ")
    stdin = (tmp_path / source).read_text(encoding="utf-8") if source else ""
    done = CliRunner().invoke(app, shlex.split(written)[1:], input=stdin)
    assert done.exit_code in {0, 1}, done.output


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"| `guardrail {name}` |" not in page] == []


def test_links_between_the_pages_lead_somewhere() -> None:
    broken = [
        (page.name, link)
        for page in PAGES
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert broken == []
