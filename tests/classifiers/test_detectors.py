"""Kinds `pii` and `secrets`: what they find, what they let pass, and where. All keys and numbers are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guardrail.assembly import assemble
from guardrail.classifiers import pii, secrets
from guardrail.classifiers.base import BuildContext, Classifier
from guardrail.classifiers.detector import DetectorClassifier
from guardrail.engine import Guardrail
from guardrail.errors import ClassifierError
from guardrail.policy import load_policy
from guardrail.settings import Settings
from guardrail.types import Passage, State

CONTEXT = BuildContext("all-MiniLM-L6-v2", "cpu", Path(), Path())
KEY_BLOCK = "-----BEGIN RSA PRIVATE KEY-----\nMIIEogIBAAKCAQEAjosMtDUqbE1\n-----END RSA PRIVATE KEY-----"
GITHUB = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


def find(module: Any, text: str, **options: Any) -> list[tuple[str, str]]:
    classifier = module.build("test", options, CONTEXT)
    (score,) = classifier.score([Passage(text)])
    assert bool(score.value) == bool(score.spans)
    assert len(score.labels) == len(score.spans)
    return [(label, text[start:end]) for label, (start, end) in zip(score.labels, score.spans, strict=True)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to Jo.Doe+x@mail.example.org.", [("email", "Jo.Doe+x@mail.example.org")]),
        ("пиши на иван@почта.рф!", [("email", "иван@почта.рф")]),
        ("card 4111 1111 1111 1111, thanks", [("credit_card", "4111 1111 1111 1111")]),
        ("card ４１１１１１１１１１１１１１１１", [("credit_card", "４１１１１１１１１１１１１１１１")]),
        ("card 4111\u200b1111\u200b1111\u200b1111", [("credit_card", "4111\u200b1111\u200b1111\u200b1111")]),
        ("IBAN GB82 WEST 1234 5698 7654 32 please", [("iban", "GB82 WEST 1234 5698 7654 32")]),
        ("from 81.2.69.142 and 2a00:1450:4009:81f::200e", [("ip", "81.2.69.142"), ("ip", "2a00:1450:4009:81f::200e")]),
        ("SSN 514-69-0360", [("us_ssn", "514-69-0360")]),
        ("DNI 12345678Z", [("national_id", "12345678Z")]),
        ("my NHS number is 943 476 5919", [("national_id", "943 476 5919")]),
        ("call me: +44 20 7946 0958", [("phone", "+44 20 7946 0958")]),
        ("call (202) 662-3902 now", [("phone", "(202) 662-3902")]),
        ("born on 15 July 1994 in Kent", [("date_of_birth", "15 July 1994")]),
        ("pay 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", [("crypto_wallet", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa")]),
        ("nic 00:1b:63:84:45:e6", [("mac", "00:1b:63:84:45:e6")]),
    ],
)
def test_personal_data_is_found_where_it_stands(text: str, found: list[tuple[str, str]]) -> None:
    assert find(pii, text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "card 4111 1111 1111 1112",  # one digit is wrong
        "IBAN GB82 WEST 1234 5698 7654 33",
        "version 10.4.2.1 and 127.0.0.1 and 192.168.1.1 and 999.1.1.1",
        "SSN 666-12-3456 or 000-12-3456",
        "order 12345678901, invoice 2024-11-05 10:42, pages 100-200",
        "We met on 15 July 1994; the score was 10-2, 3 to 1.",
        "pi is 3.14159265358979, isbn 978-3-16-148410-0",
        "someone @ home, a@b, @handle",
    ],
)
def test_what_only_looks_like_it_passes(text: str) -> None:
    assert find(pii, text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"use {GITHUB} today", [("github", GITHUB)]),
        ("id AKIAIOSFODNN7QRSTUVW ok", [("aws", "AKIAIOSFODNN7QRSTUVW")]),
        (f"key:\n{KEY_BLOCK}\nend", [("private_key", KEY_BLOCK)]),
        (f"Bearer {JWT}", [("jwt", JWT)]),
        ("postgres://app:s3cr3t-pw@db:5432/x", [("url_password", "s3cr3t-pw")]),
        ("my password is hunter22, ok?", [("assigned", "hunter22")]),
        ("DB_PASSWORD='tr0ub4dor&3'", [("assigned", "tr0ub4dor&3")]),
        ("machine a login b password pass123", [("assigned", "pass123")]),
        ("root:$6$LnUhhUi45srUKt9i$4Hp6VRTOB2mxvsYH8mwsCfBryg6hCbm4J:1", [
            ("password_hash", "$6$LnUhhUi45srUKt9i$4Hp6VRTOB2mxvsYH8mwsCfBryg6hCbm4J")
        ]),
    ],
)  # fmt: skip
def test_secrets_are_found_where_they_stand(text: str, found: list[tuple[str, str]]) -> None:
    assert find(secrets, text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "Please choose a new password: at least eight characters.",
        "password = get_password()",
        "password: <your password>",
        "api_key = os.environ['API_KEY']",
        "TOKEN=${TOKEN}",
        "The secret is out. The token is valid, and the passage goes on.",
        "eyJub3QiOiJhIn0.eyJub3QiOiJhIn0.not-a-jwt",  # its header names no algorithm
        "http://example.org:8080/a@b",
        "The password is incorrect.",
    ],
)
def test_stand_ins_code_and_sentences_are_no_secrets(text: str) -> None:
    assert find(secrets, text) == []


def test_random_strings_are_found_only_where_asked_for() -> None:
    text = 'x = "Zk3pQ9vT1xLw8RmB5nYcJ7hD2fGs0aKe"'
    assert find(secrets, text) == []
    assert find(secrets, text, types=["high_entropy"]) == [("high_entropy", "Zk3pQ9vT1xLw8RmB5nYcJ7hD2fGs0aKe")]
    assert secrets.entropy("") == 0
    assert secrets.entropy("abab") == 1


def test_types_and_allowed_texts_are_chosen_by_the_policy() -> None:
    text = "a@example.org or 4111 1111 1111 1111"
    assert find(pii, text, types=["email"]) == [("email", "a@example.org")]
    assert find(pii, text, allow=["A@example.org", "4111111111111111"]) == []
    one, other = (pii.build("p", options, CONTEXT) for options in ({}, {"allow": ["x"]}))
    assert isinstance(one, Classifier)
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": ["emial"]}, "Did you mean 'email'?"),
        ({"types": []}, "nothing to look for"),
        ({"types": "email"}, "must be a list"),
        ({"value": 0}, "above 0"),
        ({"words": ["x"]}, "not an option"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        pii.build("p", options, CONTEXT)


@pytest.mark.parametrize(
    ("module", "filler", "wanted"),
    [
        (pii, "12 34-56 a@ 1.2.3.4.5 4111 1111 ", "jo@example.org"),
        (secrets, "pass word= token: = 'x' eyJ sk- ", GITHUB),
    ],
)
def test_a_megabyte_is_read_whole(module: Any, filler: str, wanted: str) -> None:
    dense = filler * 2_000
    prose = "The committee met on Tuesday and talked about the budget of next year. " * 13_000
    found = [value for _, value in find(module, dense + prose + wanted)]
    assert len(dense + prose) > 950_000
    assert found[-1] == wanted


def test_redaction_names_what_was_taken_out(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "policy: p\nclassifiers:\n  private: {kind: pii}\n  keys: {kind: secrets}\nrules:\n  leak:\n"
        "    weights: {private: 1, keys: 1}\n    combine: max\n    thresholds: {redact: 0.5}\n"
    )
    guard = Guardrail(load_policy(tmp_path / "p.yaml"), settings=Settings())
    decision = guard.rewrite(f"Mail jo@example.org, key {GITHUB}. It was fine.")
    assert decision.state is State.REDACTED
    assert decision.delivered == "Mail [email removed], key [github removed]. It was fine."
    assert decision.reasons[0].spans == ((5, 19), (25, 65))


def test_a_policy_of_detectors_loads_no_encoder(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "policy: p\nclassifiers: {private: {kind: pii}}\nrules: {leak: {weights: {private: 1}, thresholds: {flag: 0.5}}}\n"
    )
    assembly = assemble(load_policy(tmp_path / "p.yaml"), Settings())
    assert not assembly.judge.bundle.heads
    assert isinstance(pii.build("p", {}, CONTEXT), DetectorClassifier)
