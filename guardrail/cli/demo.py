"""`guardrail demo`: the main job on real text, offline. The scenes are in `guardrail.cli.story`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from guardrail.cli.common import ExitCode, JsonOption, console, emit_json, handled, note
from guardrail.cli.render import because, before_and_after, printable, verdict
from guardrail.cli.story import Scene, Story, open_story
from guardrail.errors import ModerationError
from guardrail.types import Stage

if TYPE_CHECKING:
    from guardrail.audit.query import StoredDecision
    from guardrail.engine import Guardrail

__all__ = ["command"]

COMMUNITY = "demo"
FOLDER = "guardrail-demo"
PATIENCE = 300.0
"""Seconds for one rewrite: a busy or slow machine shows the same story, later."""

BURST = 0.03
"""Seconds of silence that end a burst of a stream."""


def _folder(wanted: Path | None) -> Path:
    """The folder for the demo's audit store: the wanted one, ./guardrail-demo, or a temporary one."""
    folder = wanted or Path(FOLDER)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError as error:
        if wanted is not None:
            raise ModerationError(f"{wanted}: the folder for the demo cannot be made: {error.strerror}") from error
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER}-"))


def _guard(store: Path, policy: str) -> Guardrail:
    """An engine on what is shipped alone: no settings file, no variable changes the demo."""
    from guardrail.engine import Guardrail
    from guardrail.settings import AuditSettings, RewriterSettings, Settings

    settings = Settings(
        policy=policy,
        policies=(),
        audit=AuditSettings(url=f"sqlite:///{store}"),
        rewriter=RewriterSettings(timeout=PATIENCE),
    )
    return Guardrail(policy, settings=settings, community=COMMUNITY)


# --------------------------------------------------------------------------------------------------------- showing


def _said(who: str, words: str, style: str = "") -> Table:
    line = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    line.add_column(width=8, style="bold")
    line.add_column(overflow="fold")
    line.add_row(who, Text(printable(words), style=style))
    return line


def _show(scene: Scene) -> None:
    console.print(_said("user", scene.user))
    if scene.model is None:
        console.print(_said("model", "(never asked)", "dim"))
    elif scene.model != scene.reader:
        console.print(_said("model", scene.model, "dim"))
    console.print(_said("reader", scene.reader, "green"))
    _show_decisions(scene)


def _show_decisions(scene: Scene) -> None:
    """What was decided; a question that no rule minds is not worth a line."""
    for decision in scene.decisions:
        if not decision.reasons and (decision.stage is Stage.INPUT or len(scene.decisions) > 2):
            continue
        shown = before_and_after(decision, candidates=4) if decision.rewrite else verdict(decision)
        console.print(Padding(shown, (0, 0, 0, 9)))
        for reason in decision.reasons[:1]:
            console.print(Padding(because(reason), (0, 0, 0, 11)))


def _title(number: int, title: str) -> None:
    console.print()
    console.print(Rule(Text(f"{number}  {title}", style="bold"), align="left", style="dim"))


class _Live:
    """Prints what a reader of a stream gets, as it comes: one line for each burst, with its time."""

    def __init__(self) -> None:
        self._last: float | None = None

    def __call__(self, at: float, words: str) -> None:
        new_burst = self._last is None or at - self._last > BURST
        if new_burst:
            before = "" if self._last is None else "\n"
            console.print(Text.assemble(before, (f"reader   {at:5.2f} s  ", "dim")), end="")
            words = words.lstrip()
        console.print(Text(printable(words), style="green"), end="", soft_wrap=True)
        self._last = at


def _show_stream_times(scene: Scene) -> None:
    facts = scene.facts
    line = (
        f"The model spoke from {facts['model_first_word_s']:.2f} s to {facts['model_last_word_s']:.2f} s; "
        f"the reader's first sentence came at {facts['reader_first_text_s']:.2f} s, once it was cleared."
    )
    console.print(Padding(Text(line, style="dim"), (0, 0, 0, 9)))


def _show_record(rows: list[StoredDecision], chain: dict[str, Any], store: Path) -> None:
    from guardrail.cli.audit import decisions_table

    console.print(decisions_table(rows))
    state = "every row is as it was written" if chain["ok"] else "the chain is broken"
    console.print(
        Text(
            f"Hash chain of {chain['decisions']} decisions verified: {state}.", style="green" if chain["ok"] else "red"
        )
    )
    console.print(Text(f"Read on: guardrail audit list --url sqlite:///{store}", style="dim"))


# --------------------------------------------------------------------------------------------------------- playing


def _scenes(story: Story, as_json: bool) -> Iterator[Scene]:
    plays = (story.harmless, story.refused, story.repaired)
    for number, play in enumerate(plays, start=1):
        scene = play()
        if not as_json:
            _title(number, scene.title)
            _show(scene)
        yield scene
    yield story.streamed(lambda _at, _words: None) if as_json else _stream(story)


def _stream(story: Story) -> Scene:
    """The fourth scene, shown while it happens."""
    _title(4, "A streamed reply is held, repaired and released")
    console.print(_said("user", story.question))
    scene = story.streamed(_Live())
    console.print()
    console.print(_said("model", scene.model or "", "dim"))
    _show_decisions(scene)
    _show_stream_times(scene)
    return scene


def _record(guard: Guardrail, since: datetime) -> tuple[list[StoredDecision], dict[str, Any]]:
    page = guard.audit.list(community=COMMUNITY, since=since, limit=100)
    found = guard.audit.verify(COMMUNITY)
    return list(page.items), {"ok": found.ok, "decisions": found.decisions}


@handled
def command(
    folder: Annotated[
        Path | None, typer.Option("--folder", help=f"Where the demo's audit store goes; default: ./{FOLDER}.")
    ] = None,
    policy: Annotated[str, typer.Option("--policy", "-p", help="The shipped policy to play it under.")] = "general",
    as_json: JsonOption = False,
) -> None:
    """Show the main job on real text, offline: input check, rewrite, held stream, and the record of all of it.

    Exit status: 0 it went as it is meant to, 3 it did not; the last lines say where.
    """
    store = _folder(folder) / "audit.sqlite"
    since = datetime.now(UTC)
    note(f"Decisions go to {store}. Loading the models takes a few seconds.")
    with _guard(store, policy) as guard:
        with open_story(guard) as story:
            scenes = list(_scenes(story, as_json))
        rows, chain = _record(guard, since)
    recorded = {row.id for row in rows} >= {one.id for scene in scenes for one in scene.decisions}
    astray = [scene.title for scene in scenes if not scene.came_true]
    astray += [] if recorded and chain["ok"] else ["The record"]
    if as_json:
        emit_json(
            {
                "ok": not astray,
                "store": store,
                "scenes": [scene.as_json() for scene in scenes],
                "record": {**chain, "rows": rows},
            },
            indent=2,
        )
    else:
        _title(5, "Every decision is on record")
        _show_record(rows, chain, store)
    for title in astray:
        note(f"Not as it is meant to go: {title}")
    if astray:
        raise typer.Exit(ExitCode.FAILURE)
