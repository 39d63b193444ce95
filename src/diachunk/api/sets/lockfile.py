"""The text of `diachunk.lock`: which manifest each target of a project file stands for.

A lock is read as a stranger's file. It is written so that the same set gives the same text, whoever writes it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diachunk.digest import Digest, parse_digest
from diachunk.errors import StoreError, TrustError, UsageError, os_errors
from diachunk.manifest import Manifest
from diachunk.manifest.names import is_component, is_name, is_revision
from diachunk.store.files import Files
from diachunk.values import parse_toml, read_text

VERSION = 1
_HEAD = """\
# Which weights this project runs with. Written by `diachunk fetch`, restored by `diachunk fetch --locked`.
# Keep it with the code; `diachunk fetch --update` renews it.
"""
_INTEGER_MAX = 2**53
_TEXT_CHARS_MAX = 4096
_ENTRY_KEYS = ("target", "name", "revision", "id", "total_bytes", "files")
_UPSTREAM_KEYS: Mapping[str, tuple[str, ...]] = {"hub": ("repository", "commit"), "url": ("url",)}


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the files of a component were published first: for readers, and outside what is trusted.

    Attributes:
        facts: `repository` and `commit` of a hub, or `url`.
    """

    component: str
    kind: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One target, and the manifest that it stands for.

    Attributes:
        target: as the project file names it; with `--include PATTERN`s behind it where it wants some files only.
        total_bytes, files: of the whole checkpoint, also where the project wants some components only; of a recipe
            these are a checkpoint of their own.
    """

    target: str
    name: str
    revision: str
    id: Digest
    total_bytes: int
    files: int
    upstreams: tuple[Upstream, ...] = ()

    @classmethod
    def of(cls, target: str, manifest: Manifest) -> Entry:
        """What a lock says of a manifest."""
        return cls(
            target,
            manifest.name,
            manifest.revision,
            manifest.id,
            manifest.total_bytes,
            sum(len(component.files) for component in manifest.components),
            tuple(filter(None, map(_upstream_of, manifest.components))),
        )

    @property
    def hex_id(self) -> str:
        return self.id.hex()

    @property
    def hub_target(self) -> str:
        """`hub:ORG/REPO@COMMIT` for a target that is a repository of a hub, whose branch moves on; or ""."""
        repository = dict(self.upstreams[0].facts).get("repository") if len(self.upstreams) == 1 else None
        if repository is None or self.target.partition(" ")[0].partition("@")[0] != f"hub:{repository}":
            return ""
        return f"hub:{repository}@{dict(self.upstreams[0].facts)['commit']}"

    def check_upstreams(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Whether a recipe that was not fetched here yet can be what was locked.

        Args:
            found: where its components come from now, by their names.

        Raises:
            TrustError: it comes from elsewhere, so its id is another one.
        """
        for each in self.upstreams:
            for key, value in each.facts:
                now = found.get(each.component, {}).get(key)
                if now != value:
                    raise TrustError(
                        f"{self.target} is locked to {self.hex_id}, of {key} {value}, but {each.component or 'it'} "
                        f"comes from {key} {now or 'nowhere'} now",
                        hint="`diachunk fetch --update` takes the new one and rewrites the lock",
                    )

    def check(self, manifest: Manifest) -> None:
        """Whether a manifest is the one that was locked.

        Raises:
            TrustError: it is another one; names both ids.
        """
        if manifest.id != self.id:
            raise TrustError(
                f"{self.target} is locked to {self.hex_id}, but stands for {manifest.hex_id} now",
                hint="`diachunk fetch --update` takes the new one and rewrites the lock",
            )
        said = Entry.of(self.target, manifest)
        for key in ("name", "revision", "total_bytes", "files"):
            if getattr(said, key) != getattr(self, key):
                raise TrustError(
                    f"{self.target}: the lock says {key} {getattr(self, key)}, but {self.hex_id} has "
                    f"{getattr(said, key)}: somebody changed the lock",
                    hint="restore the lock, or `diachunk fetch --update`",
                )


def _upstream_of(component: Any) -> Upstream | None:
    said = component.upstream
    keys = _UPSTREAM_KEYS.get(str(said.get("kind")), ())
    if not keys or not all(isinstance(said.get(key), str) for key in keys):
        return None  # a kind that a newer version knows
    facts = tuple((key, said[key]) for key in keys)
    fits = all(len(value) <= _TEXT_CHARS_MAX for _, value in facts)
    return Upstream(component.name, said["kind"], facts) if fits else None


def read_lock(path: Path) -> dict[str, Entry] | None:
    """The entries of a lock file by target; None if there is no such file.

    Raises:
        UsageError: it cannot be read, or breaks the grammar; names the line or the entry.
    """
    text = read_text(path)
    return None if text is None else parse_lock(text, str(path))


def parse_lock(text: str, label: str) -> dict[str, Entry]:
    """Reads what `format_lock` writes.

    Raises:
        UsageError: it is something else.
    """
    hint = "restore it from the project's repository, or remove it and run `diachunk fetch`"
    try:
        return _entries(parse_toml(text, label), label)
    except UsageError as error:
        raise UsageError(error.message, hint=error.hint or hint) from error


def _entries(table: Mapping[str, Any], label: str) -> dict[str, Entry]:
    version = table.get("lock")
    if type(version) is not int or version < 1:
        raise UsageError(f"{label}: not a lock file: no `lock = {VERSION}`")
    if version > VERSION:
        raise UsageError(
            f"{label}: made by a newer diachunk (lock format {version})", hint="upgrade diachunk"
        )
    _only(table, ("lock", "checkpoint"), label)
    found: dict[str, Entry] = {}
    for number, each in enumerate(_tables(table.get("checkpoint", []), f"{label}: checkpoint"), 1):
        where = f"{label}: checkpoint {number}"
        entry = _entry(each, where)
        if entry.target in found:
            raise UsageError(f"{where}: {entry.target!r:.60} is there twice")
        found[entry.target] = entry
    return found


def _entry(table: Mapping[str, Any], where: str) -> Entry:
    _only(table, (*_ENTRY_KEYS, "upstream"), where)
    name, revision = _text(table, "name", where), _text(table, "revision", where)
    if not is_name(name) or not is_revision(revision):
        raise UsageError(f"{where}: {name!r:.60}, {revision!r:.60}: not a name and a revision")
    try:
        digest = parse_digest(table.get("id"))
    except ValueError as error:
        raise UsageError(f"{where}: id: 64 lower-case hex digits are wanted") from error
    upstreams = _tables(table.get("upstream", []), f"{where}: upstream")
    return Entry(
        _text(table, "target", where),
        name,
        revision,
        digest,
        _integer(table, "total_bytes", where),
        _integer(table, "files", where),
        tuple(_upstream(each, f"{where}: upstream {number}") for number, each in enumerate(upstreams, 1)),
    )


def _upstream(table: Mapping[str, Any], where: str) -> Upstream:
    kind, component = _text(table, "kind", where), _text(table, "component", where, empty=True)
    if kind not in _UPSTREAM_KEYS or not is_component(component):
        raise UsageError(
            f"{where}: {kind!r:.60} of {component!r:.60}: no such kind of upstream, or no component"
        )
    _only(table, ("kind", "component", *_UPSTREAM_KEYS[kind]), where)
    return Upstream(component, kind, tuple((key, _text(table, key, where)) for key in _UPSTREAM_KEYS[kind]))


def _only(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{where}: no such key: {key!r:.60}")


def _tables(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise UsageError(f"{where}: an array of tables is wanted")
    return value


def _text(table: Mapping[str, Any], key: str, where: str, *, empty: bool = False) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not (value or empty) or len(value) > _TEXT_CHARS_MAX:
        raise UsageError(f"{where}: {key}: a string is wanted")
    return value


def _integer(table: Mapping[str, Any], key: str, where: str) -> int:
    value = table.get(key)
    if type(value) is not int or not 0 <= value < _INTEGER_MAX:
        raise UsageError(f"{where}: {key}: a whole number is wanted")
    return value


def format_lock(entries: Iterable[Entry]) -> str:
    """The text of a lock: the same for the same set, in whatever order."""
    pieces = [_HEAD, f"lock = {VERSION}\n"]
    for entry in sorted(entries, key=lambda each: each.target):
        pieces.append(
            "\n[[checkpoint]]\n"
            f"target = {_quoted(entry.target)}\n"
            f"name = {_quoted(entry.name)}\n"
            f"revision = {_quoted(entry.revision)}\n"
            f"id = {_quoted(entry.hex_id)}\n"
            f"total_bytes = {entry.total_bytes}\n"
            f"files = {entry.files}\n"
        )
        for upstream in entry.upstreams:
            facts = (("component", upstream.component), ("kind", upstream.kind), *upstream.facts)
            pieces.append("\n  [[checkpoint.upstream]]\n")
            pieces += [f"  {key} = {_quoted(value)}\n" for key, value in facts]
    return "".join(pieces)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes, and DEL (TOML 1.0, "String")."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_lock(path: Path, entries: Iterable[Entry]) -> None:
    """Replaces the lock in one step; left alone where it says the same already.

    Raises:
        StoreError: the directory cannot be written to, or what lies there is no file.
    """
    text = format_lock(entries)
    if os.path.lexists(path) and not path.is_file():
        raise StoreError(f"{path} is in the way and no regular file", hint="move it, then run again")
    try:
        if read_text(path) == text:
            return
    except UsageError:
        pass  # damaged: replaced
    with os_errors("write", path):
        mode = path.parent.stat().st_mode
    Files(stat.S_IMODE(mode)).replace_text(path, text.encode(), durable=True)
