"""The set of checkpoints that settings name, and what a project file (`./diachunk.toml`) may not say.

A project file comes with somebody's code. It says what the code needs; where this machine keeps things, how much
of it a stranger's manifest may take, and which files outside the project's directory are written, is not for it
to say.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diachunk.errors import UsageError

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

_FILE_BYTES_MAX = 1024 * 1024
_CHECKPOINTS_MAX = 1000
_TARGET_CHARS_MAX = 2048
_PATTERN_CHARS_MAX = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PEER = re.compile(
    r"(?:dns:)?(\[[0-9A-Fa-f:.%]{2,64}\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?)(?::(\d{1,5}))?"
)
_PATH_STARTS = ("/", "./", "../", "~/")
_DEEP_KEY = re.compile(
    r"""(?:^|[\[{,])[ \t]*(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){8}""", re.MULTILINE
)
"""Nothing here nests so deep, and tomllib takes memory by the square of it: a gigabyte for 32 KB."""


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


def read_text(path: Path) -> str | None:
    """The text of a settings file; None if it is not there. Never waits for the writer of a pipe.

    Raises:
        UsageError: it cannot be read, is not UTF-8, or is too large.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            data = file.read(_FILE_BYTES_MAX + 1) or b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise UsageError(f"{path}: over {_FILE_BYTES_MAX:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8") from error


def parse_toml(text: str, label: str) -> dict[str, Any]:
    """Reads TOML of strangers.

    Raises:
        UsageError: it is none, or made to exhaust the reader.
    """
    if _DEEP_KEY.search(text):
        raise UsageError(f"{label}: a key of more than 8 parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of int(), for a number of 5,000 digits
        raise UsageError(f"{label}: not TOML: {error}") from error


def strings(key: str, value: Any) -> tuple[str, ...]:
    """A list of strings."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{key}: a list of strings is wanted")
    return tuple(value)


def string(key: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise UsageError(f"{key}: a string is wanted")
    return value


def path_of(key: str, text: str) -> Path:
    """A path as a user writes it, with `~`."""
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{key}: no home directory for {text!r:.60}") from error
    if "\0" in text:
        raise UsageError(f"{key}: not a path: {text!r:.60}")
    return path


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


def peers(key: str, value: Any) -> tuple[str, ...]:
    """Reads HOST[:PORT], or dns:NAME[:PORT] for every address of a name; an IPv6 address stands in brackets."""
    found = strings(key, value)
    for text in found:
        match = _PEER.fullmatch(text)
        if match is None or not 0 < int(match[2] or 1) < 65536:
            raise UsageError(
                f"{key}: {text!r:.60} is not HOST[:PORT]", hint="such as lab-7, lab-7:8420 or [fd00::7]"
            )
    return found


def networks(key: str, value: Any) -> tuple[str, ...]:
    """Reads CIDR blocks: "10.0.0.0/8", "fd00::/8", a single address."""
    found = strings(key, value)
    for text in found:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise UsageError(
                f"{key}: {text!r:.60} is no network ({error})", hint="such as 10.0.0.0/8"
            ) from error
    return found


def flag(key: str, value: Any) -> bool:
    """true or false; of a variable, also 1, 0, yes and no."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise UsageError(f"{key}: true or false is wanted")
    return value


def port(key: str, value: Any) -> int:
    """A TCP port."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise UsageError(f"{key}: a port is wanted, 1 to 65535")
    return value


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
