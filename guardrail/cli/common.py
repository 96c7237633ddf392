"""What every command shares: where output goes, exit codes, error messages, how texts and settings are read.

Results go to stdout, all else (progress, notes, errors) to stderr, so that `--json` can be piped.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import sys
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from guardrail.errors import Blocked, ConfigurationError, GuardrailError

if TYPE_CHECKING:
    from guardrail.engine import Guardrail
    from guardrail.settings import Settings

__all__ = [
    "CommunityOption",
    "ConfigOption",
    "ExitCode",
    "InputError",
    "InputOption",
    "JsonOption",
    "PolicyOption",
    "Row",
    "batches",
    "console",
    "emit_json",
    "error_console",
    "handled",
    "note",
    "open_guard",
    "open_settings",
    "read_rows",
    "read_text",
]

P = ParamSpec("P")
T = TypeVar("T")

console = Console(highlight=False, soft_wrap=False)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs to read.")]
PolicyOption = Annotated[
    str | None, typer.Option("--policy", "-p", help="A policy's name or file; default: the one of the settings.")
]
CommunityOption = Annotated[str, typer.Option("--community", help="The community whose policy and record this is.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file; default: guardrail.yaml, if there is one.")
]
InputOption = Annotated[
    Path | None,
    typer.Option("--input", "-i", help='JSON lines, one {"text": ..., "context": [...]} each (.gz too); - is stdin.'),
]


class ExitCode(IntEnum):
    """What the exit status of every command means."""

    DONE = 0
    VIOLATION = 1
    USAGE = 2
    FAILURE = 3
    INTERRUPTED = 130


class InputError(ConfigurationError):
    """What the user passed cannot be used. The message says where and what to do."""


# ---------------------------------------------------------------------------------------------------------- output


def _plain(value: object) -> object:
    """Turn the project's values into what JSON has: dataclasses, mappings, sets, paths and times."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return sorted(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def emit_json(value: object, *, indent: int | None = None) -> None:
    """Print `value` as one JSON document and a newline on stdout.

    Dataclasses, enums, mappings, sets, paths, times and numpy scalars are converted. NaN and infinity, which JSON does
    not have, raise ValueError.
    """
    ascii_only = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
    document = json.dumps(value, default=_plain, ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    # A lone surrogate has no UTF-8 form; its JSON escape means the same.
    safe = document.encode("utf-8", "backslashreplace").decode("utf-8")
    sys.stdout.write(safe + "\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    error_console.print(Text(message, style="dim"))


def _complain(message: str, *, kind: str = "error") -> None:
    error_console.print(Text.assemble((f"{kind}: ", "bold red"), message))


def handled(function: Callable[P, T]) -> Callable[P, T]:
    """Turn the exceptions of a command into a message on stderr and an exit code.

    `ConfigurationError` exits with 2, every other failure with 3 (never with 1, which means a violation).
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except ConfigurationError as error:
            _complain(str(error))
            raise typer.Exit(ExitCode.USAGE) from error
        except Blocked as error:
            _complain(str(error), kind="blocked")
            raise typer.Exit(ExitCode.VIOLATION) from error
        except GuardrailError as error:
            _complain(str(error))
            raise typer.Exit(ExitCode.FAILURE) from error
        except KeyboardInterrupt as error:
            note("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        except BrokenPipeError as error:  # `guardrail ... | head`: nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.DONE) from error
        except typer.Exit:
            raise
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):
                raise  # a usage error: typer prints it
            traceback.print_exc()
            _complain(f"{type(error).__name__}: {error}. This is a defect of guardrail: please report the lines above.")
            raise typer.Exit(ExitCode.FAILURE) from error

    return wrapper


# ----------------------------------------------------------------------------------------------------------- input


@dataclass(frozen=True, slots=True)
class Row:
    """One text of an `--input` file and the line it stood on."""

    line: int
    text: str
    context: tuple[str, ...] = ()


def _stdin() -> str:
    return sys.stdin.buffer.read().decode("utf-8", errors="replace")


def read_text(text: str | None, input_file: Path | None) -> str | None:
    """The text argument, stdin for `-`, or None where `--input` was given instead.

    Raises:
        InputError: neither or both were given.
    """
    if (text is None) == (input_file is None):
        raise InputError("Pass either a TEXT (or - to read it from stdin) or --input FILE.jsonl.")
    if text != "-":
        return text
    return _stdin().removesuffix("\n").removesuffix("\r")


def _lines(file: Path) -> list[str]:
    try:
        if str(file) == "-":
            return _stdin().split("\n")
        content = file.read_bytes()
        text = gzip.decompress(content) if file.suffix == ".gz" else content
        return text.decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}.") from error


def _row(where: str, line: int, source: str) -> Row:
    try:
        value = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object with `text`, found {type(value).__name__}.")
    if not isinstance(value.get("text"), str):
        found = type(value["text"]).__name__ if "text" in value else "nothing"
        raise InputError(f"{where}: `text` must be a string, found {found}.")
    context = value.get("context") or []
    turns = [context] if isinstance(context, str) else context
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise InputError(f"{where}: `context` must be a string or a list of strings, oldest first.")
    return Row(line, value["text"], tuple(turns))


def read_rows(file: Path) -> list[Row]:
    """Read a JSON-lines file whole, so that a bad row is reported before any work is done. Blank lines are skipped.

    Raises:
        InputError: the file cannot be read, or a row is not usable; the message names the line.
    """
    return [
        _row(f"{file}:{number}", number, source)
        for number, source in enumerate(_lines(file), start=1)
        if source.strip()
    ]


def open_settings(config: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this installation; `config` must exist where it is given."""
    from guardrail.settings import load_settings

    return load_settings(config, overrides)


def open_guard(policy: str | None, config: Path | None, *, community: str = "default") -> Guardrail:
    """The engine under `policy` (a name or a file), with the settings of `config`."""
    from guardrail.engine import Guardrail

    return Guardrail(policy, settings=open_settings(config), community=community)


def batches(rows: Sequence[T], size: int = 64) -> list[Sequence[T]]:
    """Cut `rows` into runs of at most `size`, in order."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
