"""Settings: file, then variables, then options; every mistake is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from guardrail.errors import SettingsError
from guardrail.settings import Settings, load_settings

CHECKOUT = Path(__file__).parents[1]


def write(text: str) -> Path:
    path = Path("guardrail.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def refused(file: Path | None = None, **arguments: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(file, **{"environ": {}, **arguments})  # type: ignore[arg-type]
    return str(caught.value)


def test_defaults_are_those_that_the_commented_file_shows() -> None:
    shown = load_settings(CHECKOUT / "guardrail.yaml", environ={})
    assert shown.model_copy(update={"policies": (Path("policies"),)}) == Settings()
    assert shown.policies == (CHECKOUT / "policies",)


def test_the_commented_file_shows_every_setting() -> None:
    text = (CHECKOUT / "guardrail.yaml").read_text(encoding="utf-8")

    def names(model: type[BaseModel]) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            found.append(name)
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found += names(field.annotation)
        return found

    assert [name for name in names(Settings) if f"{name}:" not in text] == []


def test_the_file_of_the_working_directory_is_used() -> None:
    write("policy: teen-gaming\naudit: {url: 'sqlite://'}\n")
    settings = load_settings(environ={})
    assert settings.policy == "teen-gaming"
    assert settings.audit.url == "sqlite://"
    assert settings.audit.store_text is True


def test_no_file_means_defaults() -> None:
    assert load_settings(environ={}) == Settings()


def test_a_key_without_a_value_keeps_its_default() -> None:
    write("policy: x\naudit:\n  # url: ...\nstream:\n  hold:\n")
    settings = load_settings(environ={})
    assert settings.audit == Settings().audit
    assert settings.stream.hold == "sentence"


def test_variables_win_over_the_file_and_options_over_variables() -> None:
    write("policy: a\ngateway: {host: h, port: 1}\n")
    environ = {"GUARDRAIL_POLICY": "b", "GUARDRAIL_GATEWAY_PORT": "2", "PATH": "/bin"}
    settings = load_settings(environ=environ, overrides={"gateway": {"port": 3}, "audit.url": None})
    assert (settings.policy, settings.gateway.host, settings.gateway.port) == ("b", "h", 3)
    assert load_settings(environ=environ, overrides={"gateway.port": 4, "policy": "c"}).gateway.port == 4
    assert settings.audit.url == Settings().audit.url


def test_variables_of_every_type() -> None:
    settings = load_settings(
        environ={
            "GUARDRAIL_AUDIT_URL": "postgresql://u:p@h/d",
            "GUARDRAIL_AUDIT_STORE_TEXT": "false",
            "GUARDRAIL_STREAM_MAX_CHARS": "300",
            "GUARDRAIL_REWRITER_TIMEOUT": "1.5",
            "GUARDRAIL_REWRITER_PROMPTED_MODEL": "openai/x",
            "GUARDRAIL_POLICIES": os.pathsep.join(["one", "two"]),
            "GUARDRAIL_COMMUNITIES": "teens = teen-gaming, devs=developer-community",
            "GUARDRAIL_ON_BLOCK": "raise",
        }
    )
    assert settings.audit.url == "postgresql://u:p@h/d"
    assert settings.audit.store_text is False
    assert settings.stream.max_chars == 300
    assert settings.rewriter.timeout == 1.5
    assert settings.rewriter.prompted_model == "openai/x"
    assert settings.policies == (Path("one"), Path("two"))
    assert settings.communities == {"teens": "teen-gaming", "devs": "developer-community"}
    assert settings.on_block == "raise"


def test_communities_may_be_json() -> None:
    settings = load_settings(environ={"GUARDRAIL_COMMUNITIES": '{"a": "b"}'})
    assert settings.policy_for("a") == "b"
    assert settings.policy_for("elsewhere") == "general"


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("policy: named\n", encoding="utf-8")
    assert load_settings(environ={"GUARDRAIL_SETTINGS": str(path)}).policy == "named"
    assert "no such file" in refused(environ={"GUARDRAIL_SETTINGS": "gone.yaml"})


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "g.yaml").write_text(f"policies: [mine, {tmp_path}/abs]\n", encoding="utf-8")
    assert load_settings(folder / "g.yaml", environ={}).policies == (folder / "mine", tmp_path / "abs")
    (folder / "g.yaml").write_text("policies: mine\n", encoding="utf-8")
    assert load_settings(folder / "g.yaml", environ={}).policies == (folder / "mine",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("polciy: x\n", "guardrail.yaml:1: polciy: unknown key; expected one of policy, communities"),
        ("polciy: x\n", "Did you mean 'policy'?"),
        (
            "audit:\n  ulr: x\n",
            (
                "yaml:2: audit.ulr: unknown key; expected one of url, durability, spool, store_text, store_embeddings, "
                "mask, encryption_key, keep_text, keep_decisions, keep_appeals. Did you mean 'url'?"
            ),
        ),
        (
            "audit:\n  durability: ever\n",
            "guardrail.yaml:2: audit.durability: expected one of commit, spool, async; got 'ever'",
        ),
        (
            "on_block: rais\n",
            "guardrail.yaml:1: on_block: expected one of refuse, raise; got 'rais'. Did you mean 'raise'?",
        ),
        (
            "gateway:\n  host: h\n  port: 70000\n",
            "guardrail.yaml:3: gateway.port: expected a number at most 65535; got 70000",
        ),
        ("gateway: 8080\n", "guardrail.yaml:1: gateway: expected a mapping (`key: value` lines); got 8080"),
        ("policy: ''\n", "guardrail.yaml:1: policy: expected text that is not empty; got ''"),
        ("policy: [a]\n", "policy: expected text; got a list"),
        ("communities: {a: [b]}\n", "communities.a: expected text; got a list"),
        ("device: gpu\n", "device: "),
        ("rewriter: {timeout: .inf}\n", "rewriter.timeout: expected a number at most 3600; got inf"),
        ("rewriter: {timeout: 0}\n", "rewriter.timeout: expected a number greater than 0; got 0"),
        ("policies: {a: b}\n", "policies: expected a list; got a mapping"),
        ("policy: a\npolicy: b\n", "guardrail.yaml:2: policy: stands twice"),
        ("", "is empty"),
    ],
)
def test_mistakes_in_the_file_are_named(text: str, words: str) -> None:
    write(text)
    assert words in refused()


def test_all_mistakes_are_listed_at_once() -> None:
    write("polcy: x\ngateway:\n  port: x\n")
    message = refused()
    assert "guardrail.yaml:1: polcy:" in message
    assert "guardrail.yaml:3: gateway.port: expected a whole number; got 'x'" in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("GUARDRAIL_AUDIT_ULR", "x", "GUARDRAIL_AUDIT_ULR: unknown variable"),
        ("GUARDRAIL_AUDIT_ULR", "x", "Did you mean 'GUARDRAIL_AUDIT_URL'?"),
        ("GUARDRAIL_AUDIT", "x", "unknown variable"),
        ("GUARDRAIL_GATEWAY_PORT", "many", "GUARDRAIL_GATEWAY_PORT: gateway.port: expected a whole number; got 'many'"),
        ("GUARDRAIL_COMMUNITIES", "teens", "expected community=policy,...; got 'teens'"),
        ("GUARDRAIL_COMMUNITIES", '{"a": ', "not valid JSON"),
        ("GUARDRAIL_AUDIT_STORE_TEXT", "perhaps", "expected true or false"),
    ],
)
def test_mistakes_in_variables_are_named(name: str, value: str, words: str) -> None:
    assert words in refused(environ={name: value})


def test_mistakes_in_options_are_named() -> None:
    assert "options: gateway.port: expected a whole number" in refused(overrides={"gateway": {"port": "x"}})
    assert "options: gatway: unknown key" in refused(overrides={"gatway": 1})


def test_a_database_password_is_neither_shown_nor_repeated() -> None:
    settings = load_settings(environ={"GUARDRAIL_AUDIT_URL": "postgresql://u:s3cret@h/d"})
    assert "s3cret" not in repr(settings)
    message = refused(overrides={"audit": {"url": ["postgresql://u:s3cret@h/d"]}})
    assert "audit.url: expected text" in message
    assert "s3cret" not in message


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().policy = "x"  # type: ignore[misc]
