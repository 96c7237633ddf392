"""Kind `pii`: personal data that has a format: addresses, numbers of phones, cards, accounts and persons.

```yaml
private:
  kind: pii
  types: [email, phone, credit_card, iban]   # default: all
  allow: ["support@example.org"]
```

Whatever carries a check digit is checked: cards by Luhn, IBANs by ISO 7064, national numbers by their country's rule
(python-stdnum); phone numbers against the numbering plans of their country (phonenumbers, Google's library). Names and
postal addresses have no format: they need a model of named entities, which this kind is not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from guardrail.classifiers.detector import Finding, build_detector, compiled

__all__ = ["TYPES", "build", "detect"]

TYPES: Final = (
    "email", "phone", "credit_card", "iban", "ip", "mac", "us_ssn", "national_id", "crypto_wallet", "date_of_birth",
)  # fmt: skip
VERSION: Final = "1"

REGIONS: Final = ("US", "GB", "DE", "FR", "IN", "AU")
"""Where a phone number without a country code may belong; one with a code may belong anywhere."""

_EMAIL = r"[\pL\pN][\pL\pN._%+'-]{0,63}@(?:[\pL\pN](?:[\pL\pN-]{0,61}[\pL\pN])?\.)+[\pL]{2,24}"
_CARD = r"\b[0-9](?:[ -]?[0-9]){11,18}\b"
_IBAN = r"\b[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}\b"
_IPV4 = r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b"
_IPV6 = r"(?i)\b(?:[0-9a-f]{1,4}:{1,2}){2,7}(?:[0-9a-f]{1,4})?"
_MAC = r"(?i)\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b"
_SSN = r"\b[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}\b"
_WALLET = r"\b(?:bc1[a-z0-9]{20,80}|[13][1-9A-HJ-NP-Za-km-z]{25,39})\b"
_DATE = (
    r"(?:[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{2,4}"
    r"|[0-9]{1,2}(?:st|nd|rd|th)? (?:of )?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*,? [0-9]{4}"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{4})"
)
_BIRTH = rf"(?i)\b(?:born(?: on)?|birth ?date|date of birth|birthday|d\.?o\.?b\.?)(?: is| was|:)?[ :]{{0,3}}({_DATE})\b"
_NUMBER = r"[+(]?[0-9][0-9 ()./x-]{5,24}[0-9]"
_DIGIT = re.compile(r"[0-9]")
_PHONE_WORDS = re.compile(
    r"(?i)\b(phone|tel|telephone|mobile|cell|call|calling|fax|whatsapp|text|sms|messages?|dial|reach|ring|answer(?:ing)?|number|contact"
    r"|registered)\b"
)
_LINES = re.compile(r"(?i)^[ -]?(?:office|fax|mobile|cell|home|work)\b")
_NO_PHONE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}|^[0-9]{3}-[0-9]{2}-[0-9]{4}$|^(?:[0-9]{1,3}\.){3}[0-9]{1,3}$|[0-9]/[0-9]{1,2}/"
)
_CARD_WORDS = re.compile(r"(?i)\b(?:card|cc|visa|master ?card|amex|maestro|jcb|diners)\b")
_OTHER_WORDS = re.compile(
    r"(?i)\b(card|account|iban|order|invoice|id|isbn|version|part|tracking|ssn|serial|licen[cs]e|passport|build|registration|model)\b"
)
_NEAR: Final = 40  # characters before a number that may say what it is
_AFTER: Final = 12

_CARD_PREFIXES = compiled(  # issuers' ranges, ISO/IEC 7812
    r"^(?:4[0-9]{12,18}|(?:5[1-5]|2[2-7])[0-9]{14}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11,16}"
    r"|(?:6011|65[0-9]{2}|64[4-9][0-9])[0-9]{12,15}|35(?:2[89]|[3-8][0-9])[0-9]{12,15}|62[0-9]{14,17}"
    r"|(?:50|5[6-9]|6[0-9])[0-9]{10,17}|(?:1800|2131)[0-9]{11})$"
)

# Country's module of stdnum -> (format, whether a word nearby has to name it: short numbers pass their check by chance)
_NATIONAL: Final = {
    "it.codicefiscale": (r"(?i)\b[A-Z]{6}[0-9]{2}[A-EHLMPR-T][0-9]{2}[A-Z][0-9]{3}[A-Z]\b", ""),
    "es.dni": (r"(?i)\b[0-9]{8}-?[A-HJ-NP-TV-Z]\b", ""),
    "es.nie": (r"(?i)\b[XYZ]-?[0-9]{7}-?[A-HJ-NP-TV-Z]\b", ""),
    "br.cpf": (r"\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b", ""),
    "fr.nir": (r"\b[12][ ]?[0-9]{2}[ ]?[0-9]{2}[ ]?[0-9][0-9AB][ ]?[0-9]{3}[ ]?[0-9]{3}[ ]?[0-9]{2}\b", ""),
    "in_.aadhaar": (r"\b[2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}\b", r"(?i)aadha+r|uidai"),
    "gb.nhs": (r"\b[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}\b", r"(?i)\bnhs\b"),
    "ca.sin": (r"\b[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}\b", r"(?i)\bsin\b|social insurance"),
    "de.idnr": (r"\b[0-9]{2}[ ]?[0-9]{3}[ ]?[0-9]{3}[ ]?[0-9]{3}\b", r"(?i)steuer|tax|idnr"),
    "nl.bsn": (r"\b[0-9]{9}\b", r"(?i)\bbsn\b|burgerservice"),
    "pl.pesel": (r"\b[0-9]{11}\b", r"(?i)\bpesel\b"),
    "se.personnummer": (r"\b(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}\b", ""),
}


@cache
def _expression(pattern: str) -> Any:
    return compiled(pattern)


def _spans(pattern: str, text: str, group: int = 0) -> Iterator[tuple[int, int]]:
    for match in _expression(pattern).finditer(text):
        yield match.span(group)


def _emails(text: str) -> Iterator[Finding]:
    if "@" in text:
        for start, end in _spans(_EMAIL, text):
            yield Finding(start, end, "email")


def _cards(text: str) -> Iterator[Finding]:
    from stdnum import luhn

    for start, end in _spans(_CARD, text):
        digits = re.sub(r"[ -]", "", text[start:end])
        known = _CARD_PREFIXES.search(digits) or _CARD_WORDS.search(text[max(0, start - _NEAR) : start])
        if known and luhn.is_valid(digits) and len(set(digits)) > 1:
            yield Finding(start, end, "credit_card")


def _ibans(text: str) -> Iterator[Finding]:
    from stdnum import iban

    for start, end in _spans(_IBAN, text):
        # The words after an IBAN written with spaces look like more of it: try shorter ends.
        for stop in [end, *(end - at - 1 for at, char in enumerate(reversed(text[start:end])) if char in " -")]:
            if iban.is_valid(text[start:stop], check_country=False):
                yield Finding(start, stop, "iban")
                break


def _addresses(text: str) -> Iterator[Finding]:
    """Internet addresses that lead somewhere: loopback, private and documentation ranges are nobody's."""
    for start, end in [*_spans(_IPV4, text), *_spans(_IPV6, text)]:
        before, after = text[max(0, start - 9) : start].lower(), text[end : end + 2]
        if before.endswith((".", "v", "version ")) or re.match(r"\.[0-9]", after):
            continue  # a version number
        try:
            address = ipaddress.ip_address(text[start:end])
        except ValueError:
            continue
        if address.is_global:
            yield Finding(start, end, "ip")


def _macs(text: str) -> Iterator[Finding]:
    for start, end in _spans(_MAC, text):
        if len(set(re.sub(r"[:-]", "", text[start:end].lower()))) > 1:  # not 00:00:00:00:00:00
            yield Finding(start, end, "mac")


def _social_security(text: str) -> Iterator[Finding]:
    from stdnum.us import ssn

    for start, end in _spans(_SSN, text):
        number = text[start:end].replace(" ", "-")
        # Since 2011 numbers are drawn at random: what was never given out are areas 000, 666 and 9xx, and zero groups.
        if ssn.is_valid(number):
            yield Finding(start, end, "us_ssn")


def _nationals(text: str) -> Iterator[Finding]:
    from importlib import import_module

    for module, (pattern, word) in _NATIONAL.items():
        if word and not _expression(word).search(text):
            continue
        for start, end in _spans(pattern, text):
            if import_module(f"stdnum.{module}").is_valid(text[start:end]):
                yield Finding(start, end, "national_id")


def _wallets(text: str) -> Iterator[Finding]:
    from stdnum import bitcoin

    for start, end in _spans(_WALLET, text):
        if bitcoin.is_valid(text[start:end]):
            yield Finding(start, end, "crypto_wallet")


def _births(text: str) -> Iterator[Finding]:
    for start, end in _spans(_BIRTH, text, group=1):
        yield Finding(start, end, "date_of_birth")


def _phones(text: str) -> Iterator[Finding]:
    """Numbers valid in the plan of their country; beside a word such as "call", any of possible length."""
    for start, end in _spans(_NUMBER, text):
        written = text[start:end]
        if not 7 <= len(_DIGIT.findall(written)) <= 15 or _NO_PHONE.search(written):
            continue
        before, after = text[max(0, start - _NEAR) : start], text[end : end + _AFTER]
        named = bool(_PHONE_WORDS.search(before) or _LINES.search(after)) and not _OTHER_WORDS.search(before)
        found = _valid(written)
        if found and (written[0] in "+(" or named or _grouped(written)):
            yield Finding(start + found[0], start + found[1], "phone")
        elif named:
            yield Finding(start, end, "phone")


def _valid(written: str) -> tuple[int, int] | None:
    """Where a number stands that its country's plan knows; one with a country code need only be of possible length."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    abroad = written.startswith("+")
    leniency = Leniency.POSSIBLE if abroad else Leniency.VALID
    for region in (None,) if abroad else REGIONS:
        for match in PhoneNumberMatcher(written, region, leniency=leniency, max_tries=4):
            return match.start, match.end
    return None


def _grouped(number: str) -> bool:
    """Whether digits stand in groups as people write phone numbers, and not as one number or a date."""
    groups = re.findall(r"[0-9]+", number)
    return len(groups) >= 3 and all(2 <= len(group) <= 5 for group in groups) and sum(map(len, groups)) >= 9


_FINDERS: Final[dict[str, Callable[[str], Iterator[Finding]]]] = {
    "email": _emails,
    "credit_card": _cards,
    "iban": _ibans,
    "ip": _addresses,
    "mac": _macs,
    "us_ssn": _social_security,
    "national_id": _nationals,
    "crypto_wallet": _wallets,
    "date_of_birth": _births,
    "phone": _phones,  # last: what can be both is the other one, which has a stricter format
}


def detect(text: str, types: frozenset[str]) -> Iterator[Finding]:
    """Everything of `types` in a text, as it stands. Findings may overlap (a card number may read as a phone's)."""
    if _DIGIT.search(text) is None and "@" not in text:
        return
    for name, finder in _FINDERS.items():
        if name in types:
            yield from finder(text)


build = build_detector("pii", VERSION, detect, TYPES, TYPES)
"""Build the classifier that the options describe (see the module).

Raises:
    ClassifierError: an option or a type is unknown, or of the wrong form.
"""
