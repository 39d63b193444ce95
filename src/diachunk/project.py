"""The set of checkpoints that settings name, and what a project file (`./diachunk.toml`) may not say.

A project file comes with somebody's code. It says what the code needs; where this machine keeps things, how much
of it a stranger's manifest may take, and which files outside the project's directory are written, is not for it
to say.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diachunk.errors import UsageError
from diachunk.values import path_of, string, strings

PROJECT_FILE = "diachunk.toml"
LOCK_FILE = "diachunk.lock"
PLACE_KINDS = ("hub", "descript", "dia")
"""Caches of other programs, for which `places/` has a file each: what settings may name."""
REFUSED_KEYS: Mapping[str, str] = {
    "home": "where this machine keeps checkpoints",
    "stores": "which other stores this machine reads",
    "pins": "which checkpoint a name stands for on this machine",
    "allow": "who may ask this machine for its checkpoints",
    "token_file": "where this machine keeps its lab's secret",
    "allowed_signers": "whose signatures this machine trusts",
    "require_signed": "whether this machine takes unsigned checkpoints",
    "share": "whether this machine shares what it has",
    "discover": "whether this machine looks for others on its network",
    "port": "where this machine listens",
    "linger": "how long this machine stays for others",
}
GUARD_LIMITS = frozenset(
    {
        "lanes_max",
        "manifest_bytes_max",
        "manifest_files_max",
        "manifest_chunks_max",
        "path_bytes_max",
        "segment_bytes_max",
        "name_chars_max",
        "nesting_max",
        "tensor_header_bytes_max",
        "origins_max",
        "neighbours_max",
        "peers_known_max",
        "node_connections_max",
        "upload_slots",
    }
)
"""Limits that guard this machine against strangers' files."""

_CHECKPOINTS_MAX = 1000
_TARGET_CHARS_MAX = 2048
_PATTERN_CHARS_MAX = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATH_STARTS = ("/", "./", "../", "~/")


@dataclass(frozen=True, slots=True)
class WantedCheckpoint:
    """One member of the set.

    Attributes:
        target: as it is written in the file.
        components: only these; empty for all.
        places: where to show it, kinds and absolute directories; None where the entry does not say.
        origins: URLs, templates or directories that have this one.
        to: an absolute directory that takes the files in place of the store, or None.
        include, exclude: of a `hub:` target, which files.
        base: the directory of the file that names it, which relative paths start from.
    """

    target: str
    components: tuple[str, ...] = ()
    places: tuple[str, ...] | None = None
    origins: tuple[str, ...] = ()
    to: Path | None = None
    base: Path = Path()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What a lock knows it by: the target, and which of its files, as on a command line."""
        picked = [word for text in self.include for word in ("--include", text)]
        picked += [word for text in self.exclude for word in ("--exclude", text)]
        return " ".join((self.target, *map(shlex.quote, picked)))

    @property
    def locator(self) -> str:
        """The target for `fetch`: a manifest file's path starts from the directory of the file that names it."""
        text = self.target
        if "://" in text or text.startswith("hub:"):
            return text
        if text.startswith("~/"):
            return os.path.expanduser(text)
        is_file = text.startswith(("./", "../")) or text.endswith((".json", ".toml"))
        return os.path.join(self.base, text) if is_file else text


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """Which file a setting stands in, and so where its paths start and how far it is trusted."""

    directory: Path = Path()
    is_project: bool = False


def find_project_file() -> Path | None:
    """`./diachunk.toml`, where there is one; those of the directories above do not count."""
    try:
        path = Path.cwd() / PROJECT_FILE
    except OSError:  # the working directory was removed
        return None
    return path if os.path.lexists(path) else None


def checkpoints(key: str, value: Any, file: SettingsFile) -> tuple[WantedCheckpoint, ...]:
    """Reads the set: targets, or tables with `target` and the other fields of WantedCheckpoint."""
    if not isinstance(value, list):
        raise UsageError(
            f'{key}: a list is wanted, such as ["lab/dia", {{target = "lab/dia", to = "weights"}}]'
        )
    if len(value) > _CHECKPOINTS_MAX:
        raise UsageError(f"{key}: over {_CHECKPOINTS_MAX:,} checkpoints")
    return tuple(_checkpoint(f"{key}[{number}]", each, file) for number, each in enumerate(value, 1))


def _checkpoint(key: str, value: Any, file: SettingsFile) -> WantedCheckpoint:
    table = {"target": value} if isinstance(value, str) else value
    if not isinstance(table, dict):
        raise UsageError(f"{key}: a string or a table is wanted")
    known = ("target", "components", "include", "exclude", "places", "origins", "to")
    for name in table:
        if name not in known:
            raise UsageError(f"{key}: no such setting: {name!r:.60}", hint=f"known: {', '.join(known)}")
    if "target" not in table:
        raise UsageError(f"{key}: no target", hint='such as {target = "lab/dia"}')
    target = string(f"{key}.target", table["target"])
    if not target or len(target) > _TARGET_CHARS_MAX or _CONTROL.search(target) or target.startswith("-"):
        raise UsageError(f"{key}.target: {target!r:.60} is not a TARGET")
    include, exclude = (
        _patterns(f"{key}.{each}", table.get(each, []), target) for each in ("include", "exclude")
    )
    return WantedCheckpoint(
        target,
        strings(f"{key}.components", table.get("components", [])),
        places(f"{key}.places", table["places"], file) if "places" in table else None,
        strings(f"{key}.origins", table.get("origins", [])),
        _directory(f"{key}.to", string(f"{key}.to", table["to"]), file) if "to" in table else None,
        file.directory,
        include,
        exclude,
    )


def _patterns(key: str, value: Any, target: str) -> tuple[str, ...]:
    """Names or patterns of files in a repository."""
    found = strings(key, value)
    if found and not target.startswith("hub:"):
        raise UsageError(f"{key}: files can be picked of hub:ORG/REPO alone", hint="or write a recipe")
    for text in found:
        if not text or len(text) > _PATTERN_CHARS_MAX or _CONTROL.search(text):
            raise UsageError(f"{key}: {text!r:.60} is no name or pattern", hint='such as "*.json"')
    return found


def places(key: str, value: Any, file: SettingsFile) -> tuple[str, ...]:
    """Reads kinds of place, and directories, which come out absolute."""
    return tuple(_place(key, each, file) for each in strings(key, value))


def _place(key: str, text: str, file: SettingsFile) -> str:
    if text in PLACE_KINDS:
        return text
    if not text.startswith(_PATH_STARTS):
        kinds = ", ".join(PLACE_KINDS)
        raise UsageError(f"{key}: no such place: {text!r:.60}", hint=f"{kinds}, or a directory: ./NAME")
    return str(_directory(key, text, file))


def _directory(key: str, text: str, file: SettingsFile) -> Path:
    """A directory to write to; one that a project file names lies below the project's own.

    Raises:
        UsageError: it does not, also by way of a link that came with the project.
    """
    if not text:
        raise UsageError(f"{key}: a directory is wanted")
    if not file.is_project:
        return Path(os.path.abspath(file.directory / path_of(key, text)))
    path = Path(os.path.abspath(file.directory / text)) if "\0" not in text else file.directory
    real, root = os.path.realpath(path), os.path.realpath(file.directory)
    if text.startswith("~") or path == file.directory or not real.startswith(os.path.join(root, "")):
        raise UsageError(
            f"{key}: {text!r:.60} is not below the project's directory",
            hint="a project file comes with somebody's code; other directories are named on the command line",
        )
    return path


def refuse_in_project(table: Mapping[str, Any], label: str) -> None:
    """Refuses what is for this machine's own settings to say.

    Raises:
        UsageError: names the file, the key and the reason.
    """
    hint = "say it in your own config.toml, which `diachunk config` names"
    for key, what in REFUSED_KEYS.items():
        if key in table:
            raise UsageError(f"{label}: {key}: a project file cannot say {what}", hint=hint)
    limits = table.get("limits")
    for name in limits if isinstance(limits, dict) else ():
        if name in GUARD_LIMITS:
            raise UsageError(
                f"{label}: limits.{name}: a project file cannot weaken this machine's guards", hint=hint
            )
