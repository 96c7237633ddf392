"""Load a policy, and keep it fresh: `load_policy` for one reading, `PolicySource` for a service that runs on.

Start here to follow a policy from file to use: resolve (files to one document) -> schema and checks (is it right?) ->
revision (what is it called?) -> bundle (how are its rules computed?).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from guardrail.errors import PolicyError
from guardrail.log import Logger
from guardrail.policy.checks import check
from guardrail.policy.resolve import Resolved, find_policy, list_policies, resolve, shipped_policies
from guardrail.policy.revision import canonical_json, content_hash, revision_of
from guardrail.policy.schema import FILE_OPTIONS, PolicyDocument
from guardrail.validation import Problem, failure, problems
from guardrail.yamlfile import Key, Mark, dotted, find

__all__ = ["Policy", "PolicySource", "find_policy", "list_policies", "load_policy", "shipped_policies"]

MAX_NAMED_FILE = 64 * 1_048_576  # bytes of a lexicon or of examples
Stamp = tuple[int, int, int] | None  # modified (ns), bytes, inode; None: not there
_AGAIN: Stamp = (-1, -1, -1)  # equals no file: read it at the next look
_SETTLED_NS = 2_000_000_000  # a file changed more recently than this may still be being written


@dataclass(frozen=True, slots=True)
class Policy:
    """One resolved, checked policy.

    Attributes:
        name: as the file says.
        revision: `"sha256:..."` of `canonical`.
        document: what it says, with all defaults.
        files: every file that it was made from: ancestors, the policy itself, then the lexicons and examples.
        directory: the folder of the policy file. Options that name files are absolute already.
        canonical: the JSON text whose hash is the revision; the audit store keeps it.
        marks: the place of every key, for error messages.
    """

    name: str
    revision: str
    document: PolicyDocument
    files: tuple[Path, ...]
    directory: Path
    canonical: str = field(repr=False)
    marks: Mapping[Key, Mark] = field(repr=False, compare=False, default_factory=dict)

    def error(self, message: str, *key: str | int) -> PolicyError:
        """A `PolicyError` that points at `key` of this policy."""
        mark = find(self.marks, key)
        return PolicyError(
            message, file=mark.file if mark else self.name, line=mark.line if mark else None, key=dotted(key) or None
        )


def load_policy(name_or_path: str | Path, search: Sequence[Path] = ()) -> Policy:
    """Read, resolve and check one policy.

    Args:
        name_or_path: a name (`general`), looked for in `search` and then among the shipped policies; or a file, if it
            is a `Path`, holds a slash or ends in `.yaml` or `.yml`.
        search: folders with policies.

    Raises:
        PolicyError: names file, line, key, what was expected and, for a slip of the pen, what was probably meant.
            All mistakes of a file are listed in one message.
    """
    path = find_policy(name_or_path, search)
    resolved = resolve(path, search)
    named = _anchor_files(resolved)
    document = _validate(resolved, path)
    hashes = {at: content_hash(_read_named(resolved, at, file)) for at, file in named.items()}
    canonical = canonical_json(document, hashes)
    return Policy(
        name=document.policy,
        revision=revision_of(canonical),
        document=document,
        files=(*resolved.files, *dict.fromkeys(named.values())),
        directory=path.absolute().parent,
        canonical=canonical,
        marks=resolved.marks,
    )


def _validate(resolved: Resolved, path: Path) -> PolicyDocument:
    try:
        document = PolicyDocument.model_validate(resolved.data)
    except ValidationError as error:
        found = problems(error, PolicyDocument)
        raise failure([_without_options(item) for item in found], resolved.marks, PolicyError, file=str(path)) from None
    mistakes = check(document)
    if mistakes:
        raise failure(mistakes, resolved.marks, PolicyError, file=str(path))
    return document


def _without_options(problem: Problem) -> Problem:
    """`options` is our own level in the document; the file does not have it."""
    return replace(problem, key=tuple(part for part in problem.key if part != "options"))


def _anchor_files(resolved: Resolved) -> dict[tuple[str, str], Path]:
    """Make file names in classifiers absolute: each is relative to the policy file that gives it."""
    named: dict[tuple[str, str], Path] = {}
    classifiers = resolved.data.get("classifiers")
    for classifier, spec in classifiers.items() if isinstance(classifiers, dict) else ():
        for option in FILE_OPTIONS if isinstance(spec, dict) else ():
            value = spec.get(option)
            if isinstance(value, str):
                folder = Path(resolved.marks[("classifiers", classifier, option)].file).absolute().parent
                named[(classifier, option)] = folder / value
                spec[option] = str(folder / value)
    return named


def _read_named(resolved: Resolved, at: tuple[str, str], path: Path) -> bytes:
    mark = resolved.marks[("classifiers", *at)]

    def refuse(message: str) -> PolicyError:
        return PolicyError(message, file=mark.file, line=mark.line, key=dotted(("classifiers", *at)))

    try:
        if path.exists() and not path.is_file():
            raise refuse(f"expected a file; {path} is a directory or a device")
        if path.stat().st_size > MAX_NAMED_FILE:
            raise refuse(f"{path} has {path.stat().st_size:,} bytes; expected at most {MAX_NAMED_FILE:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise refuse(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


class PolicySource:
    """A policy that follows its files. Thread-safe.

    `current()` looks at the files at most once in `interval` seconds. If an edit is broken, the last good policy stays
    in force, the error is logged once and stands in `last_error` until an edit mends it.

    Args:
        name_or_path: as in `load_policy`.
        search: as in `load_policy`.
        interval: seconds between two looks at the files.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        search: Sequence[Path] = (),
        *,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name_or_path, self.search = name_or_path, tuple(search)
        self.last_error: PolicyError | None = None
        self._interval, self._clock = interval, clock
        self._lock = threading.Lock()
        self._policy: Policy | None = None
        self._stamps: dict[Path, Stamp] = {}
        self._looked = 0.0

    def current(self) -> Policy:
        """The policy in force.

        Raises:
            PolicyError: only while no reading has succeeded yet.
        """
        policy = self._policy
        if policy is not None and self._clock() - self._looked < self._interval:
            return policy
        with self._lock:
            if self._policy is None:
                return self._load()
            if self._clock() - self._looked >= self._interval:
                self._refresh(self._policy)
            return self._policy

    def _load(self) -> Policy:
        settled = time.time_ns() - _SETTLED_NS
        policy = load_policy(self.name_or_path, self.search)
        stamps = {path: _stamp(path) for path in policy.files}
        self._stamps = {path: stamp if stamp and stamp[0] < settled else _AGAIN for path, stamp in stamps.items()}
        self._policy, self.last_error, self._looked = policy, None, self._clock()
        return policy

    def _refresh(self, old: Policy) -> None:
        """Read again if a file changed. A broken state is tried again each time: what mends it may be a new file."""
        self._looked = self._clock()
        if self.last_error is None and all(_stamp(path) == stamp for path, stamp in self._stamps.items()):
            return
        log = Logger("guardrail.policy")
        try:
            new = self._load()
        except PolicyError as error:
            if str(error) != str(self.last_error):
                log.error("policy_reload_failed", policy=old.name, keeps=old.revision, error=str(error))
            self.last_error = error
            return
        if new.revision != old.revision:
            log.info("policy_reloaded", policy=new.name, revision=new.revision, was=old.revision)


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
