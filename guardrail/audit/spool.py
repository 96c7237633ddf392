"""The local spool: records on this machine's disk, fsynced, while the database is away or has not been reached yet.

A process appends to a file of its own, locked for as long as it lives; a file whose lock is free belonged to a process
that died and is taken over. A line is a checksum and one call's records as JSON. Only a line that is on disk whole was
ever acknowledged, so a torn last line is dropped; a line that is damaged in the middle of a file is kept aside.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from guardrail.audit.rows import DecisionRows, repeated
from guardrail.audit.writer import Batch
from guardrail.errors import AuditUnavailable, ConfigurationError
from guardrail.log import Logger

__all__ = ["Spool", "decode", "encode"]

log = Logger(__name__)

SUFFIX = ".spool"
GROUP = 256
"""Calls that are drained in one transaction."""

_PARTS = ("decision", "scores", "reasons", "rewrites", "content", "embeddings", "holds")


class Spool:
    """This process's spool file, and those of processes that are gone. Thread-safe; opens nothing until it is used.

    Args:
        folder: on a local disk; made when it is needed, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._lock = threading.RLock()
        self._own: Path | None = None
        self._file = -1
        self._size = 0
        self._revisions: set[str] = set()  # policies that stand in the file

    @property
    def empty(self) -> bool:
        """Whether this process has nothing in the spool."""
        return self._size == 0

    def append(self, batches: Sequence[Batch]) -> None:
        """Write records; on return they survive a crash of the process and of the machine.

        Raises:
            AuditUnavailable: they could not be written; none of them counts as written.
        """
        with self._lock:
            new = {batch.policy["revision"]: batch.policy for batch in batches}
            lines = [_json({"policy": row}) for key, row in new.items() if key not in self._revisions]
            data = b"".join(_line(body) for body in (*lines, *map(encode, batches)))
            try:
                if self._file < 0:
                    self._open()
                _write_all(self._file, data)
                os.fsync(self._file)
            except OSError as error:
                self._undo()
                raise AuditUnavailable(
                    f"the spool in {self.folder} cannot be written ({error.strerror or error}), so nothing was recorded. "
                    "Make room on that disk, or set audit.spool to another folder."
                ) from error
            self._size += len(data)
            self._revisions |= set(new)

    def drain(self, write: Callable[[Sequence[Batch]], Sequence[Exception | None]]) -> int:
        """Hand everything over in the order in which it was spooled, oldest file first, and forget it.

        Args:
            write: writes batches exactly once, even if it is given some of them again after a crash; returns for each
                None, or why it can never be written: such a record is kept in a file ending in `.rejected`. Raises
                when it cannot write now.

        Returns:
            How many calls were written.
        """
        count = 0
        for path, file in self._orphans():
            try:
                count += self._hand_over(path, 0, None, {}, write)
                path.unlink()
            finally:
                os.close(file)
        done = 0
        policies: dict[str, Any] = {}
        while True:
            with self._lock:
                if self._own is None or self._size == done:  # nothing came while the last group was written
                    if self._size:
                        os.ftruncate(self._file, 0)
                        self._size = 0
                        self._revisions.clear()
                    return count
                path, end = self._own, self._size
            count += self._hand_over(path, done, end, policies, write)
            done = end

    def close(self) -> None:
        """Give the file up; what is in it is taken over by the next process, or removed if there is nothing in it."""
        with self._lock:
            if self._file < 0:
                return
            if self._size == 0 and self._own is not None:
                self._own.unlink(missing_ok=True)
            os.close(self._file)
            self._forget()

    def forget_after_fork(self) -> None:
        """In a child process: leave the parent's file to the parent."""
        self._lock = threading.RLock()
        if self._file >= 0:
            os.close(self._file)
        self._forget()

    def _forget(self) -> None:
        self._own, self._file, self._size = None, -1, 0
        self._revisions = set()

    def waiting(self) -> list[tuple[Path, int]]:
        """Return all spool files with their sizes in bytes, this process's own among them."""
        if not self.folder.is_dir():
            return []
        return [(path, path.stat().st_size) for path in sorted(self.folder.glob(f"*{SUFFIX}*"))]

    def _open(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as error:
            raise ConfigurationError(f"audit.spool is {self.folder}, which is not a folder") from error
        path = self.folder / f"{os.getpid()}-{uuid.uuid4().hex}{SUFFIX}"
        unlocked = path.with_suffix(".new")  # no other process may take it over before it is locked
        file = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        unlocked.rename(path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name of a new file is on disk only with its folder
        finally:
            os.close(folder)
        self._own, self._file, self._size = path, file, 0

    def _undo(self) -> None:
        """Take back what was written of a failed append; a file that cannot be mended is left behind for good."""
        if self._file < 0:
            return
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            os.close(self._file)  # whoever takes it over drops the torn line
            self._forget()

    def _orphans(self) -> Iterator[tuple[Path, int]]:
        """Yield the files of processes that are gone, locked by us, in the order in which they were last written."""
        if not self.folder.is_dir():
            return
        found = [path for path in self.folder.glob(f"*{SUFFIX}") if path != self._own]
        for path in sorted(found, key=_modified):
            try:
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # another process has drained it meanwhile
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # its process lives
                os.close(file)
                continue
            if not path.exists():  # drained between our opening and our lock
                os.close(file)
                continue
            yield path, file

    def _hand_over(
        self,
        path: Path,
        start: int,
        end: int | None,
        policies: dict[str, Any],
        write: Callable[[Sequence[Batch]], Sequence[Exception | None]],
    ) -> int:
        """Write the records between two places of a file, up to its end for None; return how many calls that were."""
        count = 0
        group: list[tuple[bytes, Batch]] = []
        with path.open("rb") as stream:
            stream.seek(start)
            while end is None or stream.tell() < end:
                line = stream.readline()
                if not line:
                    break
                batch = _read(line, policies)
                if batch is not None:
                    group.append((line, batch))
                elif line.endswith(b"\n") and not _is_policy(line):  # a line without an end was never acknowledged
                    self._keep(path, ".damaged", line)
                if len(group) == GROUP:
                    count += self._write(path, group, write)
                    group = []
        return count + self._write(path, group, write)

    def _write(
        self,
        path: Path,
        group: list[tuple[bytes, Batch]],
        write: Callable[[Sequence[Batch]], Sequence[Exception | None]],
    ) -> int:
        if not group:
            return 0
        outcomes = write([batch for _, batch in group])
        for (line, _), outcome in zip(group, outcomes, strict=True):
            if outcome is not None:
                self._keep(path, ".rejected", line, str(outcome))
        return sum(outcome is None for outcome in outcomes)

    def _keep(self, path: Path, suffix: str, line: bytes, why: str = "the line is damaged") -> None:
        aside = path.with_name(path.name + suffix)
        log.error("a spooled record was not written; it is kept aside", file=str(aside), why=why)
        with aside.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())


def encode(batch: Batch) -> bytes:
    """Return a call's records as JSON. Their policy is named by its revision; it has a line of its own."""
    rows = [{name: getattr(row, name) for name in _PARTS} for row in batch.rows]
    return _json({"revision": batch.policy["revision"], "rows": rows})


def decode(value: Any, policies: dict[str, Any]) -> Batch:
    """Return the records that `encode` wrote, now or in an earlier version; their deadline is long past.

    Raises:
        KeyError, TypeError: not what `encode` makes, or of a policy that is not known.
    """
    rows = [DecisionRows(**row) for row in value["rows"]]
    for row in rows:
        row.reasons = [repeated(row.decision) | reason for reason in row.reasons]  # since migrations 0006 and 0007
    return Batch(rows, policies[value["revision"]], 0.0)


def _json(value: Any) -> bytes:
    return json.dumps(value, default=_tag, separators=(",", ":")).encode()


def _tag(value: Any) -> dict[str, str]:
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} cannot be spooled")


def _untag(value: dict[str, Any]) -> Any:
    if len(value) == 1:
        if "$time" in value:
            return datetime.fromisoformat(value["$time"])
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"])
    return value


def _line(body: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _read(line: bytes, policies: dict[str, Any]) -> Batch | None:
    """Return the records of a line; None where it is torn, damaged, or a policy, which is remembered."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        value = json.loads(body, object_hook=_untag)
        if "policy" in value:
            policies[value["policy"]["revision"]] = value["policy"]
            return None
        return decode(value, policies)
    except (ValueError, KeyError, TypeError):
        return None


def _is_policy(line: bytes) -> bool:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    return body.startswith(b'{"policy":') and checksum == b"%08x" % zlib.crc32(body)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
