"""`guardrail policy`: validate, show and test policies; print their JSON Schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.common import (
    ConfigOption,
    ExitCode,
    InputError,
    JsonOption,
    emit_json,
    handled,
    note,
    open_settings,
)
from guardrail.cli.tuning import diff, taught_overlap, tune
from guardrail.errors import ConfigurationError, PolicyError

if TYPE_CHECKING:
    from guardrail.policy.corpus import Case
    from guardrail.settings import Settings
    from guardrail.types import Decision

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command("tune")(tune)
app.command("diff")(diff)

Names = Annotated[list[str] | None, typer.Argument(help="Names or files of policies; default: all that can be found.")]


@app.command()
@handled
def validate(policies: Names = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check policy files, and that every classifier in them can be built. Exit 2: one cannot be used."""
    settings = open_settings(config)
    reports = [_validated(name, settings) for name in policies or _all(settings)]
    if as_json:
        emit_json(reports)
    else:
        for report in reports:
            _print_report(report)
    if not all(report["valid"] for report in reports):
        raise typer.Exit(ExitCode.USAGE)


@app.command()
@handled
def show(
    policy: Annotated[str | None, typer.Argument(help="Name or file; default: the policy of the settings.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a policy as it is after `extends`, with all defaults: itself a policy, of the same revision."""
    import yaml

    from guardrail.policy import load_policy

    settings = open_settings(config)
    loaded = load_policy(policy or settings.policy, settings.policies)
    document = loaded.document.model_dump(mode="json", exclude_none=True, exclude={"extends"})
    files = [str(path) for path in loaded.files]
    if as_json:
        extends = loaded.document.extends
        report = {"policy": loaded.name, "revision": loaded.revision, "extends": extends, "files": files}
        emit_json({**report, "document": document})
        return
    heading = "".join(f"# {line}\n" for line in (f"revision {loaded.revision}", *files))
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    typer.echo(heading + text, nl=False)


@app.command()
@handled
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    import sys

    from guardrail.policy.jsonschema import schema_text

    sys.stdout.write(schema_text())


@app.command("test")
@handled
def run_examples(
    policies: Names = None,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="A file of examples; default: tests/NAME.yaml beside the policies.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try policies on their examples. Exit 1: an example that is not marked `known` came out wrong."""
    if cases is not None and len(policies or ()) != 1:
        raise InputError("--cases needs the one policy to try it on: guardrail policy test NAME --cases FILE")
    settings = open_settings(config)
    reports = [_tested(name, cases, settings) for name in policies or _with_examples(settings)]
    if as_json:
        emit_json(reports)
    else:
        for report in reports:
            _print_tested(report)
    if any(report["failed"] for report in reports):
        raise typer.Exit(ExitCode.VIOLATION)


# -------------------------------------------------------------------------------------------------------- validate


def _all(settings: Settings) -> list[str]:
    from guardrail.policy import list_policies

    return sorted(list_policies(settings.policies))


def _validated(name: str, settings: Settings) -> dict[str, Any]:
    """Load, build and compile one policy; what is wrong with it, and what is odd."""
    from guardrail.assembly import assemble
    from guardrail.policy import load_policy
    from guardrail.policy.checks import advise
    from guardrail.yamlfile import dotted, find

    report: dict[str, Any] = {"policy": name, "valid": True, "revision": None, "errors": [], "advice": []}
    try:
        policy = load_policy(name, settings.policies)
        assemble(policy, settings)
    except ConfigurationError as error:
        place = {"file": error.file, "line": error.line, "key": error.key} if isinstance(error, PolicyError) else {}
        return {**report, "valid": False, "errors": [{"message": str(error), **place}]}
    for problem in advise(policy.document):
        mark = find(policy.marks, problem.key)
        where = f"{mark.file}:{mark.line}: " if mark else ""
        report["advice"].append(f"{where}{dotted(problem.key)}: {problem.message}")
    return {**report, "revision": policy.revision}


def _print_report(report: dict[str, Any]) -> None:
    if report["valid"]:
        typer.echo(f"ok       {report['policy']}  {report['revision']}")
    for error in report["errors"]:
        typer.echo(f"invalid  {report['policy']}\n  {error['message']}")
    for advice in report["advice"]:
        note(f"  note: {advice}")


# ------------------------------------------------------------------------------------------------------------ test


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one example."""

    case: Case
    decision: Decision

    @property
    def right(self) -> bool:
        rules = {reason.rule for reason in self.decision.reasons}
        return self.decision.action in self.case.accepted and self.case.rule in {None, *rules}

    def as_json(self) -> dict[str, Any]:
        case, decision = self.case, self.decision
        return {
            "text": case.text,
            "stage": case.stage.value,
            "expect": list(case.expect),
            "rule": case.rule,
            "action": decision.action.value,
            "risk": decision.risk,
            "reasons": [{"rule": r.rule, "action": r.action.value, "risk": r.risk} for r in decision.reasons],
            "right": self.right,
            "known": case.known,
            "reason": case.reason,
        }


def _with_examples(settings: Settings) -> list[str]:
    from guardrail.policy.corpus import find_corpus

    return [name for name in _all(settings) if find_corpus(name, settings.policies)]


def _tested(name: str, cases: Path | None, settings: Settings) -> dict[str, Any]:
    from guardrail.engine import Guardrail
    from guardrail.policy import load_policy
    from guardrail.policy.corpus import find_corpus, load_corpus

    policy = load_policy(name, settings.policies)
    path = cases or find_corpus(policy.name, settings.policies)
    if path is None:
        raise InputError(
            f"policy {name!r} has no examples: write tests/{policy.name}.yaml beside it, or pass --cases FILE"
        )
    examples = load_corpus(path).cases
    seen = taught_overlap(policy, [case.text for case in examples])
    if seen:
        note(f"warning: {len(seen)} cases taught a classifier of this policy, so they test nothing: {seen[0][:60]!r}")
    decisions = Guardrail(policy, settings=settings).check_many([case.passage for case in examples])
    results = [_Result(case, decision) for case, decision in zip(examples, decisions, strict=True)]
    return {
        "policy": policy.name,
        "revision": policy.revision,
        "cases": len(results),
        "right": sum(result.right for result in results),
        "failed": _as_json(results, right=False, known=False),
        "known": _as_json(results, right=False, known=True),
        "mended": _as_json(results, right=True, known=True),
        "taught": seen,
    }


def _as_json(results: Sequence[_Result], *, right: bool, known: bool) -> list[dict[str, Any]]:
    return [result.as_json() for result in results if result.right is right and result.case.known is known]


def _print_tested(report: dict[str, Any]) -> None:
    counts = f"{report['right']}/{report['cases']} right, {len(report['failed'])} wrong, {len(report['known'])} known"
    typer.echo(f"{report['policy']}: {counts}")
    for kind, word in (("failed", "WRONG"), ("known", "known"), ("mended", "right now, drop `known`")):
        for case in report[kind]:
            rules = ", ".join(f"{r['rule']} {r['risk']:.2f}" for r in case["reasons"]) or f"risk {case['risk']:.2f}"
            wanted = "/".join(case["expect"]) + (f" by {case['rule']}" if case["rule"] else "")
            line = (
                f"  {word}: expected {wanted}, got {case['action']} ({rules}) at {case['stage']}: {case['text'][:160]}"
            )
            typer.echo(line + (f"  [{case['reason']}]" if case["reason"] else ""))
