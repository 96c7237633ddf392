"""`guardrail heads train`: linear heads, or the tuned network, from labelled texts or from a few examples."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.common import JsonOption, emit_json, error_console, handled, note
from guardrail.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from guardrail.evaluate.data import LabelledText
    from guardrail.learn.embeddings import Advance
    from guardrail.learn.tuned import Progress

__all__ = [
    "DataOption",
    "DeviceOption",
    "EncoderOption",
    "ResamplesOption",
    "SeedOption",
    "Tier",
    "progress",
    "train",
]

PROGRESS_AFTER = 2.0  # seconds


class Tier(StrEnum):
    """What gives the score of a label."""

    LINEAR = "linear"
    TUNED = "tuned"


DataOption = Annotated[
    list[Path],
    typer.Option("--data", "-d", help="Labelled JSON lines (.jsonl, .jsonl.gz) or a folder of them; repeat it."),
]
EncoderOption = Annotated[str, typer.Option("--encoder", help="A sentence-transformers model's name or folder.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of every draw.")]
ResamplesOption = Annotated[int, typer.Option("--resamples", min=0, help="Bootstrap resamples for the intervals.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for NAME.safetensors, NAME.md and metrics.json.")]
TrainingDataOption = Annotated[
    list[Path] | None,
    typer.Option("--data", "-d", help="Labelled JSON lines (.jsonl, .jsonl.gz) or a folder of them; repeat it."),
]
ExamplesOption = Annotated[
    Path | None,
    typer.Option("--examples", help="5 to 50 texts on each side (.yaml or .jsonl): one head; --data then measures it."),
]
HeadOption = Annotated[list[str] | None, typer.Option("--head", help="A label to learn; repeat it. Default: all.")]
SourcesOption = Annotated[
    Path | None, typer.Option("--sources", help="YAML: source to a line on its origin and licence, for the cards.")
]
CacheOption = Annotated[Path | None, typer.Option("--cache", help="Folder that keeps embeddings between runs.")]
TierOption = Annotated[
    Tier, typer.Option("--tier", help="linear: one head for each label. tuned: one network for all labels.")
]
WorkOption = Annotated[
    Path | None, typer.Option("--work", help="tuned: folder for checkpoints; a run goes on from them.")
]
SecondsOption = Annotated[
    float | None, typer.Option("--seconds", min=1, help="tuned: stop after so long; run again to go on.")
]
StartOption = Annotated[
    Path | None, typer.Option("--start", help="tuned: a network (heads.safetensors) to go on from.")
]


@contextmanager
def progress(description: str) -> Iterator[Advance]:
    """A counter on stderr that appears only when the work takes longer than two seconds."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed}"), TimeElapsedColumn())
    bar = Progress(*columns, console=error_console, transient=True)
    task = bar.add_task(description, total=None)
    start = time.monotonic()

    def advance(count: int) -> None:
        bar.advance(task, count)
        if not bar.live.is_started and time.monotonic() - start > PROGRESS_AFTER:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()


@dataclass(frozen=True, slots=True)
class _Run:
    """What both tiers are told: the rows, the labels that are wanted, where it all goes."""

    rows: list[LabelledText]
    heads: Sequence[str]
    known: Sequence[str]
    out: Path
    encoder: str
    device: str
    seed: int
    resamples: int
    as_json: bool
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command line, for headers and cards."""
        return shlex.join(["guardrail", *sys.argv[1:]])


@handled
def train(
    out: OutOption,
    data: TrainingDataOption = None,
    examples: ExamplesOption = None,
    head: HeadOption = None,
    sources: SourcesOption = None,
    cache: CacheOption = None,
    encoder: EncoderOption = "all-MiniLM-L6-v2",
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    resamples: ResamplesOption = 1_000,
    tier: TierOption = Tier.LINEAR,
    work: WorkOption = None,
    seconds: SecondsOption = None,
    start: StartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train calibrated heads from labelled texts, with a model card."""
    from guardrail.evaluate.data import read_many
    from guardrail.learn.session import read_origins

    if examples is not None:
        from guardrail.cli.teach import train_from_examples

        train_from_examples(examples, head or [], data or [], out, encoder, device, as_json)
        return
    if not data:
        raise DataError("there is nothing to learn from; give labelled texts (--data) or a few examples (--examples)")
    rows = read_many(data)
    known = sorted({name for row in rows for name in row.labels})
    _refuse_unknown(head or (), known)
    origins = read_origins(sources) if sources is not None else {}
    run = _Run(rows, head or [], known, out, encoder, device, seed, resamples, as_json, origins)
    if tier is Tier.TUNED:
        _train_tuned(run, work or out / "work", seconds, start)
    else:
        _train_linear(run, cache)


def _train_linear(run: _Run, cache: Path | None) -> None:
    """Make a head for each label that can be learned, with its card; at least one, or all that are wanted."""
    from guardrail.learn.session import HeadTraining

    with progress("texts embedded") as advance:
        session = HeadTraining.prepare(run.rows, run.encoder, run.device, cache, run.seed, advance)
    run.out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {}
    for name in run.heads or run.known:
        try:
            summary[name] = session.make(name, run.out, run.origins, run.command, run.resamples)
        except DataError as error:
            if run.heads:
                raise
            note(f"{name}: left out. {error}")
            continue
        note(f"{name}: AUROC {summary[name]['auroc']}, written to {run.out / name}.safetensors")
    if not summary:
        raise DataError(f"no label of these rows can be learned; they hold {', '.join(run.known) or 'none'}")
    session.write_summary(run.out, summary)
    if run.as_json:
        emit_json(summary)


def _train_tuned(run: _Run, work: Path, seconds: float | None, start: Path | None) -> None:
    """Go on with the run in `work`; once it is finished, write network, card and figures."""
    from guardrail.encoder import load_encoder
    from guardrail.learn.tuned_card import render_tuned
    from guardrail.learn.tuned_measures import write_figures
    from guardrail.learn.tuned_session import TunedSession

    deadline = time.monotonic() + seconds if seconds is not None else float("inf")
    loaded = load_encoder(run.encoder, run.device)
    session = TunedSession(run.rows, loaded, work, run.seed, heads=run.heads, start=start)
    with progress(f"of {session.training.steps} steps") as advance:
        before = session.training.step
        advance(before)

        def report(now: Progress) -> None:
            nonlocal before
            advance(now.step - before)
            before = now.step

        done = session.run(deadline, report)
    if not done.finished:
        note(f"{done.step} of {done.steps} steps done, kept in {work}; run the same command again to go on")
        if run.as_json:
            emit_json({"finished": False, "step": done.step, "steps": done.steps})
        return
    run.out.mkdir(parents=True, exist_ok=True)
    network = run.out / "heads.safetensors"
    figures = session.finish(network, run.command, run.resamples)
    write_figures(run.out / "metrics.json", figures, loaded, run.command, run.seed)
    (run.out / "README.md").write_text(render_tuned(figures, session.drawn, run.origins, network), encoding="utf-8")
    note(f"{len(figures)} labels, written to {network}")
    if run.as_json:
        emit_json({"finished": True, **{name: each.as_json() for name, each in figures.items()}})


def _refuse_unknown(wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise DataError(f"no row has the label {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}")
