"""`guardrail explain`: why a text is flagged, word by word. Nothing is repaired and nothing is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guardrail.cli.common import (
    ConfigOption,
    ExitCode,
    InputError,
    InputOption,
    JsonOption,
    PolicyOption,
    console,
    emit_json,
    handled,
    note,
    open_guard,
    read_rows,
    read_text,
)
from guardrail.cli.training import progress
from guardrail.types import Action, Passage, Stage

if TYPE_CHECKING:
    from guardrail.explain.explanation import Explanation, RuleExplanation

__all__ = ["command", "explanation_view"]

_RED, _BLUE = (220, 60, 60), (60, 110, 220)
_LONGEST = 600  # characters shown around the stretch that is explained


@handled
def command(
    text: Annotated[str | None, typer.Argument(help="The text to explain; - reads it from stdin.")] = None,
    input_file: InputOption = None,
    policy: PolicyOption = None,
    stage: Annotated[Stage, typer.Option(help="Where in a conversation the text stands.")] = Stage.OUTPUT,
    context: Annotated[list[str] | None, typer.Option(help="An earlier turn; repeat it, oldest first.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the explanation as a page to this file.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a text, or every row of a file, is flagged: by which classifiers, by which words, and without which not.

    Exit status: 0 nothing found, 1 a rule acted, 2 usage or configuration, 3 a text could not be judged.
    """
    single = read_text(text, input_file)
    earlier = tuple(context or ())
    if single is not None:
        passages = [Passage(single, stage, earlier)]
    else:
        rows = read_rows(input_file) if input_file is not None else []
        passages = [Passage(row.text, stage, (*earlier, *row.context)) for row in rows]
    guard = open_guard(policy, config)
    found: list[Explanation] = []
    with progress("texts explained") as advance:
        for passage in passages:
            found.append(guard.explain(passage))
            advance(1)
    if html is not None:
        _write(html, found)
    for one in found:
        if as_json:
            emit_json(one.as_json())
        elif html is None:
            console.print(explanation_view(one))
    raise typer.Exit(_exit_code(found))


def _exit_code(found: list[Explanation]) -> ExitCode:
    if any(rule.error for one in found for rule in one.rules[:1]):
        return ExitCode.FAILURE
    return ExitCode.VIOLATION if any(one.action is not Action.ALLOW for one in found) else ExitCode.DONE


def _write(path: Path, found: list[Explanation]) -> None:
    from guardrail.explain.page import as_html

    try:
        path.write_text(as_html(found), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}.") from error
    note(f"written to {path}")


def explanation_view(one: Explanation) -> Group:
    """An explanation for the terminal: words coloured by how much they count, classifiers, and the counterfactual."""
    parts: list[RenderableType] = [
        Text.assemble(
            (f" {one.action.value.upper()} ", "bold reverse"), f"  risk {one.risk:.2f}  ·  {_shown(one.note)}"
        )
    ]
    if not one.rules:
        parts.append(Padding(Text(_shown(one.text[:_LONGEST])), (0, 2)))
    removed = one.counterfactual.spans if one.counterfactual else ()
    for rule in one.rules:
        heading = f"{rule.rule}: {rule.action.value} from {rule.threshold:.2f}, risk {rule.risk:.2f}"
        parts.append(Padding(Text(_shown(heading), style="bold"), (1, 0, 0, 2)))
        if rule.error:
            parts.append(Padding(Text(_shown(f"could not be judged: {rule.error}"), style="red"), (0, 4)))
            continue
        parts.append(Padding(_coloured(one.text, rule, set(removed)), (0, 4)))
        parts.append(Padding(_tables(rule), (0, 4)))
    return Group(*parts)


def _coloured(text: str, rule: RuleExplanation, removed: set[tuple[int, int]]) -> Text:
    from guardrail.explain.page import shade

    start, end = rule.span
    before = max(0, start - _LONGEST // 4)
    shown = Text(_shown(text[before : min(len(text), end + _LONGEST // 4)]))
    shown.stylize("dim", 0, start - before)
    shown.stylize("dim", end - before)
    strongest = max((abs(word.relevance) for word in rule.words), default=0.0)
    for word in rule.words:
        value = shade(word, strongest)
        if abs(value) >= 0.1:
            red, green, blue = (int(255 - abs(value) * (255 - part)) for part in (_RED if value > 0 else _BLUE))
            strike = " strike" if word.span in removed else ""
            style = f"black on rgb({red},{green},{blue}){strike}"
            shown.stylize(style, word.span[0] - before, word.span[1] - before)
    return shown


def _tables(rule: RuleExplanation) -> Table:
    table = Table(box=None, show_header=True, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("word", "adds", "classifier", "adds"):
        table.add_column(title, justify="right" if title == "adds" else "left", overflow="fold")
    words = [(_shown(word.text), f"{word.relevance:+.2f}") for word in rule.strongest[:6]]
    parts = sorted(rule.contributions.items(), key=lambda item: -abs(item[1]))[:6]
    for row in range(max(len(words), len(parts))):
        word = words[row] if row < len(words) else ("", "")
        name, value = parts[row] if row < len(parts) else ("", None)
        table.add_row(*word, _shown(name), "" if value is None else f"{value:+.2f}")
    return table


def _shown(text: str) -> str:
    from guardrail.cli.render import printable

    return printable(text)
