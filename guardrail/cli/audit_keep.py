"""`guardrail audit checkpoint`, `erase`, `retain`, `rekey` and `spool`: what must be kept, what must not, what waits."""

from __future__ import annotations

import getpass
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    from guardrail.audit.store import AuditStore
    from guardrail.audit.verify import Verification

__all__ = ["against", "register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the group `audit`."""
    app.command()(checkpoint)
    app.command()(erase)
    app.command()(retain)
    app.command()(spool)
    app.command()(rekey)


@handled
def checkpoint(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; the signature goes to FILE.sig.")],
    key: Annotated[
        Path | None, typer.Option("--key", help="Ed25519 private key, PEM: openssl genpkey -algorithm ed25519.")
    ] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write the ends of all chains to a file, to be kept elsewhere; `audit verify --checkpoint FILE` compares."""
    from guardrail.audit import checkpoint as checkpoints

    with opened(url, config) as store, store.engine.connect() as connection:
        document = checkpoints.make(connection)
    signature = None if key is None else checkpoints.sign(document, key)
    out.write_bytes(document)
    beside = out.with_name(out.name + ".sig")
    if signature is not None:
        beside.write_bytes(signature)
    if json:
        chains = checkpoints.read(document)
        emit_json({"file": out, "signature": None if signature is None else beside, "chains": chains})
    else:
        note(f"{out} written" + ("" if signature is None else f", signed in {beside}"))


def against(store: AuditStore, found: Verification, file: Path, public_key: Path | None) -> Verification:
    """Add to a verification what a checkpoint shows.

    Raises:
        ConfigurationError: the file is no checkpoint, or its signature is missing or wrong.
    """
    from guardrail.audit import checkpoint as checkpoints

    document = file.read_bytes()
    if public_key is not None:
        beside = file.with_name(file.name + ".sig")
        if not beside.is_file():
            raise InputError(f"{beside}: there is no such file; the signature must lie beside the checkpoint")
        if not checkpoints.verify_signature(document, beside.read_bytes(), public_key):
            raise InputError(f"{file}: the signature is not of this file and this key")
    with store.engine.connect() as connection:
        problems = tuple(checkpoints.check(connection, checkpoints.read(document)))
    return replace(found, problems=found.problems + problems)


@handled
def erase(
    subject: Annotated[str | None, typer.Option(help="A person, as the caller named them when recording.")] = None,
    conversation: Annotated[str | None, typer.Option(help="A conversation.")] = None,
    request: Annotated[str | None, typer.Option(help="A client call.")] = None,
    decision: Annotated[str | None, typer.Option(help="One decision.")] = None,
    reason: Annotated[str, typer.Option(help="Why; stays on record. Name nobody in it.")] = "",
    by: Annotated[str | None, typer.Option(help="Who erases; default: the system's user.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Erase one person's texts for good; what was decided and the chain stay, and an event says that it was done."""
    from guardrail.audit.erasure import erase as erase_texts

    with opened(url, config) as store:
        count = erase_texts(
            store,
            by=by or getpass.getuser(),
            subject=subject,
            conversation=conversation,
            request_id=request,
            decision_id=decision,
            reason=reason,
        )
    if json:
        emit_json({"erased": count})
    else:
        note(f"The texts of {count} decisions were erased.")


@handled
def retain(
    keep_text: Annotated[int | None, typer.Option(min=1, help="Days; default: audit.keep_text.")] = None,
    keep_decisions: Annotated[int | None, typer.Option(min=1, help="Days; default: audit.keep_decisions.")] = None,
    keep_appeals: Annotated[int | None, typer.Option(min=1, help="Days; default: audit.keep_appeals.")] = None,
    keep_access: Annotated[int | None, typer.Option(min=1, help="Days; default: review.keep_access.")] = None,
    keep_exposure: Annotated[int | None, typer.Option(min=1, help="Days; default: review.keep_exposure.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Erase texts, delete decisions, and forget who saw what, where they are older than they may be; for a daily job.

    Sessions of the review pages that have ended are deleted too. Decisions with an open appeal, and drafts that wait for a
    person, are left alone.
    """
    from guardrail.audit.erasure import retain as retain_texts
    from guardrail.review.keeping import forget

    settings = open_settings(config)
    audit, review = settings.audit, settings.review
    kept: dict[str, Any] = {
        "keep_text": keep_text or audit.keep_text,
        "keep_decisions": keep_decisions or audit.keep_decisions,
        "keep_appeals": keep_appeals or audit.keep_appeals,
    }
    seen: dict[str, Any] = {
        "keep_access": keep_access or review.keep_access,
        "keep_exposure": keep_exposure or review.keep_exposure,
    }
    if not any((kept | seen).values()):
        raise InputError(
            "Nothing is limited in time: set audit.keep_text, audit.keep_decisions, audit.keep_appeals, review.keep_access "
            "or review.keep_exposure, or pass an option."
        )
    with opened(url, config) as store:
        done = retain_texts(store, **kept)
        forgotten = forget(store, **seen)
    if json:
        emit_json({**asdict(done), **asdict(forgotten)})
    else:
        note(
            f"The texts of {done.texts} decisions and of {done.appeals} appeals were erased, {done.decisions} decisions were "
            f"deleted; {forgotten.access} lines of the access log, {forgotten.exposure} daily counts, "
            f"{forgotten.sessions} sessions and {forgotten.tokens} API tokens were deleted."
        )


@handled
def spool(
    drain: Annotated[bool, typer.Option("--drain", help="Write what waits into the database.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to try for.")] = 60.0,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show what waits in the local spool; `--drain` writes what dead processes left there. Exit 3: some is left."""
    from guardrail.audit.configured import open_configured
    from guardrail.audit.spool import Spool

    settings = open_settings(config).audit
    if settings.spool is None:
        raise InputError("There is no spool: audit.spool is not set.")
    if drain:
        with open_configured(settings) as store:
            store.recorder.flush(timeout)
    waiting = [{"file": path, "bytes": size} for path, size in Spool(settings.spool).waiting()]
    if json:
        emit_json({"folder": settings.spool, "files": waiting})
    else:
        for one in waiting:
            console.print(f"{one['bytes']:>12} bytes  {one['file']}", markup=False, soft_wrap=True)
        if not waiting:
            note("Nothing waits.")
    if drain and waiting:
        raise typer.Exit(ExitCode.FAILURE)


@handled
def rekey(
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Encrypt every stored text under the first key of audit.encryption_key, those of the time before it as well.

    To change a key: put the new one before the old one, run this, then take the old one away.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from guardrail.audit.rekey import rekey as seal_anew

    columns = (SpinnerColumn(), TextColumn("{task.completed} rows encrypted"), TimeElapsedColumn())
    with opened(url, config) as store, Progress(*columns, console=error_console, transient=True) as bar:
        task = bar.add_task("", total=None)
        count = seal_anew(store, lambda done: bar.advance(task, done))
    if json:
        emit_json({"rows": count})
    else:
        note(f"{count} rows were encrypted.")
