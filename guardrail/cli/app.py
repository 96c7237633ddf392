"""The root of the `guardrail` command. Every sub-command is imported when it is called, so that `--help` is quick.

A new command is one line in `COMMANDS`: a function is a command, a `typer.Typer` is a group of commands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from guardrail import __version__

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "demo": ("guardrail.cli.demo:command", "The main job on real text, offline: check, rewrite, stream, audit."),
        "check": ("guardrail.cli.check:command", "Judge a text under a policy and say why. Exit 1: a violation."),
        "explain": ("guardrail.cli.explain:command", "Say which words and classifiers make a text flagged."),
        "rewrite": ("guardrail.cli.rewrite:command", "Repair a text until the policy passes it. Exit 1: it cannot."),
        "chat": ("guardrail.cli.chat:command", "Talk to a model through guardrail, in the terminal."),
        "policy": ("guardrail.cli.policy:app", "Validate, show and test policies; print their JSON Schema."),
        "heads": ("guardrail.cli.heads:app", "Train, evaluate and list classifier heads."),
        "dglm": ("guardrail.cli.dglm:app", "Train, evaluate and describe the rewriting model."),
        "eval": ("guardrail.cli.eval:app", "Measure a policy on labelled texts."),
        "audit": ("guardrail.cli.audit:app", "Read and verify the record of decisions."),
        "review": ("guardrail.cli.review:app", "Serve the pages on which moderators work; make the first admin."),
        "learn": ("guardrail.cli.learn:command", "Learn from reviews: move heads, prove it, write a draft policy."),
        "db": ("guardrail.cli.db:app", "Create, upgrade and check the audit database."),
        "doctor": ("guardrail.cli.doctor:command", "What is installed, what loads, and what is broken."),
    }
)
_SETTINGS = {"help_option_names": ["-h", "--help"]}


def _load(name: str) -> Any:
    """Import the command `name`, as typer's own command object."""
    module_name, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(import_module(module_name), attribute)
    if isinstance(target, typer.Typer):
        command: Any = typer.main.get_group(target)
    else:
        single = typer.Typer(add_completion=False)
        single.command(name, context_settings=_SETTINGS)(cast("Callable[..., Any]", target))
        command = typer.main.get_command(single)
    command.name = name
    return command


class _LazyCommand(TyperCommand):
    """Stands in the list of commands with its help; becomes the real command when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return _load(str(self.name)).make_context(info_name, args, parent=parent, **extra)


class _LazyGroup(TyperGroup):
    """A group whose commands are those of `COMMANDS`, in that order."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        return _LazyCommand(cmd_name, help=COMMANDS[cmd_name][1], add_help_option=False)


app = typer.Typer(
    name="guardrail",
    cls=_LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"guardrail {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Content moderation between an LLM and its readers: a policy decides, a DGLM repairs, an audit remembers."""
    _log_to_stderr()


def _log_to_stderr() -> None:
    """Warnings and errors only, and never on stdout, which is for results."""
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def main() -> None:
    """Entry point of the `guardrail` script.

    Exit codes: 0 done, 1 policy violation found, 2 usage or configuration, 3 runtime failure, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a text may hold what the terminal cannot show
    app()
