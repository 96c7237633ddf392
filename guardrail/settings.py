"""Settings of one installation: `guardrail.yaml`, then `GUARDRAIL_*` variables, then what the caller passes.

Every variable is the path of its key in capitals, joined by underscores: `audit.url` is `GUARDRAIL_AUDIT_URL`.
`GUARDRAIL_SETTINGS` names the file itself. An unknown key or variable is an error: a misspelt one would silently
leave the default in force.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from guardrail.errors import SettingsError, did_you_mean
from guardrail.validation import failure, problems
from guardrail.yamlfile import Key, Mark, Marks, YamlFile, read_yaml, shorten

__all__ = [
    "AuditSettings",
    "GatewaySettings",
    "ReviewSettings",
    "RewriterSettings",
    "Settings",
    "StreamSettings",
    "load_settings",
]

DEFAULT_FILE = Path("guardrail.yaml")
PREFIX = "GUARDRAIL_"
FILE_VARIABLE = f"{PREFIX}SETTINGS"
_SECRET: frozenset[Key] = frozenset(
    {("audit", "url"), ("audit", "encryption_key"), ("review", "secret")}  # a database URL may carry a password
)

Text = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class RewriterSettings(_Section):
    """How drafts are repaired."""

    checkpoint: Text = Field("mini", description="`mini`, the checkpoint that is shipped, or a directory of your own.")
    timeout: float = Field(
        30.0, gt=0, le=3600, description="Seconds that one rewrite may take before the next way is tried."
    )
    prompted_model: str | None = Field(
        None,
        description="litellm model of the `prompted` rewriter, such as `openai/gpt-5-mini`; none: it is skipped.",
    )


class AuditSettings(_Section):
    """Where decisions are recorded."""

    url: Text = Field("sqlite:///guardrail.sqlite", repr=False, description="SQLAlchemy URL of the audit database.")
    durability: Literal["commit", "spool", "async"] = Field(
        "commit",
        description="`commit`: the record is in the database before the text leaves; `spool`: on the local disk; "
        "`async`: in memory, written within a second.",
    )
    spool: Path | None = Field(
        None,
        description="Folder on a local disk that takes records while the database is away; none: texts are withheld "
        "then. `durability: spool` needs it.",
    )
    store_text: bool = Field(True, description="false: hashes and lengths are kept, the texts are not.")
    store_embeddings: bool = Field(
        False, description="true: the vectors that were judged are kept, for replay and for finding similar decisions."
    )
    mask: tuple[Literal["email", "phone", "card", "iban", "ip"], ...] = Field(
        (), description="Personal data that is blanked out before a text is stored."
    )
    encryption_key: str | None = Field(
        None,
        repr=False,
        description="32 random bytes in base64 that encrypt texts in the database and in the spool; several, by commas: "
        "the first seals, all of them open. None: texts are stored as they are.",
    )
    keep_text: int | None = Field(
        None, ge=1, description="Days after which `audit retain` erases texts and embeddings; none: never."
    )
    keep_decisions: int | None = Field(
        None, ge=1, description="Days after which `audit retain` deletes whole decisions; none: never."
    )
    keep_appeals: int | None = Field(
        None,
        ge=1,
        description="Days after their answer for which appeals keep their texts; none: as long as the decision.",
    )


class StreamSettings(_Section):
    """How streamed replies are held until they are cleared."""

    hold: Literal["sentence", "paragraph", "all"] = Field(
        "sentence", description="What is held back and judged as one piece."
    )
    max_chars: int = Field(
        2000, ge=100, le=1_000_000, description="A longer sentence is cut at a word and judged (characters)."
    )


class GatewaySettings(_Section):
    """Where the gateway listens."""

    host: Text = "127.0.0.1"
    port: int = Field(8080, ge=1, le=65535)


class ReviewSettings(_Section):
    """The pages on which moderators work."""

    host: Text = "127.0.0.1"
    port: int = Field(8090, ge=1, le=65535)
    https: bool | None = Field(
        None, description="Cookies go over HTTPS only. Default: yes, unless the pages listen on this machine alone."
    )
    session_hours: float = Field(12.0, gt=0, le=168, description="Hours from sign-in to the end of a session.")
    keep_access: int | None = Field(
        None,
        ge=1,
        description="Days after which `audit retain` deletes the log of who saw what, and API tokens that have ended; none: "
        "never.",
    )
    keep_exposure: int | None = Field(
        None,
        ge=1,
        description="Days after which `audit retain` deletes how much each person had to read; none: never.",
    )
    secret: str | None = Field(
        None,
        repr=False,
        description="Signs cookies and forms, 32 characters or more; none: sessions end with the process.",
    )


class Settings(_Section):
    """Everything that an installation can set. Immutable; see `load_settings`."""

    policy: Text = Field("general", description="Policy for communities that are not listed.")
    communities: dict[str, Text] = Field(default_factory=dict, description="Community name to policy name.")
    policies: tuple[Path, ...] = Field(
        (Path("policies"),), description="Folders to look for policies in; the shipped policies come last."
    )
    encoder: Text = Field(
        "all-MiniLM-L6-v2", description="Sentence encoder: the embedded one, or any sentence-transformers name."
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N.")
    rewriter: RewriterSettings = RewriterSettings()
    audit: AuditSettings = AuditSettings()
    on_block: Literal["refuse", "raise"] = Field(
        "refuse", description="Answer with the policy's refusal, or raise `Blocked`."
    )
    stream: StreamSettings = StreamSettings()
    gateway: GatewaySettings = GatewaySettings()
    review: ReviewSettings = ReviewSettings()

    @field_validator("policies", mode="before")
    @classmethod
    def _one_folder_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str | Path) else value

    def policy_for(self, community: str) -> str:
        """The name of the policy that governs `community`."""
        return self.communities.get(community, self.policy)


def load_settings(
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from a file, then the environment, then `overrides`; later ones win, key by key.

    Args:
        file: the settings file. Default: `GUARDRAIL_SETTINGS`, else `guardrail.yaml` in the working directory if there
            is one, else the defaults. Relative `policies` in the file are relative to the file.
        overrides: nested like the file, or with dotted keys: `{"audit.url": ...}`. A value of None is ignored, so
            command-line options can be passed as they are.
        environ: the variables; default `os.environ`.

    Raises:
        SettingsError: names file and line, or the variable, the key, and what was expected.
    """
    environ = os.environ if environ is None else environ
    data: dict[str, Any] = {}
    marks: Marks = {}
    source = _file_to_read(file, environ)
    if source is not None:
        read = read_yaml(source, SettingsError)
        data, marks = _without_nulls(_anchored(read).data), dict(read.marks)
    for key, value, mark in _from_environ(environ):
        _put(data, key, value)
        marks[key] = mark
    for key, value in _flat(overrides or {}):
        _put(data, key, value)
        marks[key] = Mark("options", 0)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise _explain(error, marks, source) from None


def _file_to_read(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    if file is not None:
        return Path(file)
    if environ.get(FILE_VARIABLE):
        return Path(environ[FILE_VARIABLE])
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _anchored(read: YamlFile) -> YamlFile:
    """Make the relative folders in a file relative to that file, wherever the process was started."""
    folders = read.data.get("policies")
    if isinstance(folders, str):
        folders = [folders]
    if isinstance(folders, list):
        read.data["policies"] = [str(read.path.parent / item) if isinstance(item, str) else item for item in folders]
    return read


def _without_nulls(data: dict[str, Any]) -> dict[str, Any]:
    """A key without a value (`audit:` above commented-out lines) means its default."""
    out = {}
    for name, value in data.items():
        if isinstance(value, dict):
            out[name] = _without_nulls(value)
        elif value is not None:
            out[name] = value
    return out


def _leaves(model: type[BaseModel], above: Key = ()) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, (*above, name))
        else:
            yield (*above, name)


def _variables() -> dict[str, Key]:
    return {PREFIX + "_".join(str(part) for part in key).upper(): key for key in _leaves(Settings)}


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[Key, Any, Mark]]:
    known = _variables()
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name != FILE_VARIABLE):
        if name not in known:
            raise SettingsError(f"unknown variable; see docs/policy.md.{did_you_mean(name, known)}", file=name)
        yield known[name], _parsed(known[name], environ[name], name), Mark(name, 0)


def _parsed(key: Key, text: str, name: str) -> Any:
    """A variable's text as the value of its key; pydantic turns the words of numbers and switches into values."""
    if key == ("policies",):
        return [part for part in text.split(os.pathsep) if part]
    if key != ("communities",):
        return text
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise SettingsError(f"is not valid JSON: {error}", file=name) from None
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not sign for _, sign, _ in pairs):
        raise SettingsError(f"expected community=policy,...; got {shorten(text)}", file=name)
    return {left.strip(): right.strip() for left, _, right in pairs}


def _flat(overrides: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    for name, value in overrides.items():
        key = (*above, *name.split("."))
        if isinstance(value, Mapping) and key != ("communities",):
            yield from _flat(value, key)
        elif value is not None:
            yield key, value


def _put(data: dict[str, Any], key: Key, value: Any) -> None:
    for part in key[:-1]:
        below = data.get(str(part))
        data[str(part)] = data = dict(below) if isinstance(below, dict) else {}
    data[str(key[-1])] = value


def _explain(error: ValidationError, marks: Marks, source: Path | None) -> Exception:
    return failure(
        problems(error, Settings, hidden=_SECRET), marks, _settings_error, file=str(source) if source else None
    )


def _settings_error(
    message: str, *, file: str | None = None, line: int | None = None, key: str | None = None
) -> SettingsError:
    return SettingsError(message, file=file, line=line or None, key=key)  # line 0: a variable or an option has no lines
