"""Checkpoints: the ends of all chains, signed, to be kept where nobody who can write the database can write.

The chain alone shows every change but one: that its newest rows were removed and its head set back, or that all rows from
some place on were written anew. Against a checkpoint that shows too. The signature is Ed25519 (RFC 8032) over the file's
bytes, detached, so that standard tools make keys and verify:

    openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out public.pem
    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in checkpoint.json -sigfile checkpoint.json.sig
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.tables import chain_heads, decisions, event_heads, events
from guardrail.audit.verify_types import Problem
from guardrail.errors import ConfigurationError, MissingDependencyError

__all__ = ["FORMAT", "check", "make", "read", "sign", "verify_signature"]

FORMAT = "guardrail-checkpoint/1"


def make(connection: Connection) -> bytes:
    """Return the ends of all chains as a JSON document."""
    chains = [
        {"chain": name, "community": unescape(row.community), "sequence": row.sequence, "hash": row.hash}
        for name, table in (("decisions", chain_heads), ("events", event_heads))
        for row in connection.execute(select(table).order_by(table.c.community))
    ]
    document = {"format": FORMAT, "created_at": datetime.now(UTC).isoformat(), "chains": chains}
    return (json.dumps(document, indent=2) + "\n").encode()


def sign(document: bytes, key_file: Path) -> bytes:
    """Return the raw Ed25519 signature, 64 bytes.

    Args:
        key_file: a private key in PEM (PKCS #8, not encrypted).

    Raises:
        ConfigurationError: the file cannot be read or holds no such key.
        MissingDependencyError: without the package `cryptography`.
    """
    _serialization, ed25519 = _cryptography()
    key = _load(lambda data: _serialization.load_pem_private_key(data, None), key_file, ed25519.Ed25519PrivateKey)
    signature: bytes = key.sign(document)
    return signature


def verify_signature(document: bytes, signature: bytes, key_file: Path) -> bool:
    """Whether the signature is that of the document under a public key in PEM.

    Raises:
        ConfigurationError, MissingDependencyError: see `sign`.
    """
    _serialization, ed25519 = _cryptography()
    key = _load(_serialization.load_pem_public_key, key_file, ed25519.Ed25519PublicKey)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, document)
    except InvalidSignature:
        return False
    return True


def read(document: bytes) -> list[dict[str, Any]]:
    """Return the chains of a checkpoint.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        content = json.loads(document)
        if content["format"] != FORMAT:
            raise ConfigurationError(f"the checkpoint has the format {content['format']!r}, expected {FORMAT!r}")
        return [{**one, "sequence": int(one["sequence"])} for one in content["chains"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"this is no checkpoint of guardrail: {type(error).__name__}: {error}") from error


def check(connection: Connection, chains: Sequence[dict[str, Any]]) -> Iterator[Problem]:
    """Compare the database with a checkpoint: every chain still holds, at its place, the hash that it had."""
    for one in chains:
        if one["sequence"] == 0:
            continue
        table: Table = events if one["chain"] == "events" else decisions
        mine = (table.c.community == identifier(one["community"])) & (table.c.sequence == one["sequence"])
        found = connection.scalar(select(table.c.hash).where(mine))
        where = (one["community"], one["sequence"], None)
        if found is None and not _retired(connection, one):
            yield Problem("removed", *where, f"the {one['chain']} up to here were there when the checkpoint was made")
        elif found is not None and found != one["hash"]:
            yield Problem("altered", *where, f"the {one['chain']} up to here were written anew since the checkpoint")


def _retired(connection: Connection, one: dict[str, Any]) -> bool:
    """Whether the decision was deleted by age, as an event says."""
    if one["chain"] != "decisions":
        return False
    mine = (events.c.community == identifier(one["community"])) & (events.c.kind == "retention")
    ends = [details.get("decisions_up_to", 0) for details in connection.scalars(select(events.c.details).where(mine))]
    return bool(max(ends, default=0) >= one["sequence"])


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingDependencyError("cryptography", extra="encryption", purpose="Signing checkpoints") from None
    return serialization, ed25519


def _load(parse: Any, file: Path, kind: type) -> Any:
    try:
        key = parse(file.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{file}: no usable key: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(key, kind):
        raise ConfigurationError(f"{file}: expected an Ed25519 key, found {type(key).__name__}")
    return key
