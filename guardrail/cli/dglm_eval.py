"""`guardrail dglm eval`: how well the rewriter repairs and continues, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from guardrail.cli.common import JsonOption, PolicyOption, console, emit_json, error_console, handled, note
from guardrail.errors import DataError

if TYPE_CHECKING:
    from guardrail.dglm.pipeline import Pipeline
    from guardrail.engine import Guardrail
    from guardrail.evaluate.bench import Bench

DATA = Path("../shared/data")


class Suite(StrEnum):
    """What is evaluated."""

    REPAIR = "repair"
    CONTINUATION = "continuation"
    COST = "cost"
    ALL = "all"


@handled
def evaluate(
    data: Annotated[Path, typer.Option("--data", help="Folder of the training data (see the recipe).")] = DATA,
    pairs: Annotated[
        Path | None, typer.Option(help="Rows with source and targets; default: ParaDetox of --data.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which rows; the suites take `test`.")] = "test",
    limit: Annotated[int, typer.Option(help="At most this many sentences, or prompts.", min=1)] = 300,
    policy: PolicyOption = None,
    samples: Annotated[Path | None, typer.Option(help="Write the rewrites here, one JSON per line.")] = None,
    suite: Annotated[
        Suite | None, typer.Option(help="Compare with baselines and published systems; default: a plain repair test.")
    ] = None,
    continuations: Annotated[int, typer.Option(help="Per prompt; 25 in the paper.", min=2, max=100)] = 8,
    reference: Annotated[
        bool, typer.Option("--reference", help="Also the paper's 250 steps with backward (slow; needs a network).")
    ] = False,
    judge_texts: Annotated[
        int, typer.Option(help="Texts per file that the judges of the suites are trained on, at most.", min=20)
    ] = 12_000,
    plots: Annotated[Path | None, typer.Option(help="Draw the curves of the suites into this folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Repair held-aside flagged sentences, continue prompts, and count the cost; judged by independent judges."""
    from guardrail.engine import Guardrail

    if not data.is_dir():
        raise DataError("there is no such folder; name the training data with --data", file=str(data))
    guard = Guardrail(policy)
    if suite is None:
        report = _plain(guard, data, pairs, split, limit, samples)
    else:
        from guardrail.evaluate.bench import Bench

        report = _suites(
            guard, Bench(_pipeline(guard), data, cap=judge_texts), pairs, limit, suite, continuations, reference
        )
        if plots is not None:
            from guardrail.evaluate.tradeoffs import plot_suites

            report["plots"] = [str(path) for path in plot_suites(report, plots)]
        _write_samples(report.get("repair", {}).get("with_people", {}).get("samples", []), samples)
    if as_json:
        emit_json(report)
    else:
        console.print_json(json.dumps(report))


def _plain(
    guard: Guardrail, data: Path, pairs: Path | None, split: str, limit: int, samples: Path | None
) -> dict[str, Any]:
    from guardrail.encoder import load_encoder
    from guardrail.evaluate.repair import evaluate_repair, read_cases, train_judge

    cases = read_cases(pairs or data / "pairs" / "paradetox.jsonl.gz", split, limit)
    note("training the independent judge ...")
    judge = train_judge(data)
    with Progress(console=error_console) as progress:
        task = progress.add_task("repairing", total=len(cases))
        report = evaluate_repair(
            guard, load_encoder(guard.settings.encoder), judge, cases, lambda: progress.advance(task)
        )
    _write_samples(report.pop("samples"), samples)
    return report


def _suites(
    guard: Guardrail, bench: Bench, pairs: Path | None, limit: int, suite: Suite, continuations: int, reference: bool
) -> dict[str, Any]:
    from guardrail.evaluate.continuation_suite import continuation_suite
    from guardrail.evaluate.repair_suite import cost_suite, repair_suite

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=error_console) as progress:
        bench.note = lambda what: note(f"{what} ...")
        advance = _advance(progress)
        chosen: dict[Suite, Callable[[], dict[str, Any]]] = {
            Suite.REPAIR: lambda: repair_suite(bench, guard, limit, pairs=pairs, advance=advance),
            Suite.CONTINUATION: lambda: continuation_suite(
                bench, limit, continuations, reference=reference, advance=advance
            ),
            Suite.COST: lambda: cost_suite(bench, advance),
        }
        run = list(chosen) if suite is Suite.ALL else [suite]
        figures = {part.value: chosen[part]() for part in run}
    name = guard.settings.rewriter.checkpoint
    return {"checkpoint": name, "sha256": bench.pipeline.sha256, "limit": limit, **figures}


def _pipeline(guard: Guardrail) -> Pipeline:
    from guardrail.dglm.pipeline import load_pipeline

    settings = guard.settings
    return load_pipeline(settings.rewriter.checkpoint, settings.encoder, settings.device)


def _advance(progress: Progress) -> Callable[[str, int], None]:
    """One line of the display per thing that is done."""
    tasks: dict[str, Any] = {}

    def advance(name: str, done: int) -> None:
        if name not in tasks:
            tasks[name] = progress.add_task(name, total=None)
        progress.advance(tasks[name], done)

    return advance


def _write_samples(rows: list[dict[str, Any]], path: Path | None) -> None:
    if path is not None:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf8")
