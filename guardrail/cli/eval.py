"""`guardrail eval policy|heads`: measure a policy, or its classifiers, on labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from guardrail.cli.common import ConfigOption, JsonOption, PolicyOption, console, emit_json, handled, open_guard
from guardrail.cli.heads import heads_of, of_split
from guardrail.cli.training import (
    DataOption,
    DeviceOption,
    EncoderOption,
    ResamplesOption,
    SeedOption,
    Tier,
    progress,
)
from guardrail.errors import ClassifierError, did_you_mean
from guardrail.types import Action, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guardrail.encoder import Encoder
    from guardrail.evaluate.policy import PolicyReport
    from guardrail.evaluate.suite import HeadSuite, Scorer, Slice
    from guardrail.learn.embeddings import Advance

__all__ = ["app"]

app = typer.Typer(
    help="Measure a policy, or its classifiers, on labelled texts.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """Measure a policy, or its classifiers, on labelled texts."""


@app.command("policy")
@handled
def policy_command(
    data: DataOption,
    policy: PolicyOption = None,
    stage: Annotated[Stage, typer.Option(help="Where in a conversation the texts stand.")] = Stage.OUTPUT,
    at: Annotated[Action, typer.Option(help="The mildest action that counts as acting.")] = Action.FLAG,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    resamples: ResamplesOption = 1_000,
    as_json: JsonOption = False,
) -> None:
    """Precision, recall, F1 and false-positive rate of a policy on rows with `labels: {"violation": 0 or 1}`."""
    from guardrail.evaluate.data import read_many
    from guardrail.evaluate.policy import evaluate_policy

    rows = read_many(data)
    guard = open_guard(policy, config)
    with progress("texts judged") as advance:
        report = evaluate_policy(rows, guard, stage=stage, at=at, resamples=resamples, seed=seed, advance=advance)
    if as_json:
        emit_json(report.as_json())
    else:
        console.print(_table(report))


def _table(report: PolicyReport) -> Table:
    from guardrail.learn.report import mean_and_interval

    table = Table("metric", "value (95% interval)", box=None, title=f"{report.policy} {report.revision[:19]}")
    for name, estimate in report.metrics.items():
        table.add_row(name, mean_and_interval(estimate))
    for name, count in report.confusion.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    if report.failures:
        table.add_row("could not be judged", f"{report.failures:,}")
    return table


@app.command("heads")
@handled
def heads_command(
    data: DataOption,
    head: Annotated[
        list[str] | None, typer.Option("--head", help="A head to measure; repeat it. Default: those that rows know.")
    ] = None,
    heads: Annotated[Path | None, typer.Option("--heads", help="Folder of heads; default: the shipped ones.")] = None,
    tier: Annotated[Tier, typer.Option("--tier", help="The linear heads or the tuned network.")] = Tier.LINEAR,
    split: Annotated[str | None, typer.Option("--split", help="Only rows of this split: train, dev or test.")] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, max=1.0, help="Where recall and false positives are counted.")
    ] = 0.5,
    disguises: Annotated[
        bool, typer.Option("--disguises/--no-disguises", help="Disguise some rows in seven ways and score them again.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a card (NAME.md) and plots (NAME.png) of each head.")
    ] = None,
    encoder: EncoderOption = "all-MiniLM-L6-v2",
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    resamples: ResamplesOption = 1_000,
    as_json: JsonOption = False,
) -> None:
    """Measure heads overall, by source, length and group of people, and disguised, with intervals and plots."""
    from guardrail.encoder import load_encoder
    from guardrail.evaluate.data import read_many
    from guardrail.evaluate.suite import measure

    rows = of_split(read_many(data), split)
    loaded = load_encoder(encoder, device)
    known = {name for row in rows for name in row.labels}
    with progress("pieces scored") as advance:
        names, scorer = _scorer(tier, heads, head, known, loaded, advance)
        found = measure(rows, names, scorer, threshold=threshold, disguised=disguises, resamples=resamples, seed=seed)
    if out is not None:
        _write_cards(out, found, tier)
    if as_json:
        emit_json({name: suite.as_json() for name, suite in found.items()})
        return
    console.print(_heads_table(found))
    for suite in found.values():
        console.print(_parts_table(suite))


def _scorer(
    tier: Tier, folder: Path | None, wanted: list[str] | None, known: set[str], encoder: Encoder, advance: Advance
) -> tuple[Sequence[str], Scorer]:
    """The heads to measure and what scores them: those that were asked for, or all that some row knows."""
    from guardrail.classifiers.tuned import load_tuned
    from guardrail.evaluate.scorers import linear_scorer, tuned_scorer

    if tier is Tier.TUNED:
        network = load_tuned(encoder)
        for name in wanted or ():
            if name not in network.facts.heads:
                listed = ", ".join(network.facts.heads)
                hint = did_you_mean(name, network.facts.heads)
                raise ClassifierError(f"the tuned tier has no head {name!r}; it has {listed}.{hint}")
        names = wanted or [name for name in network.facts.heads if name in known]
        return names, tuned_scorer(network, names, advance)
    chosen = heads_of(folder, wanted)
    kept = {name: head for name, head in chosen.items() if wanted or name in known}
    return list(kept), linear_scorer(kept, encoder, advance)


def _write_cards(folder: Path, found: Mapping[str, HeadSuite], tier: Tier) -> None:
    from guardrail.evaluate.plots import plot_head
    from guardrail.evaluate.suite_card import render_suite

    folder.mkdir(parents=True, exist_ok=True)
    for name, suite in found.items():
        both = 0 < suite.positive.sum() < len(suite.positive)
        if both:
            plot_head(folder / f"{name}.png", f"{name} ({tier})", suite.scores, suite.positive)
        card = render_suite(suite, tier.value, f"{name}.png" if both else None)
        (folder / f"{name}.md").write_text(card, encoding="utf-8")


def _heads_table(found: Mapping[str, HeadSuite]) -> Table:
    from guardrail.evaluate.metrics import METRICS
    from guardrail.learn.report import mean_and_interval

    table = Table("head", "texts", "positive", *METRICS, "recall", "false positives", box=None)
    for name, suite in found.items():
        part = suite.overall
        cells = [mean_and_interval(part.metrics[metric]) if part.metrics else "–" for metric in METRICS]
        table.add_row(name, f"{part.n:,}", f"{part.positives:,}", *cells, *_shares(part))
    return table


def _parts_table(suite: HeadSuite) -> Table:
    """By source, length and disguise, and the groups of people, of one head."""
    from guardrail.learn.report import mean_and_interval

    table = Table("part", "texts", "positive", "AUROC", "recall", "false positives", box=None, title=suite.name)
    for parts in (suite.by_source, suite.by_length, suite.by_disguise):
        for name, part in parts.items():
            auroc = mean_and_interval(part.metrics["auroc"]) if part.metrics else "–"
            table.add_row(name, f"{part.n:,}", f"{part.positives:,}", auroc, *_shares(part))
        table.add_section()
    for name, group in suite.bias.groups.items():
        areas = f"{group.subgroup:.3f}, BPSN {group.bpsn:.3f}, BNSP {group.bnsp:.3f}"
        table.add_row(f"naming {name}", f"{group.n:,}", f"{group.positives:,}", areas, "", "")
    return table


def _shares(part: Slice) -> tuple[str, str]:
    both = (part.recall, part.false_positives)
    first, second = ("–" if share is None else f"{share:.1%}" for share in both)
    return first, second
