"""`guardrail chat`: talk to a model through guardrail, in the terminal, and see what it changed and why."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from guardrail.cli.common import (
    CommunityOption,
    ConfigOption,
    ExitCode,
    InputError,
    JsonOption,
    PolicyOption,
    console,
    emit_json,
    error_console,
    handled,
    note,
    open_guard,
)
from guardrail.cli.render import because, before_and_after, printable, verdict
from guardrail.cli.rewrite import rewrite_json
from guardrail.errors import Blocked
from guardrail.types import Decision, Outcome, State

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

__all__ = ["command", "read_script"]

Complete = Callable[..., Iterable[Any]]
"""`messages=...` to a stream of chat completion chunks."""

_QUIT = {"/quit", "/exit"}


def read_script(file: Path) -> list[str]:
    """The replies of a script: one per line; blank lines and lines that start with # are left out.

    Raises:
        InputError: the file cannot be read, or holds no reply.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the script cannot be read: {error}.") from error
    replies = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not replies:
        raise InputError(f"{file}: the script holds no reply; write one per line.")
    return replies


def _complete(guard: Guardrail, model: str | None, script: Path | None, stack: ExitStack) -> Complete:
    """The wrapped streaming call: of litellm's model, or of a script."""
    if (model is None) == (script is None):
        raise InputError("Pass either --model NAME (any litellm model, such as openai/gpt-5-mini) or --script FILE.")
    if script is not None:
        from guardrail.cli.scripted import ScriptedModel

        scripted = stack.enter_context(ScriptedModel(read_script(script)))
        create: Complete = guard.wrap(stack.enter_context(scripted.client())).chat.completions.create
    else:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no question for prices on import
        import litellm

        create = guard.wrap(litellm).completion
    return lambda **call: create(model=model or "script", stream=True, **call)


def _turns() -> Iterator[str]:
    """What the user types, until the end of input or /quit."""
    while True:
        try:
            line = console.input(Text("you    ", style="bold") if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip() in _QUIT:
            return
        if line.strip():
            yield line


def _stream(
    complete: Complete, messages: Sequence[dict[str, str]], hear: Callable[[str], None]
) -> tuple[str, Outcome | None]:
    import guardrail

    stream = complete(messages=list(messages))
    heard: list[str] = []
    for chunk in stream:
        text = chunk.choices[0].delta.content if chunk.choices else None
        if text:
            heard.append(text)
            hear(text)
    return "".join(heard), guardrail.outcome(stream)


def _explain(decisions: Sequence[Decision]) -> None:
    """Under a reply: what was changed, withheld or noted in it, and why."""
    for decision in decisions:
        if decision.state is State.ALLOWED:
            continue
        shown = before_and_after(decision) if decision.rewrite else verdict(decision)
        console.print(Padding(shown, (0, 0, 0, 7)))
        for reason in decision.reasons:
            console.print(Padding(because(reason), (0, 0, 0, 9)))


def _turn_json(words: str, reply: str, outcome: Outcome | None) -> dict[str, Any]:
    decisions = outcome.decisions if outcome else ()
    return {
        "user": words,
        "reader": reply,
        "decisions": [{"id": one.id, "stage": one.stage, **rewrite_json(one)} for one in decisions],
    }


def _one_turn(complete: Complete, messages: list[dict[str, str]], words: str, as_json: bool) -> bool:
    """Ask, show, remember; whether it worked."""
    messages.append({"role": "user", "content": words})
    if not as_json:
        console.print(Text("reply  ", style="bold"), end="")
    try:
        reply, outcome = _stream(
            complete, messages, lambda text: None if as_json else console.print(Text(printable(text)), end="")
        )
    except Blocked as blocked:
        reply, outcome = str(blocked), blocked.outcome
    except Exception as error:  # noqa: BLE001 - a provider's failure ends a turn, not the chat
        messages.pop()
        error_console.print(Text(f"{type(error).__name__}: {error}", style="red"))
        return False
    messages.append({"role": "assistant", "content": reply})
    if as_json:
        emit_json(_turn_json(words, reply, outcome))
    else:
        console.print()
        _explain(outcome.decisions if outcome else ())
    return True


@handled
def command(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A litellm model, such as openai/gpt-5-mini.")
    ] = None,
    script: Annotated[
        Path | None, typer.Option("--script", help="Instead of a model: its replies, one per line. Needs no network.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    policy: PolicyOption = None,
    community: CommunityOption = "default",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Talk to a model through guardrail. Replies stream by sentences; what was altered is shown with its reason.

    Every turn is recorded in the audit store of the settings. Ends with /quit or the end of input.
    Exit status: 0 done, 2 usage or configuration, 3 a turn failed.
    """
    messages = [{"role": "system", "content": system}] if system else []
    failed = False
    with ExitStack() as stack:
        guard = stack.enter_context(open_guard(policy, config, community=community))
        complete = _complete(guard, model, script, stack)
        if not as_json:
            note(f"Policy {guard.policy.name}; every turn is on record (guardrail audit list). /quit ends.")
        for words in _turns():
            failed |= not _one_turn(complete, messages, words, as_json)
    if failed:
        raise typer.Exit(ExitCode.FAILURE)
