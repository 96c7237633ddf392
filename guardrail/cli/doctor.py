"""`guardrail doctor`: what is installed, what loads, and what is broken. It changes nothing."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from guardrail import __version__
from guardrail.cli.common import ConfigOption, ExitCode, JsonOption, console, emit_json, handled, note, open_settings
from guardrail.errors import ConfigurationError, GuardrailError

if TYPE_CHECKING:
    from guardrail.settings import Settings

__all__ = ["Check", "command", "examine"]

DISTRIBUTION = "guardrail-dglm"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `note` is worth knowing, `broken` is needed and does not work."""

    name: str
    status: Literal["ok", "note", "broken"]
    detail: str
    data: Mapping[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------- the checks


def _requirements() -> tuple[list[str], dict[str, str]]:
    """The names of the needed distributions, and of the optional ones with their extra."""
    from packaging.requirements import Requirement

    needed, optional = [], {}
    for line in requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        if requirement.marker is None:
            needed.append(requirement.name)
            continue
        for extra in ("openai", "anthropic", "postgres", "gateway", "onnx", "ray", "otel", "plots"):
            if requirement.marker.evaluate({"extra": extra}):
                optional[requirement.name] = extra
    return needed, optional


def _versions(names: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _python(_: Settings) -> Iterator[Check]:
    where = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"
    status: Literal["ok", "broken"] = "ok" if sys.version_info >= (3, 11) else "broken"
    yield Check("python", status, f"{where}; guardrail {__version__}", {"guardrail": __version__})


def _packages(_: Settings) -> Iterator[Check]:
    needed, optional = _requirements()
    found = _versions(needed)
    missing = [name for name, installed in found.items() if installed is None]
    if missing:
        yield Check("packages", "broken", f"missing: {', '.join(missing)}. Run: pip install {DISTRIBUTION}", found)
    else:
        versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "sqlalchemy", "litellm"))
        yield Check("packages", "ok", f"all {len(found)} that are needed; {versions}", found)
    extras = _versions(list(optional))
    absent = sorted({optional[name] for name, installed in extras.items() if installed is None})
    present = ", ".join(f"{name} {installed}" for name, installed in extras.items() if installed) or "none"
    advice = f"; for more: pip install '{DISTRIBUTION}[{','.join(absent)}]'" if absent else ""
    yield Check("extras", "note" if absent else "ok", present + advice, extras)


def _device(settings: Settings) -> Iterator[Check]:
    import torch

    from guardrail.encoder import resolve_device

    chosen = resolve_device(settings.device)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    detail = f"{chosen} (settings: {settings.device}); GPU: {gpu or 'none'}; {torch.get_num_threads()} threads"
    yield Check("device", "ok", detail, {"device": chosen, "gpu": gpu})


def _encoder(settings: Settings) -> Iterator[Check]:
    from guardrail.encoder import load_encoder

    started = time.perf_counter()
    encoder = load_encoder(settings.encoder, settings.device)
    encoder.encode(["a first sentence"])
    seconds = time.perf_counter() - started
    detail = f"{encoder.name}, {encoder.dim} dimensions, sha256 {encoder.sha256[:12]}, loaded in {seconds:.1f} s"
    data = {"name": encoder.name, "dim": encoder.dim, "max_tokens": encoder.max_tokens, "sha256": encoder.sha256}
    yield Check("encoder", "ok", detail, data)


def _heads(settings: Settings) -> Iterator[Check]:
    from guardrail.classifiers.linear import list_heads, load_head
    from guardrail.encoder import load_encoder

    encoder = load_encoder(settings.encoder, settings.device)
    heads = [load_head(name) for name in list_heads()]
    hashes = {head.name: head.sha256 for head in heads}
    foreign = [head.name for head in heads if head.encoder_sha256 != encoder.sha256]
    if foreign:
        message = f"of another encoder than {encoder.name}: {', '.join(foreign)}. Run: guardrail heads train"
        yield Check("heads", "broken", message, hashes)
    else:
        yield Check("heads", "ok" if heads else "broken", f"{len(heads)}: {', '.join(hashes)}", hashes)


def _dglm(settings: Settings) -> Iterator[Check]:
    from guardrail.dglm.pipeline import load_pipeline

    started = time.perf_counter()
    pipeline = load_pipeline(settings.rewriter.checkpoint, settings.encoder, settings.device)
    seconds = time.perf_counter() - started
    parameters = pipeline.writer.parameters
    detail = (
        f"{settings.rewriter.checkpoint}, {parameters / 1e6:.1f} million parameters, "
        f"sha256 {pipeline.sha256[:12]}, loaded in {seconds:.1f} s"
    )
    yield Check("dglm", "ok", detail, {"checkpoint": settings.rewriter.checkpoint, "sha256": pipeline.sha256})


def _policies(settings: Settings) -> Iterator[Check]:
    from guardrail.engine import Guardrail
    from guardrail.policy import list_policies

    served = {settings.policy, *settings.communities.values()}
    for name in sorted({*list_policies(settings.policies), *served}):
        try:
            policy = Guardrail(name, settings=settings).assembly().policy
        except ConfigurationError as error:
            # One that no community uses stops nobody, but whoever edits it should know.
            yield Check(f"policy {name}", "broken" if name in served else "note", str(error))
        else:
            yield Check(f"policy {name}", "ok", policy.revision, {"revision": policy.revision})


def _database(settings: Settings) -> Iterator[Check]:
    from sqlalchemy.exc import SQLAlchemyError

    from guardrail.audit import migrate
    from guardrail.audit.database import describe, make_engine, sqlite_file, unavailable

    engine = make_engine(settings.audit.url)
    try:
        place, file = describe(engine.url), sqlite_file(engine.url)
        data = {"database": place, "needs": migrate.head()}
        if engine.dialect.name == "sqlite" and (file is None or not file.exists()):
            yield Check("database", *_new_database(place, file), data)
            return
        with engine.connect() as connection:
            at = migrate.current(connection)
            if engine.dialect.name != "sqlite" or at is not None:
                migrate.require_current(connection)
        yield Check("database", "ok", f"{place}, at migration {at}", {**data, "at": at})
    except SQLAlchemyError as error:
        raise unavailable(error, engine.url, "opened") from error
    finally:
        engine.dispose()


def _new_database(place: str, file: Path | None) -> tuple[Literal["ok", "broken"], str]:
    if file is not None and not file.absolute().parent.is_dir():
        return "broken", f"{place}: its folder does not exist"
    return "ok", f"{place}: not there yet, made on first use"


_CHECKS: tuple[tuple[str, Callable[[Any], Iterator[Check]]], ...] = (
    ("python", _python),
    ("packages", _packages),
    ("device", _device),
    ("encoder", _encoder),
    ("heads", _heads),
    ("dglm", _dglm),
    ("policies", _policies),
    ("database", _database),
)


def examine(settings: Settings) -> Iterator[Check]:
    """Try everything that moderation needs, one thing after the other; a failure is a finding, not an exception."""
    for name, check in _CHECKS:
        try:
            yield from check(settings)
        except GuardrailError as error:
            yield Check(name, "broken", str(error))
        except Exception as error:  # noqa: BLE001 - whatever is broken here is what doctor is for
            yield Check(name, "broken", f"{type(error).__name__}: {error}")


# ------------------------------------------------------------------------------------------------------ the command

_STYLE = {"ok": "green", "note": "yellow", "broken": "bold red"}


def _print(checks: list[Check]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(Text(check.status, style=_STYLE[check.status]), Text(check.name), Text(check.detail))
    console.print(table)
    broken = [check.name for check in checks if check.status == "broken"]
    console.print(
        Text(f"Broken: {', '.join(broken)}.", style="bold red") if broken else Text("Ready.", style="bold green")
    )


@handled
def command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say what is installed, what loads, which device is used, and whether policies and database are in order.

    Exit status: 0 ready, 2 settings that cannot be read, 3 something that is needed is broken.
    """
    settings = open_settings(config)
    if not as_json:
        note("Loading the models once, to see that they load")
    checks = list(examine(settings))
    broken = any(check.status == "broken" for check in checks)
    if as_json:
        emit_json({"ok": not broken, "checks": checks}, indent=2)
    else:
        _print(checks)
    if broken:
        raise typer.Exit(ExitCode.FAILURE)
