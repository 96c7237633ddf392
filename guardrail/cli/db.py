"""`guardrail db`: create and upgrade the audit database, and check that its tables are those of this version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from guardrail.cli.audit import UrlOption
from guardrail.cli.common import ConfigOption, ExitCode, JsonOption, console, emit_json, handled, open_settings
from guardrail.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@contextmanager
def _engine(url: str | None, config: Path | None) -> Iterator[Engine]:
    from guardrail.audit.database import make_engine

    engine = make_engine(url or open_settings(config).audit.url)
    try:
        yield engine
    finally:
        engine.dispose()


@app.command()
@handled
def upgrade(url: UrlOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Create the tables, or bring them to this version. Does nothing where that is done; safe to run twice at once."""
    from guardrail.audit import migrate
    from guardrail.audit.database import describe

    with _engine(url, config) as engine:
        before, now = migrate.upgrade(engine)
        place = describe(engine.url)
    if json:
        emit_json({"database": place, "before": before, "after": now})
    elif before == now:
        console.print(f"{place} is at migration {now} already.", markup=False, soft_wrap=True)
    else:
        console.print(f"{place}: upgraded from {before or 'blank'} to migration {now}.", markup=False, soft_wrap=True)


@app.command()
@handled
def check(url: UrlOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check that the database can be reached and that its tables are exactly those of this version. Exit 2: not."""
    with _engine(url, config) as engine:
        report = _report(engine)
    if json:
        emit_json(report)
    else:
        for line in (*report["differences"], *([report["problem"]] if report["problem"] else [])):
            console.print(line, markup=False, style="red", soft_wrap=True)
        if report["ok"]:
            message = f"{report['database']}: migration {report['at']}, no difference."
            console.print(message, markup=False, soft_wrap=True)
    if not report["ok"]:
        raise typer.Exit(ExitCode.USAGE)


def _report(engine: Engine) -> dict[str, Any]:
    from sqlalchemy.exc import SQLAlchemyError

    import guardrail.review.tables  # noqa: F401 - so that its tables are compared too
    from guardrail.audit import migrate
    from guardrail.audit.database import describe, sqlite_file, unavailable

    place, file = describe(engine.url), sqlite_file(engine.url)
    report: dict[str, Any] = {
        "ok": False, "database": place, "at": None, "needs": migrate.head(), "differences": [], "problem": None
    }  # fmt: skip
    if file is not None and not file.exists():
        return report | {"problem": f"{place} does not exist yet. Run: guardrail db upgrade"}
    try:
        with engine.connect() as connection:
            report["at"] = migrate.current(connection)
            migrate.require_current(connection)
            report["differences"] = [describe_difference(one) for one in migrate.drift(connection)]
    except ConfigurationError as error:
        return report | {"problem": str(error)}
    except SQLAlchemyError as error:
        raise unavailable(error, engine.url, "checked") from error
    if report["differences"]:
        report["problem"] = f"{place} was changed by something other than guardrail's migrations."
    return report | {"ok": not report["differences"]}


def describe_difference(difference: Any) -> str:
    """One of Alembic's differences in words: what it would do to the database."""
    if isinstance(difference, list):  # changes of one column
        return "; ".join(describe_difference(one) for one in difference)
    kind, *rest = difference
    names = [
        str(getattr(part, "name", None) or part) for part in rest if part is not None and not isinstance(part, dict)
    ]
    return f"{kind.replace('_', ' ')}: {' '.join(names)}"
