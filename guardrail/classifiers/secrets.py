"""Kind `secrets`: credentials that should not stand in a chat, a log or a reply.

```yaml
keys:
  kind: secrets
  types: [private_key, aws, github]      # default: all but high_entropy
  allow: ["sk-test-0000"]
```

Three ways, after detect-secrets and gitleaks: formats that their issuers publish (`github`, `aws`, ...), values that are
assigned to a name such as `password` (`assigned`), and quoted strings that look random (`high_entropy`: Shannon entropy
per character of at least 4.5 bits among base64 characters, 3.0 among hexadecimal ones, detect-secrets' limits). A match
that is a stand-in (`<token>`, `changeme`, `xxxx`, `${VAR}`) or does not look random enough for a key does not count.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from guardrail.classifiers.detector import Finding, build_detector, compiled

__all__ = ["DEFAULT", "TYPES", "build", "detect", "entropy"]

VERSION: Final = "1"
BASE64_LIMIT: Final = 4.5
HEX_LIMIT: Final = 3.0
KEY_LIMIT: Final = 2.5
"""Bits per character that the value of a published key format has at least: `ghp_xxxx...` is a stand-in."""


@dataclass(frozen=True, slots=True)
class _Format:
    """A published format. `group` holds the secret, which `check` may look at besides its entropy."""

    type: str
    pattern: str
    group: int = 0
    limit: float = KEY_LIMIT
    check: Callable[[str], bool] = lambda _: True


def _is_jwt(token: str) -> bool:
    header = token.partition(".")[0]
    try:
        return "alg" in json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, binascii.Error, TypeError):
        return False


_FORMATS: Final = (
    _Format(
        "private_key",
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)"
        r"(?:-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|\z)",
        limit=0,
    ),
    _Format("private_key", r"PuTTY-User-Key-File-[23]:(?s:.*?)(?:Private-(?:MAC|Hash): ?[0-9a-f]+|\z)", limit=0),
    _Format("private_key", r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b"),
    _Format("aws", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    _Format(
        "aws", r"(?i:aws.{0,20}secret.{0,20}|secret_?access_?key)[\"' :=>]{1,6}([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+]|\z)", 1
    ),
    _Format("github", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,100})\b"),
    _Format("gitlab", r"\bgl(?:pat|ptt|dt|rt|cbt|oas)-[A-Za-z0-9_-]{20,64}"),
    _Format("slack", r"\bxox[abeoprs]-(?:[0-9]+-)*[A-Za-z0-9-]{10,120}"),
    _Format("slack", r"https://hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{16,}"),
    _Format("stripe", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,120}\b"),
    _Format("anthropic", r"\bsk-ant-[A-Za-z0-9_-]{20,200}"),
    _Format("openai", r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,200}"),
    _Format("google", r"\bAIza[A-Za-z0-9_-]{35}\b|\bGOCSPX-[A-Za-z0-9_-]{28}\b|\bya29\.[A-Za-z0-9_-]{30,}"),
    _Format("huggingface", r"\bhf_[A-Za-z0-9]{30,40}\b"),
    _Format("azure", r"(?i:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{43,88}={0,2})", 1),
    _Format("twilio", r"\bSK[0-9a-f]{32}\b"),
    _Format("sendgrid", r"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
    _Format("mailchimp", r"\b[0-9a-f]{32}-us[0-9]{1,2}\b"),
    _Format("telegram", r"\b[0-9]{8,10}:[A-Za-z0-9_-]{35}\b"),
    _Format("discord", r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}"),
    _Format("package_registry", r"\bnpm_[A-Za-z0-9]{36}\b|\bpypi-[A-Za-z0-9_-]{50,}"),
    _Format("cloud", r"\bdop_v1_[a-f0-9]{64}\b|\bdapi[a-f0-9]{32}\b|\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b"),
    _Format("square", r"\bsq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,43}"),
    _Format("jwt", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*", check=_is_jwt),
    _Format("url_password", r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@\"'<>]{0,80}:([^\s/@\"'<>]{3,80}(?:@[0-9]+)?)@", 1, 0),
    _Format(
        "password_hash", r"\$(?:1|2[abxy]?|5|6|y|apr1|argon2(?:id|i|d))\$[./A-Za-z0-9$=,+]{20,200}|\{SSHA\}[A-Za-z0-9+/=]{20,}"
    ),
)  # fmt: skip

_NAME = (
    r"(?:[A-Za-z0-9_.$-]{0,40}(?i:password|passwd|passphrase|passcode|pwd|secret|api_?-?key|access_?-?key|auth_?-?key"
    r"|private_?-?key|encryption_?-?key|master_?-?key|client_?-?key|app_?-?key|[a-z]_(?:key|salt|pass|auth)|token|credentials?)s?"
    r"|(?i:\bpass|\b_?auth|irc_pass))(?:[_-][A-Za-z0-9_]{1,20}|[0-9]{1,3})?"
)
_ASSIGNED = (
    rf"{_NAME}(?:"  # a sign between name and value, or a comma between quoted ones, or only a space
    r"[\"']?\]?\s{0,3}(?:=>|:=|==?|:|\bis:?\b|</?[a-z]{1,8}>|(?: [a-z]{1,12}=\"[a-z0-9]{1,12}\")?>)\s{0,4}"
    r"(?:[bru]?\"([^\"\n]{4,200})\"|[bru]?'([^'\n]{4,200})'|([^\s\"'`<>(){};,]{4,200}))"
    r"|[\"'],\s{0,4}[\"']([^\"'\n]{4,200})[\"']"
    r"|\s{1,4}\"?([^\s\"'`<>(){};,]{6,200})\"?)"
)
_QUOTED = r"[\"'`]([A-Za-z0-9+/=_-]{20,400})[\"'`]"

_STAND_IN = re.compile(
    r"(?i)^(?:<.*>|\$\{?[a-z_][a-z0-9_.]*\}?|\{\{.*\}\}|%[a-z_]*%?[sd]?|\[.*\]|\*+|x{3,}|\.{3,}|0+|-+"
    r"|.*(?:example|placeholder|changeme|change_me|redacted|removed|insert|replace_?me|your[-_ ]"
    r"|my[-_](?:secret|password|token|key)"
    r"|dummy|todo|sample).*"
    r"|null|none|nil|true|false|undefined|string|str|text|required|optional|secret|token|key|value|env|int|bool|self)$"
)
_CODE = re.compile(r"[()\[\]{}]|^(?:os|process|self|this|config|settings|env|request)[.\[]|::|^\$|^@|^&|->|^/|^https?:")
_PLAIN_WORD = re.compile(r"^[A-Za-z]+[.!?,;:]?$|^[a-z]+(?:[-_.][a-z]+)+$|^[0-9]{1,4}$")

TYPES: Final = (*dict.fromkeys(one.type for one in _FORMATS), "assigned", "high_entropy")
DEFAULT: Final = tuple(one for one in TYPES if one != "high_entropy")


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters, in bits per character; 0 for the empty text."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values()) if text else 0.0


@cache
def _expression(pattern: str) -> Any:
    return compiled(pattern)


@cache
def _any(types: frozenset[str]) -> Any:
    """All formats of these types in one expression, so that a text without any is read once."""
    patterns = [one.pattern for one in _FORMATS if one.type in types]
    return compiled("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None


def detect(text: str, types: frozenset[str]) -> Iterator[Finding]:
    """Every secret of `types` in a text, as it stands; what a published format and a name find both is found twice."""
    some = _any(types)
    if some is not None and some.search(text) is not None:
        for one in _FORMATS:
            if one.type in types:
                yield from _formatted(one, text)
    if "assigned" in types:
        yield from _assigned(text)
    if "high_entropy" in types:
        yield from _random(text)


def _formatted(one: _Format, text: str) -> Iterator[Finding]:
    for match in _expression(one.pattern).finditer(text):
        start, end = match.span(one.group)
        secret = text[start:end]
        if entropy(secret) >= one.limit and one.check(secret) and not _STAND_IN.match(secret):
            yield Finding(start, end, one.type)


def _assigned(text: str) -> Iterator[Finding]:
    for match in _expression(_ASSIGNED).finditer(text):
        place = next(group for group in range(1, 6) if match.span(group)[0] >= 0)
        start, end = match.span(place)
        value = text[start:end]
        if place in (3, 5):
            value = value.rstrip(".!?")
            end = start + len(value)
        if _is_value(value, quoted=place in (1, 2, 4), assigned=place != 5):
            yield Finding(start, end, "assigned")


def _is_value(value: str, *, quoted: bool, assigned: bool) -> bool:
    """Whether what stands beside a name is a credential: no stand-in, no code, no word of a sentence."""
    if len(value) < 4 or _STAND_IN.match(value) or len(set(value)) < 3:
        return False
    if quoted:
        sentence = value.count(" ") >= 2 and entropy(value) < BASE64_LIMIT
        return not sentence and (" " not in value or _mixed(value))
    if _CODE.search(value) or _PLAIN_WORD.match(value):
        return False  # "password: required", "token is valid"
    digits, letters = re.search(r"[0-9]", value), re.search(r"[A-Za-z]", value)
    return _mixed(value) if assigned else bool(digits and letters)


def _mixed(value: str) -> bool:
    """Whether a value holds characters of two classes, digits or signs among them, as words do not."""
    letters, digits = re.search(r"[A-Za-z]", value), re.search(r"[0-9]", value)
    signs = re.search(r"[^A-Za-z0-9\s]", value.strip(".,:;!?'\"-"))
    return (
        bool(digits and letters)
        or bool(signs and (letters or digits) and len(value) >= 6)
        or bool(digits and len(value) >= 8)
    )


def _random(text: str) -> Iterator[Finding]:
    for match in _expression(_QUOTED).finditer(text):
        start, end = match.span(1)
        value = text[start:end]
        hexadecimal = re.fullmatch(r"[0-9a-fA-F]+", value) is not None
        if entropy(value) >= (HEX_LIMIT if hexadecimal else BASE64_LIMIT) and not _STAND_IN.match(value):
            yield Finding(start, end, "high_entropy")


build = build_detector("secrets", VERSION, detect, TYPES, DEFAULT)
"""Build the classifier that the options describe (see the module).

Raises:
    ClassifierError: an option or a type is unknown, or of the wrong form.
"""
