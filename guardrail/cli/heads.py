"""`guardrail heads train|eval|list`: make, measure and list the linear heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from guardrail.cli.common import JsonOption, console, emit_json, handled, note
from guardrail.cli.teach import trihash
from guardrail.cli.training import (
    DataOption,
    DeviceOption,
    EncoderOption,
    ResamplesOption,
    SeedOption,
    progress,
    train,
)
from guardrail.errors import ClassifierError, DataError, did_you_mean

if TYPE_CHECKING:
    from guardrail.evaluate.data import LabelledText
    from guardrail.evaluate.heads import HeadReport
    from guardrail.evaluate.metrics import Estimate
    from guardrail.policy.bundle import LinearHead

__all__ = ["app", "heads_of", "of_split"]

app = typer.Typer(help="Train, evaluate and list classifier heads.", no_args_is_help=True, rich_markup_mode=None)
app.command("train")(train)
app.command("trihash")(trihash)


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
