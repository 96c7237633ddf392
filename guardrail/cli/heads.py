"""`guardrail heads train|eval|list`: make, measure and list the linear heads."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from guardrail.cli.common import JsonOption, console, emit_json, error_console, handled, note
from guardrail.cli.teach import trihash
from guardrail.errors import ClassifierError, DataError, did_you_mean

if TYPE_CHECKING:
    from guardrail.evaluate.data import LabelledText
    from guardrail.evaluate.heads import HeadReport
    from guardrail.evaluate.metrics import Estimate
    from guardrail.learn.embeddings import Advance
    from guardrail.learn.tuned import Progress
    from guardrail.policy.bundle import LinearHead

__all__ = ["Tier", "app", "heads_of", "of_split", "progress"]

app = typer.Typer(help="Train, evaluate and list classifier heads.", no_args_is_help=True, rich_markup_mode=None)
app.command("trihash")(trihash)

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


@app.command("train")
@handled
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for NAME.safetensors, NAME.md and metrics.json.")],
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", "-d", help="Labelled JSON lines (.jsonl, .jsonl.gz) or a folder of them; repeat it."),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            "--examples", help="5 to 50 texts on each side (.yaml or .jsonl): one head; --data then measures it."
        ),
    ] = None,
    head: Annotated[list[str] | None, typer.Option("--head", help="A label to learn; repeat it. Default: all.")] = None,
    sources: Annotated[
        Path | None, typer.Option("--sources", help="YAML: source to a line on its origin and licence, for the cards.")
    ] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder that keeps embeddings between runs.")] = None,
    encoder: EncoderOption = "all-MiniLM-L6-v2",
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    resamples: ResamplesOption = 1_000,
    tier: Annotated[
        Tier, typer.Option("--tier", help="linear: one head for each label. tuned: one network for all labels.")
    ] = Tier.LINEAR,
    work: Annotated[
        Path | None, typer.Option("--work", help="tuned: folder for checkpoints; a run goes on from them.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1, help="tuned: stop after so long; run again to go on.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train calibrated heads from labelled texts, with a model card."""
    from guardrail.evaluate.data import read_many
    from guardrail.learn.session import HeadTraining, read_origins

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
    if tier is Tier.TUNED:
        _train_tuned(
            rows, head or [], out, origins, work or out / "work", encoder, device, seed, resamples, seconds, as_json
        )
        return
    with progress("texts embedded") as advance:
        session = HeadTraining.prepare(rows, encoder, device, cache, seed, advance)
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {}
    for name in head or known:
        try:
            summary[name] = session.make(name, out, origins, shlex.join(["guardrail", *sys.argv[1:]]), resamples)
        except DataError as error:
            if head:
                raise
            note(f"{name}: left out. {error}")
            continue
        note(f"{name}: AUROC {summary[name]['auroc']}, written to {out / name}.safetensors")
    if not summary:
        raise DataError(f"no label of these rows can be learned; they hold {', '.join(known) or 'none'}")
    session.write_summary(out, summary)
    if as_json:
        emit_json(summary)


def _train_tuned(
    rows: list[LabelledText],
    heads: list[str],
    out: Path,
    origins: Mapping[str, str],
    work: Path,
    encoder: str,
    device: str,
    seed: int,
    resamples: int,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Go on with the run in `work`; once it is finished, write network, card and figures to `out`."""
    from guardrail.encoder import load_encoder
    from guardrail.learn.tuned_card import render_tuned
    from guardrail.learn.tuned_session import TunedSession, write_figures

    deadline = time.monotonic() + seconds if seconds is not None else float("inf")
    loaded = load_encoder(encoder, device)
    session = TunedSession(rows, loaded, work, seed, heads=heads)
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
        if as_json:
            emit_json({"finished": False, "step": done.step, "steps": done.steps})
        return
    out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["guardrail", *sys.argv[1:]])
    figures = session.finish(out / "heads.safetensors", command, resamples)
    write_figures(out / "metrics.json", figures, loaded, command, seed)
    card = render_tuned(figures, session.drawn, origins, out / "heads.safetensors")
    (out / "README.md").write_text(card, encoding="utf-8")
    note(f"{len(figures)} labels, written to {out / 'heads.safetensors'}")
    if as_json:
        emit_json({"finished": True, **{name: each.as_json() for name, each in figures.items()}})


def _refuse_unknown(wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise DataError(f"no row has the label {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}")


@app.command("eval")
@handled
def evaluate(
    data: DataOption,
    head: Annotated[
        list[str] | None, typer.Option("--head", help="A head to measure; repeat it. Default: all.")
    ] = None,
    heads: Annotated[Path | None, typer.Option("--heads", help="Folder of heads; default: the shipped ones.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only rows of this split: train, dev or test.")] = None,
    encoder: EncoderOption = "all-MiniLM-L6-v2",
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    resamples: ResamplesOption = 1_000,
    as_json: JsonOption = False,
) -> None:
    """Measure heads on labelled texts: AUROC, AUPRC, recall at 1% false positives and calibration, with intervals."""
    from guardrail.encoder import load_encoder
    from guardrail.evaluate.data import read_many
    from guardrail.evaluate.heads import evaluate_heads

    chosen = heads_of(heads, head)
    rows = of_split(read_many(data), split)
    with progress("texts embedded") as advance:
        reports = evaluate_heads(
            rows, chosen, load_encoder(encoder, device), resamples=resamples, seed=seed, advance=advance
        )
    if as_json:
        emit_json({name: report.as_json() for name, report in reports.items()})
    else:
        console.print(_table(reports))


def of_split(rows: list[LabelledText], split: str | None) -> list[LabelledText]:
    """The rows of one split, or all of them.

    Raises:
        DataError: there is none of that split.
    """
    if split is None:
        return rows
    kept = [row for row in rows if row.split == split]
    if not kept:
        present = sorted({row.split for row in rows})
        raise DataError(f"no row is of the split {split!r}; there are {', '.join(present)}")
    return kept


def heads_of(folder: Path | None, wanted: list[str] | None) -> Mapping[str, LinearHead]:
    """The heads of a folder (default: the shipped ones), or those of them that are wanted.

    Raises:
        ClassifierError: the folder holds none, or not the wanted one.
    """
    from guardrail.classifiers.linear import SHIPPED, read_head

    place = folder or SHIPPED
    found = {path.stem: path for path in sorted(place.glob("*.safetensors"))}
    if not found:
        raise ClassifierError(f"{place} holds no heads (*.safetensors); train some with: guardrail heads train")
    for name in wanted or ():
        if name not in found:
            raise ClassifierError(
                f"there is no head {name!r}; there are {', '.join(found)}.{did_you_mean(name, found)}"
            )
    return {name: read_head(found[name]) for name in wanted or found}


def _table(reports: Mapping[str, HeadReport]) -> Table:
    columns = ("head", "rows", "positive", "AUROC", "AUPRC", "recall at 1% FPR", "calibration error", "Brier")
    table = Table(*columns, box=None, caption="Below each value its 95% interval.")
    for name, report in reports.items():
        table.add_row(name, f"{report.n:,}", f"{report.positives:,}", *map(_cell, report.metrics.values()))
    return table


def _cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return "none"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f}\n{estimate.low:.2f}–{estimate.high:.2f}"


@app.command("list")
@handled
def list_all(
    heads: Annotated[Path | None, typer.Option("--heads", help="Folder of heads; default: the shipped ones.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the heads, with their encoder and hash."""
    from guardrail.classifiers.linear import SHIPPED, head_metadata

    found: list[dict[str, Any]] = []
    for path in sorted((heads or SHIPPED).glob("*.safetensors")):
        facts = head_metadata(path)
        found.append({"name": facts.get("name", path.stem), "encoder": facts.get("encoder", ""), **facts, "file": path})
    if as_json:
        emit_json(found)
        return
    table = Table("head", "encoder", "sha256", "card", box=None)
    for facts in found:
        card = Path(facts["file"]).with_suffix(".md")
        table.add_row(facts["name"], facts["encoder"], facts["sha256"][:12], card.name if card.is_file() else "none")
    console.print(table)
    note(f"in {heads or SHIPPED}")
