"""`guardrail review`: serve the review pages, and make the first admin."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.audit import UrlOption
from guardrail.cli.common import ConfigOption, JsonOption, console, emit_json, handled, note, open_settings
from guardrail.errors import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore
    from guardrail.review.desk import Desk, Encode
    from guardrail.settings import Settings

__all__ = ["app"]

app = typer.Typer(no_args_is_help=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
@handled
def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: that of the settings.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: that of the settings.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Serve the pages on which moderators work, until interrupted.

    With --json one object is printed when the address is known: {"url"}.
    """
    if context.invoked_subcommand is not None:
        return
    _require_packages()
    import uvicorn

    from guardrail.review.app import create_app

    settings = open_settings(config, {"review.host": host, "review.port": port, "audit.url": url})
    with _open(settings) as store:
        desk = make_desk(store, settings)
        place = f"http://{settings.review.host}:{settings.review.port}"
        if json:
            emit_json({"url": place})
        else:
            console.print(f"Review pages: {place}", markup=False, soft_wrap=True)
        if settings.review.secret is None:
            note("review.secret is not set: everybody has to sign in again after a restart.")
        # The access log is in the database; a second one would put decision ids into a file that nobody guards.
        uvicorn.run(
            create_app(desk), host=settings.review.host, port=settings.review.port, log_level="warning", access_log=False,
            server_header=False,
        )  # fmt: skip


@app.command("create-admin")
@handled
def create_admin(
    name: Annotated[str, typer.Argument(help="The name to sign in with.")],
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Make somebody admin of everything. The password is asked for, or read from stdin.

    With --json one object: {"name", "id", "role"}.
    """
    _require_packages()
    from guardrail.audit.people import People
    from guardrail.review import accounts
    from guardrail.review.passwords import Passwords
    from guardrail.review.roles import EVERYWHERE, Role

    settings = open_settings(config, {"audit.url": url})
    password = _password()
    with _open(settings) as store, People(store).change() as change:
        key = accounts.add_user(change.connection, Passwords(), name, password)
        accounts.set_role(change.connection, key, EVERYWHERE, Role.ADMIN)
        change.event(EVERYWHERE, kind="admin_created", author="command line", subject=key)
    if json:
        emit_json({"name": name.strip().lower(), "id": key, "role": Role.ADMIN.value})
    else:
        console.print(f"{name.strip().lower()} is admin. Sign in after: guardrail review", markup=False, soft_wrap=True)


def _password() -> str:
    """From a pipe, or twice from the terminal; never from an option, which others can see."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline().rstrip("\r\n")
        if not line:
            raise ConfigurationError("no password: type it, or pipe it to stdin.")
        return line
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def _require_packages() -> None:
    from importlib.util import find_spec

    for package in ("fastapi", "jinja2", "uvicorn", "argon2"):
        if find_spec(package) is None:
            raise MissingDependencyError(package, extra="review", purpose="The review pages")


def _open(settings: Settings) -> AuditStore:
    from guardrail.audit.store import open_store

    audit = settings.audit
    return open_store(audit.url, store_text=audit.store_text, encryption_key=audit.encryption_key)


def make_desk(store: AuditStore, settings: Settings) -> Desk:
    """What the pages work with, as the settings say."""
    from datetime import timedelta

    from guardrail.review.desk import Desk
    from guardrail.review.keys import Signer

    chosen = settings.review
    return Desk(
        store,
        signer=Signer(chosen.secret),
        encode=_encoder(settings),
        session_lasts=timedelta(hours=chosen.session_hours),
        secure=chosen.https if chosen.https is not None else not _loopback(chosen.host),
    )


def _loopback(host: str) -> bool:
    import ipaddress

    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def _encoder(settings: Settings) -> Encode:
    def encode(texts: Any) -> Any:
        from guardrail.encoder import load_encoder

        return load_encoder(settings.encoder, settings.device).encode(texts)

    return encode
