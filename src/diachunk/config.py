"""Settings: flag > DIACHUNK_* > $XDG_CONFIG_HOME/diachunk/config.toml > /etc/diachunk/... > default."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diachunk.errors import StoreError, UsageError
from diachunk.limits import Limits

SITE_FILE = Path("/etc/diachunk/config.toml")
_CONFIG_BYTES_MAX = 1024 * 1024
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*(?:([kmgt])(i?))?(b|bit)?(/s|ps)?", re.IGNORECASE | re.ASCII)
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(s|m|h|d|w)?", re.IGNORECASE | re.ASCII)
_AGE_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str) -> int:
    """Reads bytes: "500M", "1.5GiB"; bits: "100Mbit", "100Mbps". K, M, G, T: powers of 1000; Ki: of 1024.

    Raises:
        UsageError: anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r:.60} is not a size or rate", hint="such as 10M, 1.5GiB or 100Mbit")
    number, unit, binary, kind, per_second = match.groups(default="")
    value = float(number) * (1024 if binary else 1000) ** _UNITS[unit.lower()]
    bits = kind.lower() == "bit" or (kind == "b" and per_second.lower() == "ps")
    return int(value / 8 if bits else value)


def parse_rate(text: str) -> int:
    """Reads bytes a second, as parse_size; at least 1 kB/s, so that a slip does not look like a hang."""
    rate = parse_size(text)
    if rate < 1000:
        raise UsageError(f"{text!r:.60}: under 1 kB a second", hint="such as 10M or 100Mbit")
    return rate


def parse_duration(text: str) -> float:
    """Reads seconds: "90", "30s", "12h", "30d".

    Raises:
        UsageError: anything else.
    """
    match = _AGE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r:.60} is not a duration", hint="such as 30s, 12h or 30d")
    return float(match[1]) * _AGE_UNITS[(match[2] or "s").lower()]


@dataclass(frozen=True, slots=True)
class Config:
    """Effective settings. `came_from` says for each key which file or variable set it."""

    home: Path
    stores: tuple[Path, ...] = ()
    origins: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    max_down_bps: int | None = None
    max_up_bps: int | None = None
    limits: Limits = field(default_factory=Limits)
    came_from: Mapping[str, str] = field(default_factory=dict)


def _strings(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{key}: a list of strings is wanted")
    return tuple(value)


def _string(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{key}: a string is wanted")
    return value


def _pins(key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        isinstance(each, str) and re.fullmatch("[0-9a-f]{64}", each) for each in value.values()
    ):
        raise UsageError(f"{key}: a table of NAME@REV = <64 hex digits> is wanted")
    return {name if "@" in name else f"{name}@main": each for name, each in value.items()}


def _limits(key: str, value: Any) -> Limits:
    if not isinstance(value, dict):
        raise UsageError(f"{key}: a table is wanted")
    return Limits.from_mapping(value)


def _path(key: str, text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{key}: no home directory for {text!r:.60}") from error
    if "\0" in text:
        raise UsageError(f"{key}: not a path: {text!r:.60}")
    return path


_READERS: Mapping[str, tuple[str, Callable[[str, Any], Any]]] = {
    "home": ("home", lambda key, value: _path(key, _string(key, value))),
    "stores": ("stores", lambda key, value: tuple(_path(key, each) for each in _strings(key, value))),
    "origins": ("origins", _strings),
    "pins": ("pins", _pins),
    "max_down": ("max_down_bps", lambda key, value: parse_rate(_string(key, value))),
    "max_up": ("max_up_bps", lambda key, value: parse_rate(_string(key, value))),
    "limits": ("limits", _limits),
}
_LIST_VARIABLES = {"stores": os.pathsep, "origins": None}


_DEEP_KEY = re.compile(
    r"""(?:^|[\[{,])[ \t]*(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){8}""", re.MULTILINE
)
"""Nothing here nests so deep, and tomllib takes memory by the square of it: a gigabyte for 32 KB."""


def parse_config(text: str, label: str) -> dict[str, Any]:
    """Reads a config file's text into fields of Config.

    Raises:
        UsageError: not TOML, an unknown key, or a value of the wrong kind; names the file and the key.
    """
    if _DEEP_KEY.search(text):
        raise UsageError(f"{label}: a key of more than 8 parts")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of int(), for a number of 5,000 digits
        raise UsageError(f"{label}: not TOML: {error}") from error
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _READERS:
            raise UsageError(f"{label}: no such setting: {key!r:.60}", hint=f"known: {', '.join(_READERS)}")
        name, read = _READERS[key]
        try:
            values[name] = read(key, value)
        except UsageError as error:
            raise UsageError(f"{label}: {error.message}", hint=error.hint) from error
    return values


def user_file(environment: Mapping[str, str]) -> Path | None:
    """Where the user's config file belongs; None when there is no home to put it in."""
    base = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "diachunk" / "config.toml" if not base.startswith("~") else None


def default_home() -> Path:
    """The platform's cache directory for this user.

    Raises:
        StoreError: there is no home directory.
    """
    import platformdirs

    try:
        home = platformdirs.user_cache_dir("diachunk", appauthor=False)
    except RuntimeError:  # newer versions refuse instead of answering with a "~"
        home = "~"
    if home.startswith("~") or not os.path.isabs(home):
        raise StoreError("no home directory to keep a store in", hint="set DIACHUNK_HOME to a directory")
    return Path(home)


def load_config(environment: Mapping[str, str] = os.environ, site_file: Path = SITE_FILE) -> Config:
    """Merges all sources of settings.

    Raises:
        UsageError: a file or variable is wrong; names it.
        StoreError: there is nowhere to put a store.
    """
    values: dict[str, Any] = {}
    came_from: dict[str, str] = {}
    for path in (site_file, user_file(environment)):
        text = _read(path)
        for name, value in parse_config(text, str(path)).items() if text is not None else ():
            values[name], came_from[name] = value, str(path)
    for key, (name, read) in _READERS.items():
        variable = f"DIACHUNK_{key.upper()}"
        text = environment.get(variable)
        if text and key not in ("pins", "limits"):
            separated = key in _LIST_VARIABLES
            given: Any = [each for each in text.split(_LIST_VARIABLES[key]) if each] if separated else text
            values[name], came_from[name] = read(variable, given), variable
    if "home" not in values:
        values["home"], came_from["home"] = default_home(), "default"
    values["home"] = Path(os.path.abspath(values["home"]))
    return Config(**values, came_from=came_from)


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            data = file.read(_CONFIG_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _CONFIG_BYTES_MAX:
        raise UsageError(f"{path}: over {_CONFIG_BYTES_MAX:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8") from error
