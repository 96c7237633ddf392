"""`guardrail learn`: from reviews to better heads or a better diffusion, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from guardrail.cli.audit_common import UrlOption, opened
from guardrail.cli.common import (
    ConfigOption,
    ExitCode,
    InputError,
    JsonOption,
    console,
    emit_json,
    error_console,
    handled,
    note,
    open_settings,
)

if TYPE_CHECKING:
    from guardrail.learn.loop import Learned
    from guardrail.learn.preferred_card import PreferenceLearned
    from guardrail.policy import Policy
    from guardrail.policy.corpus import Case
    from guardrail.settings import Settings

__all__ = ["command"]


@handled
def command(
    policy: Annotated[str, typer.Option("--policy", help="Whose heads learn: a policy's name or file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new heads and the draft policy.")],
    community: Annotated[str | None, typer.Option("--community", help="Only reviews of this community.")] = None,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="The safety set; default: the policy's examples, tests/NAME.yaml.")
    ] = None,
    bound: Annotated[
        float, typer.Option("--bound", min=0.01, max=10.0, help="Logits that one reviewer can move any score by.")
    ] = 0.5,
    cap: Annotated[
        float, typer.Option("--cap", min=1.0, help="Votes (or choices) that one reviewer counts for at most.")
    ] = 10.0,
    diffusion: Annotated[
        bool, typer.Option("--diffusion", help="Tune the rewriter's diffusion by choices between rewrites instead.")
    ] = False,
    nats: Annotated[
        float, typer.Option("--kl", min=0.01, help="With --diffusion: nats that it may move from what it was.")
    ] = 3.0,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Turn reviews into labelled examples and move the policy's linear heads by them.

    A head is changed only if it is better on reviews that were kept aside; all of it is refused if one example of the
    policy passed before and fails now. Exit 1: refused. Try the draft on the record with `guardrail audit replay`.

    With --diffusion reviewers' choices between two rewrites move the diffusion network of `rewriter.checkpoint`; the new
    checkpoint is written to --out, for `rewriter.checkpoint` to point to.
    """
    from guardrail.learn.loop import learn
    from guardrail.learn.update import Limits
    from guardrail.policy import load_policy
    from guardrail.policy.corpus import find_corpus, load_corpus

    settings = open_settings(config)
    loaded = load_policy(policy, settings.policies)
    path = cases or find_corpus(loaded.name, settings.policies)
    if path is None:
        raise InputError(
            f"the policy {loaded.name!r} has no examples; write tests/{loaded.name}.yaml or pass --cases FILE"
        )
    safety = load_corpus(path).cases
    if diffusion:
        limits = (cap, nats)
        _learn_diffusion(loaded, settings, out, safety, community, limits, url, config, json)
        return
    with opened(url, config) as store, error_console.status("learning from reviews"):
        found = learn(store, loaded, settings, out, safety, community=community, limits=Limits(bound, cap))
    _finish(found, found.policy, partial(_show, found), json)


def _learn_diffusion(
    policy: Policy,
    settings: Settings,
    out: Path,
    safety: Sequence[Case],
    community: str | None,
    limited: tuple[float, float],
    url: str | None,
    config: Path | None,
    json: bool,
) -> None:
    from guardrail.learn.preference import Tuning
    from guardrail.learn.preferred import learn_diffusion
    from guardrail.learn.preferred_card import Limits

    cap, nats = limited
    limits = Limits(cap, tuning=Tuning(bound=nats))
    with opened(url, config) as store, error_console.status("learning from choices") as status:
        found = learn_diffusion(
            store,
            policy,
            settings,
            out,
            safety,
            community=community,
            limits=limits,
            report=lambda step, loss, moved: status.update(f"step {step}: loss {loss:.3f}, {moved:.2f} nats away"),
        )
    _finish(found, found.checkpoint, partial(_show_diffusion, found), json)


def _finish(found: Learned | PreferenceLearned, written: object, show: Callable[[], None], json: bool) -> None:
    """Print what was learned and where it was written, or why it was refused: then exit 1."""
    if json:
        emit_json(found)
    else:
        show()
        said, style = (f"refused: {found.refused}", "red") if found.refused else (f"written: {written}", None)
        console.print(said, style=style, markup=False, soft_wrap=not found.refused)
    if found.refused:
        raise typer.Exit(ExitCode.VIOLATION)


def _show_diffusion(found: PreferenceLearned) -> None:
    console.print(
        f"{found.choices} choices by {found.reviewers} reviewers: {found.pairs} pairs to learn from, {found.aside} kept aside"
    )
    table = Table("", "before", "after")
    table.add_row("chosen text easier to denoise (kept aside)", *(f"{value:.1%}" for value in found.accuracy))
    for name, both in found.control.items():
        table.add_row(f"control on the safety set: {name}", *(f"{value:.1%}" for value in both))
    console.print(table)
    ended = ", where the bound ended it" if found.stopped else ""
    console.print(f"{found.steps} steps, {found.divergence:.2f} nats from the network before{ended}")


def _show(found: Learned) -> None:
    table = Table("head", "votes", "aside", "reviewers", "agreement", "loss before", "after", "moved", "")
    for one in found.heads:
        losses = [f"{value:.3f}" if value is not None else "-" for value in (one.before, one.after)]
        outcome = "new version" if one.kept else f"unchanged: {one.why}"
        counts = (str(one.votes), str(one.aside), str(one.reviewers))
        table.add_row(one.head, *counts, f"{one.agreement:.0%}", *losses, f"{one.change:.2f}", outcome)
    console.print(table)
    console.print(
        f"safety set: {found.passed[0]} of {found.cases} passed before, {found.passed[1]} after; "
        f"one reviewer can have moved any score by {found.bound:g} logits at most"
    )
    for text in found.broken:
        note(f"passed before, fails now: {text}")
