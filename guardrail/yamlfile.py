"""Files that people write by hand, read as YAML with the line of every key kept: a mistake is shown where it is.

Only the JSON-like core of YAML 1.2 is understood, as editors with a YAML language server do: `no` is a word and not
false, `1e-3` is a number, a date is text. Nothing in a file can construct an object or run code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

MAX_BYTES = 1_048_576  # a policy is a page; a megabyte is a mistake
MAX_DEPTH = 20
MAX_VALUES = 50_000  # after aliases are expanded: stops the "billion laughs"

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a key stands. Lines count from 1."""

    file: str
    line: int


Marks = dict[Key, Mark]


class Fail(Protocol):
    """Makes the exception to raise; `PolicyError` and `SettingsError` fit."""

    def __call__(
        self, message: str, *, file: str | None = ..., line: int | None = ..., key: str | None = ...
    ) -> Exception:
        """The exception, not yet raised."""
        ...


@dataclass(frozen=True, slots=True)
class YamlFile:
    """One file: its top-level mapping, and the mark of every key and list item in it."""

    path: Path
    data: dict[str, Any]
    marks: Marks


def dotted(key: Key) -> str:
    """`("rules", "spam", "stages", 0)` as `rules.spam.stages[0]`."""
    out = ""
    for part in key:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def find(marks: Mapping[Key, Mark], key: Key) -> Mark | None:
    """The mark of `key`, or else of the nearest key above it."""
    for end in range(len(key), -1, -1):
        if key[:end] in marks:
            return marks[key[:end]]
    return None


def read_text(path: Path, fail: Fail, *, limit: int = MAX_BYTES) -> str:
    """The text of a file that a person wrote.

    Raises:
        what `fail` makes: the file is missing, a directory or a device, over `limit` bytes, binary, or not UTF-8.
    """
    name = str(path)
    try:
        if path.is_dir():
            raise fail("is a directory; expected a file", file=name)
        if path.exists() and not path.is_file():
            raise fail("is not a regular file", file=name)
        if path.stat().st_size > limit:
            raise fail(f"has {path.stat().st_size:,} bytes; expected at most {limit:,}", file=name)
        raw = path.read_bytes()
    except FileNotFoundError:
        raise fail("no such file", file=name) from None
    except (OSError, ValueError) as error:
        raise fail(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=name) from error
    if b"\0" in raw:
        raise fail("holds NUL bytes: a binary file; expected UTF-8 text", file=name)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise fail(f"is not UTF-8 text (byte {error.start}); save it as UTF-8", file=name, line=line) from None


def read_yaml(path: Path, fail: Fail) -> YamlFile:
    """Read one file whose top level is a mapping.

    Raises:
        what `fail` makes: everything that `read_text` refuses, bad YAML, duplicate keys, keys that are not text,
        tags, several documents, more than `MAX_DEPTH` levels or `MAX_VALUES` values.
    """
    data, marks = parse_yaml(read_text(path, fail), str(path), fail)
    if data is None:
        raise fail("is empty; expected `key: value` lines", file=str(path))
    if not isinstance(data, dict):
        raise fail(f"expected `key: value` lines at the top level; got {kind_of(data)}", file=str(path), line=1)
    return YamlFile(path, data, marks)


def parse_yaml(text: str, file: str, fail: Fail) -> tuple[Any, Marks]:
    """Plain values of a YAML text, with the mark of every key and list item. See `read_yaml` for the errors."""
    try:
        loader = _CoreLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not valid YAML: {error.problem or error.context}"
        raise fail(message, file=file, line=mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise fail(
            f"holds a character that YAML does not allow (#x{error.character:04x})", file=file, line=line
        ) from None
    except RecursionError:
        raise fail(f"is nested more than {MAX_DEPTH} levels deep", file=file) from None
    if node is None:
        return None, {}
    reader = _Reader(file, fail)
    return reader.value(node, ()), reader.marks


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the plain scalars of the YAML 1.2 core schema."""


_CoreLoader.yaml_implicit_resolvers = {}
_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_STR, _SEQ, _MAP, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map", "merge"))
_CoreLoader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_CoreLoader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_CoreLoader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_CoreLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
_CoreLoader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])


class _Reader:
    """Turns a node graph into plain values; counts what it makes, since an alias can multiply it."""

    def __init__(self, file: str, fail: Fail) -> None:
        self.file, self.fail, self.marks, self.count = file, fail, Marks(), 0

    def value(self, node: yaml.Node, key: Key) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise self.error(node, key, f"expands to more than {MAX_VALUES:,} values (aliases?)")
        if len(key) > MAX_DEPTH:
            raise self.error(node, key[:3], f"is nested more than {MAX_DEPTH} levels deep")
        self.marks.setdefault(key, Mark(self.file, node.start_mark.line + 1))
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return [self.value(item, (*key, position)) for position, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, key)
        raise self.error(node, key, f"the tag {node.tag!r} is not allowed")

    def mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        out: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name_node, value_node in node.value:
            name = self.name(name_node, key)
            line = name_node.start_mark.line + 1
            if name in out:
                raise self.error(name_node, (*key, name), f"stands twice; it was first given on line {lines[name]}")
            lines[name] = line
            self.marks[(*key, name)] = Mark(self.file, line)
            out[name] = self.value(value_node, (*key, name))
        return out

    def name(self, node: yaml.Node, key: Key) -> str:
        if node.tag == _MERGE:
            raise self.error(
                node, key, "YAML merge keys (`<<`) are not supported; write the values out, or use `extends`"
            )
        if not isinstance(node, yaml.ScalarNode) or node.tag != _STR:
            shown = node.value if isinstance(node, yaml.ScalarNode) else "this one"
            raise self.error(node, key, f'expected keys that are text; put {shown} in quotes: "{shown}"')
        return self.text(node, key)

    def scalar(self, node: yaml.ScalarNode, key: Key) -> Any:
        text = node.value
        try:
            if node.tag == _NULL:
                return None
            if node.tag == _BOOL:
                return {"true": True, "false": False}[text.lower()]
            if node.tag == _INT:
                return int(text)
            if node.tag == _FLOAT:
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            raise self.error(node, key, f"{shorten(text)} is not {node.tag.rpartition(':')[2]}") from None
        if node.tag == _STR:
            return self.text(node, key)
        raise self.error(node, key, f"the tag {node.tag!r} is not allowed")

    def text(self, node: yaml.ScalarNode, key: Key) -> str:
        """The text of a scalar; `"\\ud800"` makes half a character, which nothing could store or send."""
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise self.error(node, key, "holds half of a surrogate pair (\\ud800 to \\udfff), which is no character")
        return str(node.value)

    def error(self, node: yaml.Node, key: Key, message: str) -> Exception:
        return self.fail(message, file=self.file, line=node.start_mark.line + 1, key=dotted(key) or None)


def kind_of(value: object) -> str:
    """What a plain value is, in words for a person."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return shorten(value)


def shorten(value: object, limit: int = 60) -> str:
    """`repr`, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
