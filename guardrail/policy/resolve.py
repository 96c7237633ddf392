"""Policy files to one document: find, follow `extends`, merge, and keep the place of every key that survives.

Maps merge by key, anything else replaces, `null` removes an inherited key. With several parents each ancestor is
applied once, in the order in which a depth-first walk finishes it, so a common base never undoes what a parent changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import PolicyError, did_you_mean
from guardrail.yamlfile import Key, Mark, Marks, YamlFile, dotted, kind_of, read_yaml

SUFFIXES = (".yaml", ".yml")
OWN_KEYS = ("policy", "extends", "description", "supersedes")  # about one file; a child does not inherit them


@dataclass
class Resolved:
    """A merged document, still plain values; `files` in the order in which they were applied, the leaf last."""

    data: dict[str, Any] = field(default_factory=dict)
    marks: Marks = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def shipped_policies() -> Path:
    """The folder of the policies that come with guardrail: inside the installed package, or in the checkout.

    Raises:
        PolicyError: neither is there; the installation is damaged.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_shipped" / "policies", package.parent / "policies"):
        if folder.is_dir():
            return folder
    raise PolicyError(
        "the policies that come with guardrail are missing; reinstall it: pip install --force-reinstall guardrail-dglm"
    )


def list_policies(search: Sequence[Path] = ()) -> dict[str, Path]:
    """Every policy that can be named: those of the search path, then the shipped ones; the first of a name wins."""
    found: dict[str, Path] = {}
    for folder in (*search, shipped_policies()):
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.suffix in SUFFIXES and path.is_file():
                found.setdefault(path.stem, path)
    return found


def find_policy(name_or_path: str | Path, search: Sequence[Path] = ()) -> Path:
    """The file of a policy. A `Path`, a suffix or a slash means a file; anything else is a name.

    Raises:
        PolicyError: no policy of that name; the message lists those that there are.
    """
    if isinstance(name_or_path, Path) or _looks_like_path(name_or_path):
        return Path(name_or_path)
    found = list_policies(search)
    if name_or_path in found:
        return found[name_or_path]
    known = ", ".join(sorted(found)) or "none"
    raise PolicyError(f"there is no policy named {name_or_path!r}; known: {known}.{did_you_mean(name_or_path, found)}")


def resolve(path: Path, search: Sequence[Path] = ()) -> Resolved:
    """Read a policy file with everything that it extends.

    Raises:
        PolicyError: a file that cannot be read, an unknown parent, a cycle, a `null` that removes nothing.
    """
    merged = Resolved()
    seen: set[Key] = set()
    for read in _ancestry(read_yaml(path, PolicyError), search, (), set()):
        merged.files.append(read.path)
        for name in OWN_KEYS:
            merged.data.pop(name, None)
        _merge(merged, read, merged.data, read.data, (), seen)
        merged.marks[()] = read.marks[()]
    return merged


def _looks_like_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.endswith(SUFFIXES)


def _ancestry(read: YamlFile, search: Sequence[Path], chain: tuple[Path, ...], done: set[Path]) -> Iterator[YamlFile]:
    """The files to apply, ancestors first; each once."""
    here = _identity(read.path)
    chain = (*chain, here)
    for name, mark in _parents(read):
        parent = _parent(name, read.path, search, mark)
        identity = _identity(parent)
        if identity in chain:
            circle = " -> ".join(path.stem for path in (*chain[chain.index(identity) :], identity))
            raise PolicyError(f"extends itself in a circle: {circle}", file=mark.file, line=mark.line, key="extends")
        if identity not in done:
            yield from _ancestry(_read_parent(parent, name, mark), search, chain, done)
    if here not in done:
        done.add(here)
        yield read


def _read_parent(path: Path, name: str, mark: Mark) -> YamlFile:
    if not path.exists():
        raise PolicyError(f"no such file: {name}", file=mark.file, line=mark.line, key="extends")
    return read_yaml(path, PolicyError)


def _identity(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises on a link that leads to itself


def _parents(read: YamlFile) -> Iterator[tuple[str, Mark]]:
    value = read.data.get("extends", [])
    mark = read.marks.get(("extends",), Mark(str(read.path), 1))
    for position, name in enumerate(value if isinstance(value, list) else [value]):
        place = read.marks.get(("extends", position), mark)
        if not isinstance(name, str) or not name:
            message = f"expected the name of a policy, or a list of names; got {kind_of(name)}"
            raise PolicyError(message, file=place.file, line=place.line, key="extends")
        yield name, place


def _parent(name: str, child: Path, search: Sequence[Path], mark: Mark) -> Path:
    """The file that `extends: name` means: beside the child, on the search path, or shipped.

    A file never stands for its own parent: `general.yaml` of a community may extend the shipped `general`.
    """
    if _looks_like_path(name):
        return child.parent / name
    own = [child.parent / f"{name}{suffix}" for suffix in SUFFIXES]
    known = list_policies((child.parent, *search))
    others = [folder / f"{name}{suffix}" for folder in (*search, shipped_policies()) for suffix in SUFFIXES]
    candidates = [path for path in (*own, *others) if path.is_file()]
    for path in candidates:
        if _identity(path) != _identity(child):
            return path
    if candidates:
        return candidates[0]  # only itself: reported as a circle
    message = f"there is no policy named {name!r}; known: {', '.join(sorted(known))}.{did_you_mean(name, known)}"
    raise PolicyError(message, file=mark.file, line=mark.line, key="extends")


def _merge(
    into: Resolved, read: YamlFile, target: dict[str, Any], source: dict[str, Any], above: Key, seen: set[Key]
) -> None:
    for name, value in source.items():
        key = (*above, name)
        mark = read.marks[key]
        old = target.get(name)
        if value is None:
            if key not in seen:
                raise PolicyError(
                    _nothing_to_remove(name, above, seen), file=mark.file, line=mark.line, key=dotted(key)
                )
            target.pop(name, None)
            _forget(into.marks, key)
            continue
        seen.add(key)
        if isinstance(value, dict):
            if not isinstance(old, dict):
                _forget(into.marks, key)
                target[name] = {}
            into.marks[key] = mark
            _merge(into, read, target[name], value, key, seen)
            continue
        if isinstance(old, dict | list):
            _forget(into.marks, key)
        target[name] = value
        into.marks[key] = mark
        if isinstance(value, list):
            into.marks.update({at: place for at, place in read.marks.items() if at[: len(key)] == key})


def _nothing_to_remove(name: str, above: Key, seen: set[Key]) -> str:
    siblings = [str(key[-1]) for key in seen if key[:-1] == above]
    return f"`null` removes an inherited key, and no key {name!r} is inherited here.{did_you_mean(name, siblings)}"


def _forget(marks: Marks, key: Key) -> None:
    for at in [at for at in marks if at[: len(key)] == key]:
        del marks[at]
